// The hint editor's part in the browser: a photo on which one clicks, a color, and what was said so far.
function render({ model, el }) {
  el.innerHTML = `<div style="position:relative;display:inline-block;line-height:0">
      <img style="cursor:crosshair;max-width:100%;margin:0"></div>
    <div style="margin:6px 0">color <input type="color"> <button>take the last one back</button> <span></span></div>`;
  const [photo, image, color, back, told] = [
    el.querySelector("div"), el.querySelector("img"), el.querySelector("input"), el.querySelector("button"),
    el.querySelector("span"),
  ];
  color.value = model.get("color");

  function draw() {
    image.src = "data:image/png;base64," + model.get("picture");
    photo.querySelectorAll("i").forEach((dot) => dot.remove());
    const [height, width] = model.get("size");
    for (const hint of model.get("hints")) {
      const dot = document.createElement("i");
      dot.style = `position:absolute;pointer-events:none;width:10px;height:10px;margin:-7px 0 0 -7px;border-radius:50%;
        border:2px solid white;outline:1px solid black;background:${hint.color};
        left:${(100 * hint.x) / width}%;top:${(100 * hint.y) / height}%`;
      photo.append(dot);
    }
    told.textContent = model.get("hints").length + " hints";
  }

  function say(hints) {
    model.set("hints", hints);
    model.save_changes();
  }

  image.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect(), [height, width] = model.get("size");
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    say([...model.get("hints"), { x: Math.min(x, width - 1), y: Math.min(y, height - 1), color: color.value }]);
  });
  back.addEventListener("click", () => say(model.get("hints").slice(0, -1)));
  model.on("change:picture", draw);
  model.on("change:hints", draw);
  draw();
}
export default { render };

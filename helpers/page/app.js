// The page: what its controls do.

import { loadNetwork } from "./network.js";
import { hintMaps, openPhoto, paint, seen } from "./photo.js";

const $ = (id) => document.getElementById(id), say = (text) => ($("message").textContent = text);
const on = (id, event, action) => $(id).addEventListener(event, action);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let network, photo, ab, hints = [], version = 0, queue = Promise.resolve(); // the last hint may wait for its color

/** Do something after all that was begun before; if it fails, say why, and the page stays usable. */
function next(action) {
  const noMemory = (error) => error instanceof RangeError || /memory|alloc/i.test(error.message);
  const words = (error) => (noMemory(error) ? "This device ran out of memory. Try a smaller photo." : error.message);
  queue = queue.then(action).catch((error) => say(words(error)));
}

/** Return ab of the photo with its hints, as `Colorizer.predict_colors` does. */
async function predict() {
  const { L, width, height } = photo.seen, n = width * height, saturation = Number($("saturation").value);
  const colored = hints.filter((hint) => hint.color), maps = hintMaps(colored, photo.seen);
  const before = (color) => Math.min(Math.max(color / Math.max(saturation, 0.2), -1), 1); // as it is before saturation
  const wanted = maps.map((value, i) => (i < 2 * n ? before(value) : value));
  const raw = (!colored.length && photo.plain) || (await network.predict(L, wanted, width, height));
  if (!colored.length) photo.plain = raw;
  const values = raw.map((v, i) => (maps[2 * n + (i >> 1)] ? maps[(i & 1) * n + (i >> 1)] : v * saturation));
  return { values, width, height };
}

/** Mark the hints on the photo and color it anew, unless something newer waits. */
function update() {
  const mine = ++version, last = hints.at(-1), { width, height } = $("after");
  $("marks").replaceChildren(...hints.map(({ x, y, color = "none" }) => {
    const mark = document.createElement("i");
    Object.assign(mark.style, { left: `${100 * x}%`, top: `${100 * y}%`, background: color });
    return mark;
  }));
  $("color").disabled = $("undo").disabled = $("clear").disabled = !last;
  if (last && !last.color) { // begin with the color that the place has
    const [r, g, b] = $("after").getContext("2d").getImageData(last.x * width, last.y * height, 1, 1).data;
    $("color").value = `#${((1 << 24) + (r << 16) + (g << 8) + b).toString(16).slice(1)}`;
  }
  next(async () => {
    if (mine !== version || !network || !photo) return;
    photo.seen ??= seen(photo, Number($("size").value) || network.about.size);
    ab = await predict();
    await paint(photo.shown, $("after"), ab, network.gamut);
    $("download").disabled = false;
  });
}

/** Open a file and show it, then color it. */
const open = (file) => file && next(async () => {
  say(`Opening ${file.name} ...`);
  [photo, hints, ab] = [await openPhoto(file), [], null];
  const { width, height } = photo.shown;
  for (const canvas of [$("before"), $("after")]) {
    Object.assign(canvas, { width, height }).getContext("2d").drawImage(photo.shown, 0, 0);
  }
  $("studio").style.setProperty("--shape", width / height);
  $("studio").hidden = !($("download").disabled = true);
  say(photo.note);
  update();
});

/** Save the photo in color at its own size. */
const download = () => next(async () => {
  const type = $("format").value, { full, name } = photo, file = `${name}-in-color.${type.replace("jpeg", "jpg")}`;
  const canvas = Object.assign(document.createElement("canvas"), { width: full.width, height: full.height });
  await paint(full, canvas, ab, network.gamut, (share) => say(`Coloring at full size: ${Math.round(100 * share)}%`));
  const blob = await new Promise((done) => canvas.toBlob(done, `image/${type}`, 0.95));
  if (!blob) throw new RangeError();
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
  say(`Saved ${file}, ${full.width} x ${full.height} pixels.`);
});

/** Take other hints; begin one at a place, x and y in [0, 1). */
const setHints = (others) => update((hints = others));
function place(x, y) {
  if (!network?.about.hints || !ab) return;
  setHints([...hints.filter(({ color }) => color), { x, y }]);
  say("Now choose the color of this place.");
}

/** Begin a hint in the middle with Enter; move the last one with the arrow keys. */
function onKey(event) {
  const last = hints.at(-1), step = ARROWS[event.key], moved = (at, by) => Math.min(Math.max(at + by / 50, 0), 0.999);
  if (event.key === "Enter") place(0.5, 0.5);
  if (!step || !last) return;
  event.preventDefault();
  Object.assign(last, { x: moved(last.x, step[0]), y: moved(last.y, step[1]) });
  update();
}

/** Keep the page for visits without a network, where the browser allows it, before the large files are loaded. */
async function keep() {
  const { serviceWorker } = navigator;
  if (!serviceWorker || serviceWorker.controller) return;
  const kept = new Promise((done) => serviceWorker.addEventListener("controllerchange", done));
  const waited = new Promise((done) => setTimeout(done, 3000));
  await serviceWorker.register("sw.js").then(() => Promise.race([kept, waited]), () => {});
}

keep().then(() => loadNetwork((share) => ($("progress").value = share))).then((loaded) => {
  network = loaded;
  $("model").textContent = `Network: ${network.about.name}.`;
  $("hints").hidden = !network.about.hints;
  update();
}).catch((error) => say(`The network could not be loaded: ${error.message}. Reload, or update the browser.`))
  .finally(() => ($("progress").hidden = true));
on("file", "change", ({ target }) => { open(target.files[0]); target.value = ""; });
on("split", "input", ({ target }) => $("stage").style.setProperty("--split", `${target.value}%`));
on("saturation", "input", ({ target }) => { $("amount").value = Number(target.value).toFixed(2); update(); });
on("size", "change", () => { photo.seen = photo.plain = null; update(); });
on("color", "input", ({ target }) => { hints.at(-1).color = target.value; say(""); update(); });
on("undo", "click", () => setHints(hints.slice(0, -1)));
on("clear", "click", () => setHints([]));
on("download", "click", download);
on("stage", "keydown", onKey);
on("stage", "click", ({ target, offsetX: x, offsetY: y }) => place(x / target.clientWidth, y / target.clientHeight));
addEventListener("paste", ({ clipboardData }) => open(clipboardData.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); open(event.dataTransfer.files[0]); });

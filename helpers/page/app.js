// The page: what its controls do.

import { loadNetwork } from "./network.js";
import { hintMaps, openPhoto, paint, seen } from "./photo.js";

const $ = (id) => document.getElementById(id), say = (text) => ($("message").textContent = text);
const on = (id, event, action) => $(id).addEventListener(event, action);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
let network, photo, ab, hints = [], version = 0, queue = Promise.resolve(); // the last hint may have no color yet

/** Do something that may fail, and say what went wrong; the page stays usable. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    const memory = error instanceof RangeError || /memory|alloc/i.test(error.message);
    say(memory ? "This device ran out of memory. Try a smaller photo, or close other tabs." : error.message);
  }
}

/** Return ab of the photo with its hints, as `Colorizer.predict_colors` does. */
async function predict() {
  const { L, width, height } = photo.seen, n = width * height, saturation = Number($("saturation").value);
  const colored = hints.filter((hint) => hint.color), maps = hintMaps(colored, photo.seen), low = Math.max(saturation, 0.2);
  const wanted = maps.map((value, i) => (i < 2 * n ? Math.min(Math.max(value / low, -1), 1) : value)); // saturated later
  const raw = (!colored.length && photo.plain) || (await network.predict(L, wanted, width, height));
  if (!colored.length) photo.plain = raw;
  const values = raw.map((v, i) => (maps[2 * n + (i >> 1)] ? maps[(i & 1) * n + (i >> 1)] : v * saturation));
  return { values, width, height };
}

/** Color what is shown, unless something newer is waiting. */
function update() {
  const mine = ++version;
  queue = queue.then(() => mine === version && network && photo && attempt(async () => {
    photo.seen ??= seen(photo, Number($("size").value));
    ab = await predict();
    await paint(photo.shown, $("after"), ab, network.gamut);
    $("download").disabled = false;
  }));
  return queue;
}

/** Open a file and show it, then color it. */
function open(file) {
  queue = queue.then(() => file && attempt(async () => {
    say(`Opening ${file.name} ...`);
    [photo, hints, ab] = [await openPhoto(file), [], null];
    $("stage").style.setProperty("--shape", photo.shown.width / photo.shown.height);
    for (const canvas of [$("before"), $("after")]) {
      Object.assign(canvas, { width: photo.shown.width, height: photo.shown.height });
      canvas.getContext("2d").drawImage(photo.shown, 0, 0);
    }
    say(photo.note);
    $("download").disabled = true;
    $("studio").hidden = false;
    showHints();
  }));
  return update();
}

/** Save the photo in color at its own size. */
const download = () => attempt(async () => {
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

/** Mark the hints on the photo, and let the user choose the color of the last one. */
function showHints() {
  $("marks").replaceChildren(...hints.map(({ x, y, color }) => {
    const mark = document.createElement("i");
    Object.assign(mark.style, { left: `${100 * x}%`, top: `${100 * y}%`, background: color ?? "none" });
    return mark;
  }));
  $("color").disabled = $("undo").disabled = $("clear").disabled = !hints.length;
  if (hints.length && !hints.at(-1).color) {
    const { x, y } = hints.at(-1), after = $("after"), context = after.getContext("2d");
    const [r, g, b] = context.getImageData(x * after.width, y * after.height, 1, 1).data;
    $("color").value = `#${((1 << 24) + (r << 16) + (g << 8) + b).toString(16).slice(1)}`;
  }
}

/** Begin a hint at a place, x and y in [0, 1); its color comes next. */
function place(x, y) {
  if (!network?.about.hints || !ab) return;
  hints = [...hints.filter(({ color }) => color), { x, y, color: null }];
  showHints();
  say("Now choose the color of this place.");
}

/** Begin a hint in the middle with Enter, and move the last one with the arrow keys. */
function moveHint(event) {
  const last = hints.at(-1), step = ARROWS[event.key], moved = (x, by) => Math.min(Math.max(x + by / 50, 0), 0.999);
  if (event.key === "Enter") place(0.5, 0.5);
  else if (step && last) Object.assign(last, { x: moved(last.x, step[0]), y: moved(last.y, step[1]) });
  else return;
  event.preventDefault();
  changeHints(hints);
}

/** Take other hints, and color anew. */
function changeHints(others) {
  hints = others;
  showHints();
  update();
}

/** Keep the page for visits without a network, where the browser allows it, before the large files are loaded. */
async function keep() {
  const { serviceWorker } = navigator;
  if (!serviceWorker || serviceWorker.controller) return;
  const kept = new Promise((done) => serviceWorker.addEventListener("controllerchange", done));
  const failed = serviceWorker.register("sw.js").then(() => new Promise((done) => setTimeout(done, 3000)), () => {});
  await Promise.race([kept, failed]);
}

/** Load the network, and color the photo if one is there already. */
async function start() {
  try {
    if (!WebAssembly.validate(new Uint8Array(SIMD))) throw new Error("this browser is too old, it lacks WASM SIMD");
    await keep();
    network = await loadNetwork((share) => ($("progress").value = share));
  } catch (error) {
    return say(`The network could not be loaded: ${error.message}. Check the connection and reload the page.`);
  } finally {
    $("progress").hidden = true;
  }
  const { size, name, hints: takesHints } = network.about;
  for (const pixels of new Set([size, 256, 384])) {
    $("size").add(new Option(`${pixels} pixels${pixels === size ? ", as in training" : ""}`, pixels));
  }
  $("model").textContent = `Network: ${name}.`;
  $("hints").hidden = !takesHints;
  update();
}

on("file", "change", ({ target }) => open(target.files[0]).then(() => (target.value = "")));
on("split", "input", ({ target }) => $("stage").style.setProperty("--split", `${target.value}%`));
on("saturation", "input", ({ target }) => { $("amount").value = Number(target.value).toFixed(2); update(); });
on("size", "change", () => { Object.assign(photo, { seen: null, plain: null }); update(); });
on("color", "input", ({ target }) => { hints.at(-1).color = target.value; changeHints(hints); });
on("undo", "click", () => changeHints(hints.slice(0, -1)));
on("clear", "click", () => changeHints([]));
on("download", "click", download);
on("stage", "keydown", moveHint);
on("stage", "click", ({ target, offsetX: x, offsetY: y }) => place(x / target.clientWidth, y / target.clientHeight));
addEventListener("paste", ({ clipboardData }) => open(clipboardData.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); open(event.dataTransfer.files[0]); });
start();

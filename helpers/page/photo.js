// A photo: opened from a file, reduced for the network, and painted in color at any size.

import { colorize, colorToAb, reduced } from "./color.js";

const MOST = 24e6, SHOWN = 1.5e6, STRIP = 2 ** 18; // pixels: of a photo, of what is shown, colored at a time
const rounded = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // as Python does
const rowsOf = (canvas) => (top, count) => canvas.getContext("2d").getImageData(0, top, canvas.width, count).data;

/** Return a canvas with an image of at most so many pixels, over white where it is transparent. */
function drawn(image, width, height, most) {
  const share = Math.min(1, Math.sqrt(most / (width * height))), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((length) => Math.max(1, Math.round(share * length)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { fillStyle: "white", imageSmoothingQuality: "high" });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Return { name, full, shown, note }, with two canvases, of a file turned as its EXIF data say. */
export async function openPhoto(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  const opened = await new Promise((done) => { image.onload = () => done(true); image.onerror = () => done(false); });
  URL.revokeObjectURL(image.src);
  if (!opened) throw new Error(`${file.name} is no photo that this browser can read. Try a JPEG, PNG or WebP file.`);
  const { naturalWidth: width, naturalHeight: height } = image, megapixels = Math.round((width * height) / 1e6);
  const full = drawn(image, width, height, MOST), shown = drawn(full, full.width, full.height, SHOWN);
  const note = width * height > MOST ? `The photo has ${megapixels} megapixels and was reduced to ${MOST / 1e6}.` : "";
  return { name: file.name.replace(/\.\w+$/, ""), full, shown, note };
}

/** Return { L, width, height }, what the network sees of a photo: at most `size` pixels on the shorter side. */
export function seen({ full: { width, height }, full }, size) {
  const share = Math.min(1, size / Math.min(width, height), (8 * size) / Math.max(width, height));
  const [w, h] = [width, height].map((length) => Math.max(1, rounded(share * length)));
  return { L: reduced(rowsOf(full), width, height, w, h), width: w, height: h };
}

/** Return hints, { x, y, color } with x and y in [0, 1), as maps of a, b and weight: squares of 5 x 5 pixels. */
export function hintMaps(hints, { width, height }) {
  const maps = new Float32Array(3 * width * height);
  for (const { x, y, color } of hints) {
    const top = Math.floor(y * height) - 2, left = Math.floor(x * width) - 2, values = [...colorToAb(color), 1];
    for (let k = 0; k < 25; k++) {
      const row = top + Math.floor(k / 5), column = left + (k % 5);
      const inside = row >= 0 && row < height && column >= 0 && column < width;
      if (inside) values.forEach((value, map) => (maps[(map * height + row) * width + column] = value));
    }
  }
  return maps;
}

/** Paint one canvas onto another in color, a strip at a time, so that the page stays alive and memory small. */
export async function paint(source, target, ab, gamut, progress = () => {}) {
  const { width, height } = source, context = target.getContext("2d"), rows = Math.max(1, Math.floor(STRIP / width));
  for (let top = 0; top < height; top += rows) {
    const pixels = rowsOf(source)(top, Math.min(rows, height - top));
    colorize(pixels, top, width, height, ab, gamut);
    context.putImageData(new ImageData(pixels, width), 0, top);
    progress(Math.min(1, (top + rows) / height));
    await new Promise((next) => setTimeout(next));
  }
}

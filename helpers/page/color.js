// CIELAB as in helpers/color.py: a photo's own lightness joined with the network's colors, brought into sRGB.

const STEPS = 2 ** 16; // of the table from linear light to 8 bits
const decode = (x) => (x > 0.04045 ? ((x + 0.055) / 1.055) ** 2.4 : x / 12.92);
const encode = (x) => (x > 0.0031308 ? 1.055 * x ** (1 / 2.4) - 0.055 : 12.92 * x);
const LINEAR = Float64Array.from({ length: 256 }, (_, i) => decode(i / 255));
const ENCODED = Uint8Array.from({ length: STEPS + 1 }, (_, i) => Math.round(255 * encode(i / STEPS)));
const encoded = (x) => ENCODED[x <= 0 ? 0 : x >= 1 ? STEPS : (x * STEPS + 0.5) | 0];
const root = (x) => (x > 0.008856 ? Math.cbrt(x) : 7.787 * x + 4 / 29);
const power = (x) => (x > 6 / 29 ? x * x * x : 3 * (6 / 29) ** 2 * (x - 4 / 29));
const step = (place) => Math.round(32 * place) / 32; // OpenCV looks tables up in such steps
const rootOfY = (r, g, b) => root(0.212671 * LINEAR[r] + 0.71516 * LINEAR[g] + 0.072169 * LINEAR[b]); // (L* + 16) / 116

/** Return a and b in [-1, 1] of a color "#rrggbb". */
export function colorToAb(color) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)), y = rootOfY(r, g, b);
  const x = root((0.412453 * LINEAR[r] + 0.35758 * LINEAR[g] + 0.180423 * LINEAR[b]) / 0.95047);
  const z = root((0.019334 * LINEAR[r] + 0.119193 * LINEAR[g] + 0.950227 * LINEAR[b]) / 1.08883);
  return [(500 * (x - y)) / 128, (200 * (y - z)) / 128];
}

/** Return the table of `gamut_boundary` in helpers/color.py with the least limit of each lightness and those beside it. */
export function makeGamut(table, lights, hues) {
  const rows = Array.from({ length: lights }, (_, i) => Math.min(...table.subarray(3 * i * hues, 3 * (i + 1) * hues)));
  return { table, lights, hues, least: rows.map((_, i) => Math.min(...rows.slice(Math.max(0, i - 1), i + 2))) };
}

/** Return how far from gray, as |a| + |b|, a color may be: at a lightness in [0, 1] and a hue from -2 to 2. */
function limit({ table, lights, hues }, light, hue) {
  const row = Math.min(step(light * (lights - 1)), lights - 1.001), down = row % 1;
  const column = Math.min(step(((hue + 2) * (hues - 1)) / 4), hues - 1.001), right = column % 1;
  const at = 3 * ((row - down) * hues + column - right), below = at + 3 * hues;
  const along = (i) => (1 - right) * table[i] + right * table[i + 3];
  const channel = (i) => (1 - down) * along(at + i) + down * along(below + i);
  return Math.min(channel(0), channel(1), channel(2));
}

/** Return for each of `more` pixels the first of the two of `less` pixels beside it, and the second one's share. */
function neighbors(less, more) {
  const inside = (place) => Math.min(Math.max(place, 0), less - 1);
  const places = Float64Array.from({ length: more }, (_, i) => inside(((i + 0.5) * less) / more - 0.5));
  return { first: Int32Array.from(places), share: places.map((place) => place % 1) };
}

/**
 * Color RGBA pixels in place: rows from `top` on of a photo of width x height pixels.
 * ab: { values, width, height }, a and b of each pixel in [-1, 1], enlarged bilinearly; gamut: see `makeGamut`.
 */
export function colorize(pixels, top, width, height, ab, gamut) {
  const rows = neighbors(ab.height, height), columns = neighbors(ab.width, width), n = 2 * ab.width;
  const line = new Float64Array(n + 2); // the ab of one row; its last two numbers only ever have the share 0
  for (let at = 0, y = top; at < pixels.length; y++) {
    const start = n * rows.first[y], next = Math.min(start + n, n * (ab.height - 1)), down = rows.share[y];
    for (let i = 0; i < n; i++) line[i] = (1 - down) * ab.values[start + i] + down * ab.values[next + i];
    for (let x = 0; x < width; x++, at += 4) {
      const i = 2 * columns.first[x], share = columns.share[x];
      const a = (1 - share) * line[i] + share * line[i + 2], b = (1 - share) * line[i + 1] + share * line[i + 3];
      const rootY = rootOfY(pixels[at], pixels[at + 1], pixels[at + 2]), light = 1.16 * rootY - 0.16, Y = power(rootY);
      const chroma = Math.abs(a) + Math.abs(b), hue = b < 0 ? a / chroma - 1 : 1 - a / chroma; // around from -2 to 2
      const inside = 128 * chroma <= gamut.least[Math.round(light * (gamut.lights - 1))];
      const kept = inside ? 1 : Math.min(1, limit(gamut, light, hue) / (128 * chroma)); // of the chroma
      const X = 0.95047 * power(rootY + (128 / 500) * kept * a), Z = 1.08883 * power(rootY - (128 / 200) * kept * b);
      pixels[at] = encoded(3.2404813432 * X - 1.5371515163 * Y - 0.4985363262 * Z);
      pixels[at + 1] = encoded(-0.96925495 * X + 1.8759900015 * Y + 0.0415559266 * Z);
      pixels[at + 2] = encoded(0.0556466391 * X - 0.2040413384 * Y + 1.0573110696 * Z);
    }
  }
}

/** Return for each of `more` pixels the first of `less` pixels that it falls into, and its share in that. */
function targets(less, more) {
  const first = Int32Array.from({ length: more }, (_, i) => Math.floor((i * less) / more));
  return { first, share: Float64Array.from(first, (target, i) => Math.min(1, ((target + 1) * more) / less - i)) };
}

/** Return L in [-1, 1] of a photo, width x height, reduced to w x h by the mean over areas; read(top, count): rows. */
export function reduced(read, width, height, w, h) {
  const columns = targets(w, width), rows = targets(h, height), n = 3 * w, sums = new Float64Array(n * (h + 1));
  for (let y = 0, at = 0, strip = []; y < height; y++) {
    if (at >= strip.length) [strip, at] = [read(y, Math.min(64, height - y)), 0];
    const line = new Float64Array(n + 3), start = n * rows.first[y], upper = rows.share[y];
    for (let x = 0; x < width; x++, at += 4) {
      for (let c = 0, i = 3 * columns.first[x], left = columns.share[x]; c < 3; c++) {
        line[i + c] += left * strip[at + c];
        line[i + 3 + c] += (1 - left) * strip[at + c];
      }
    }
    for (let i = 0; i < 2 * n; i++) sums[start + i] += i < n ? upper * line[i] : (1 - upper) * line[i - n];
  }
  const small = Uint8ClampedArray.from(sums, (sum) => (sum * w * h) / (width * height));
  const L = (_, i) => (116 * rootOfY(small[3 * i], small[3 * i + 1], small[3 * i + 2]) - 16) / 50 - 1;
  return Float32Array.from({ length: w * h }, L);
}

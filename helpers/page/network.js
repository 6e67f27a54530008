// The trained network: loaded with the library onnxruntime-web, it predicts colors from lightness and hints.

import { makeGamut } from "./color.js";

const SIMD = Uint8Array.from(atob("AGFzbQEAAAABBQFgAAF7AwIBAAoKAQgAQQD9D/1iCw=="), (c) => c.charCodeAt(0)); // needs it
const up = (length) => Math.max(64, 32 * Math.ceil(length / 32)); // sizes that the network takes

/** Return the bytes of a packed file of this folder; came: called with the number of bytes of each part. */
async function load(name, came) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing (${response.status})`);
  const counted = new TransformStream({ transform: (part, out) => { came(part.length); out.enqueue(part); } });
  const unpacked = response.body.pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).arrayBuffer();
}

/** Return maps (count x height x width) as a tensor whose last rows and columns are repeated up to h x w. */
function padded(ort, maps, count, width, height) {
  const [w, h] = [up(width), up(height)], values = new Float32Array(count * h * w);
  for (let i = 0; i < values.length; i++) {
    const x = Math.min(i % w, width - 1), y = Math.min(Math.floor(i / w) % h, height - 1);
    values[i] = maps[(Math.floor(i / (w * h)) * height + y) * width + x];
  }
  return new ort.Tensor("float32", values, [1, count, h, w]);
}

/** Return { about, gamut, predict } of this folder's model; progress: called with the share that is loaded. */
export async function loadNetwork(progress) {
  if (!WebAssembly.validate(SIMD)) throw new Error("this browser is too old, it lacks WebAssembly SIMD");
  const about = await (await fetch("model.json")).json(), files = Object.entries(about.files);
  const total = files.reduce((sum, [, size]) => sum + size, 0);
  let sum = 0;
  const loads = files.map(([name]) => load(name, (more) => progress((sum += more) / total)));
  const [model, wasm, table] = await Promise.all(loads), ort = await import("./ort.wasm.min.mjs");
  ort.env.wasm.wasmBinary = wasm; // in one thread, or in several where the host isolates the page
  const session = await ort.InferenceSession.create(model);

  /** Return a and b of each pixel, in turn, for L and hints (maps of a, b, weight) of a photo of width x height. */
  async function predict(L, hints, width, height) {
    const inputs = { L: padded(ort, L, 1, width, height), hints: padded(ort, hints, 3, width, height) };
    const { ab } = await session.run(about.hints ? inputs : { L: inputs.L }), [, , h, w] = ab.dims;
    const place = (i) => ((i & 1) * h + Math.floor((i >> 1) / width)) * w + ((i >> 1) % width);
    return Float32Array.from({ length: 2 * width * height }, (_, i) => ab.data[place(i)]);
  }
  return { about, gamut: makeGamut(new Float32Array(table), ...about.gamut), predict };
}

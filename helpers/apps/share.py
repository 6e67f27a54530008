"""A trained network as a page for every browser: a folder of static files that any web host serves."""

import argparse
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn
from torch.export import Dim, ExportedProgram

from helpers import workspace
from helpers.color import L_ab_to_raw_rgb
from helpers.runs import BOX, find_run
from helpers.workspace import PROJECT

PAGE = PROJECT / "helpers" / "page"
THEIRS = Path(onnxruntime.__file__).parent  # the library's terms are those of its Python package
LIBRARY = "onnxruntime-web@1.30.0"  # runs the network in the browser
NEEDED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SLOTS = 64  # cells that color hints may fill; each fills one to four
LIGHTS, HUES = 257, 721


def gamut_boundary() -> np.ndarray:
    """Return the largest chroma inside sRGB, in CIE units, by lightness and hue: (LIGHTS, HUES), float32."""
    L = torch.linspace(-1, 1, LIGHTS).view(-1, 1, 1, 1).expand(-1, 1, 1, HUES)
    hue = torch.linspace(-torch.pi, torch.pi, HUES).expand(LIGHTS, 1, 1, HUES)
    low, high = torch.zeros_like(L), torch.full_like(L, 1.5)
    for _ in range(20):  # bisection
        middle = (low + high) / 2
        raw = L_ab_to_raw_rgb(L, torch.cat([hue.cos(), hue.sin()], 1) * middle)
        inside = ((raw >= -1e-4) & (raw <= 1 + 1e-4)).all(1, keepdim=True)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return 128 * low[:, 0, 0].numpy()


def quick_padding() -> AbstractContextManager:
    """Let timm's convolutions of TensorFlow pad as they do for multiples of the stride.

    Their own formula, of any size, takes the exporter minutes.
    """
    return mock.patch("timm.layers.padding.get_same_padding", lambda x, kernel, stride, _: max(kernel - stride, 0))


def export(network: nn.Module) -> onnx.ModelProto:
    """Return a network as an ONNX graph, for photos of any size.

    Inputs: L (1, 1, H, W) and, if the network takes them, hints (1, 3, H, W); output: ab (1, 2, H, W); all in [-1, 1],
    float32, H and W multiples of 32. Raises ValueError that names the layer which ONNX cannot express.
    """
    names, inputs = ["L"], [torch.zeros(1, 1, 64, 96)]
    if attention := getattr(network, "hint_attention", None):
        names, inputs, attention.slots = ["L", "hints"], [*inputs, torch.zeros(1, 3, 64, 96)], SLOTS
    sizes = {2: 32 * Dim("rows", min=2, max=96), 3: 32 * Dim("columns", min=2, max=96)}
    options = {"dynamo": True, "opset_version": 18, "external_data": False, "verbose": False}
    program = None
    try:
        with quick_padding():
            program = torch.export.export(network.eval(), (*inputs,), dynamic_shapes=(sizes,) * len(inputs))
        return torch.onnx.export(program, input_names=names, output_names=["ab"], **options).model_proto
    except Exception as error:  # each step has errors of its own
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{failed_layer(network, error, program)} cannot be expressed in ONNX: {reason}") from error
    finally:
        if attention:
            attention.slots = 0


def failed_layer(network: nn.Module, error: Exception, program: ExportedProgram | None) -> str:
    """Return the layer at which an export failed: while its code ran, or while its operations were translated."""
    names = {id(layer): name for name, layer in network.named_modules()}
    running = [id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [names[each] for each in running if each in names]
    if program and (node := re.search(r"node %(\w+)", str(error))):
        stack = next(each for each in program.graph.nodes if each.name == node[1]).meta["nn_module_stack"]
        found = [name for name, _ in stack.values()]
    return f"the layer {found[-1]!r}" if found and found[-1] else f"the network {type(network).__name__}"


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights of an ONNX graph's convolutions in half precision; it still computes in fp32."""
    casts = []
    for weights in model.graph.initializer:
        if len(weights.dims) == 4:
            name, half = weights.name, numpy_helper.to_array(weights).astype(np.float16)
            weights.CopyFrom(numpy_helper.from_array(half, f"{name}, half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}, half"], [name], to=onnx.TensorProto.FLOAT))
    casts.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts)
    return model


def library() -> dict[str, bytes]:
    """Return the files of `LIBRARY` that the page needs; npm fetches them once. Raises RuntimeError if it cannot."""
    package = workspace.folder("page library") / f"{LIBRARY.replace('@', '-')}.tgz"
    if not package.exists():
        try:
            command = [shutil.which("npm") or "npm", "pack", "--prefer-offline", LIBRARY]
            subprocess.run(command, cwd=package.parent, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or error
            raise RuntimeError(f"{LIBRARY} is fetched by npm once. Install Node.js and connect ({why})") from error
    with tarfile.open(package) as files:
        return {name: files.extractfile(f"package/dist/{name}").read() for name in NEEDED}


def write_page(model: onnx.ModelProto, folder: Path, name: str, size: int) -> Path:
    """Write the page of an exported network to a folder, and return that; raises RuntimeError as `library` does.

    name: of the run, as the page shows it; size: pixels on the shorter side that the network was trained on.
    """
    files = library()
    large = {"model.onnx": in_half(model).SerializeToString(), NEEDED[-1]: files.pop(NEEDED[-1])}
    large["gamut.bin"] = (gamut_boundary() / 128).tobytes()
    packed = {f"{key}.gzip": gzip.compress(content, mtime=0) for key, content in large.items()}
    about = {"name": name, "size": size, "hints": len(model.graph.input) > 1, "gamut": [LIGHTS, HUES]}
    about["files"] = {key: len(content) for key, content in packed.items()}
    files |= packed | {path.name: path.read_bytes() for path in PAGE.iterdir()}
    terms = [PROJECT / "LICENSE", BOX / "README.md", *(THEIRS / file for file in ("LICENSE", "ThirdPartyNotices.txt"))]
    files["licenses.txt"] = b"\n\n".join(path.read_bytes() for path in terms if name == "box" or path.parent != BOX)
    files["model.json"] = json.dumps(about).encode()
    version = hashlib.sha256(b"".join(files.values())).hexdigest()[:16]  # browsers that kept another one load anew
    files["sw.js"] = files["sw.js"].replace(b"unpublished", version.encode())
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        (folder / key).write_bytes(content)
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Write the page of a run, by default the most recent one or the model in the box, and print how to see it."""
    parser = argparse.ArgumentParser(prog="python -m helpers.apps.share", description=__doc__)
    parser.add_argument("--run", default="", help="its name; without it the most recent one, or the model in the box")
    parser.add_argument("--to", type=Path, default=workspace.folder("page"), help="folder; without it, the workspace's")
    given = parser.parse_args(arguments)
    try:
        run = find_run(given.run, or_box=True)
        network = run.load(run.phases()[-1])
        folder = write_page(export(network), given.to, run.name, network.trained_size)
    except (NameError, OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))
    print(f"see {folder} with: python -m http.server --directory '{folder}'")


if __name__ == "__main__":
    main()

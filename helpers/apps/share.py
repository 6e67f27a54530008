"""A trained network as a page for every browser: a folder of static files that any web host serves."""

import argparse
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn
from torch.export import Dim

from helpers import workspace
from helpers.color import L_ab_to_raw_rgb
from helpers.runs import BOX, find_run

PAGE = workspace.PROJECT / "helpers" / "page"
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


def export(network: nn.Module) -> onnx.ModelProto:
    """Return a network as an ONNX graph, for photos of any size.

    Inputs: L (1, 1, H, W) and, if the network takes them, hints (1, 3, H, W); output: ab (1, 2, H, W); all in [-1, 1],
    float32, H and W multiples of 32. Raises ValueError that names the layer which ONNX cannot express.
    """
    names, inputs, within = ["L"], [torch.zeros(1, 1, 64, 96)], []
    if attention := getattr(network, "hint_attention", None):
        names, inputs, attention.slots = ["L", "hints"], [*inputs, torch.zeros(1, 3, 64, 96)], SLOTS
    sizes = {2: 32 * Dim("rows", min=2, max=96), 3: 32 * Dim("columns", min=2, max=96)}
    hooks = [layer.register_forward_pre_hook(lambda layer, _: within.append(layer)) for layer in network.modules()]
    hooks += [layer.register_forward_hook(lambda *_: within.remove(within[-1])) for layer in network.modules()]
    options = {"input_names": names, "output_names": ["ab"], "external_data": False, "verbose": False}
    try:
        # timm's formula for the padding of TensorFlow's convolutions takes the exporter minutes; this is its result
        with mock.patch("timm.layers.padding.get_same_padding", lambda x, kernel, stride, _: max(kernel - stride, 0)):
            program = torch.export.export(network.eval(), (*inputs,), dynamic_shapes=(sizes,) * len(inputs))
        return torch.onnx.export(program, dynamo=True, opset_version=18, **options).model_proto
    except Exception as error:  # each step has errors of its own
        layer = {module: name for name, module in network.named_modules()}[within[-1]] if within else ""
        if failed := re.search(r"node %(\w+)", str(error)):  # in the second step
            node = next(node for node in program.graph.nodes if node.name == failed[1])
            layer = [*node.meta["nn_module_stack"].values()][-1][0]
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(
            f"the layer {layer or type(network).__name__!r} has no counterpart in ONNX: {reason}"
        ) from error
    finally:
        [hook.remove() for hook in hooks]


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
    """Return the files of `LIBRARY` that the page needs; npm fetches them once. Raises RuntimeError without it."""
    package = workspace.folder("page library") / f"{LIBRARY.replace('@', '-')}.tgz"
    if not package.exists():
        npm = shutil.which("npm")
        made = npm and subprocess.run([npm, "pack", LIBRARY], cwd=package.parent, capture_output=True, text=True)
        if not package.exists():
            why = made.stderr.strip().splitlines()[-1] if made else "there is no program npm: install Node.js"
            raise RuntimeError(f"{LIBRARY} cannot be fetched, once and with a network ({why})")
    with tarfile.open(package) as files:
        return {name: files.extractfile(f"package/dist/{name}").read() for name in NEEDED}


def licenses(box: bool) -> str:
    """Return the terms of what a page holds: this project, the library and, if it is in use, the model in the box."""
    theirs = Path(onnxruntime.__file__).parent  # the same terms as the library in the browser
    paths = [workspace.PROJECT / "LICENSE", theirs / "LICENSE", theirs / "ThirdPartyNotices.txt"]
    paths[1:1] = [BOX / "README.md"] if box else []
    return "\n\n".join(path.read_text(encoding="utf-8") for path in paths)


def write_page(network: nn.Module, folder: Path, name: str) -> Path:
    """Write the page of a network, with its name, to a folder; return that. Raises as `export` and `library` do."""
    files = library()
    large = {"model.onnx": in_half(export(network)).SerializeToString(), NEEDED[-1]: files.pop(NEEDED[-1])}
    large["gamut.bin"] = (gamut_boundary() / 128).tobytes()
    packed = {f"{key}.gzip": gzip.compress(content, mtime=0) for key, content in large.items()}
    about = {"name": name, "size": getattr(network, "trained_size", 256), "gamut": [LIGHTS, HUES]}
    about |= {"hints": bool(getattr(network, "hint_attention", None)), "files": {k: len(v) for k, v in packed.items()}}
    files |= packed | {"model.json": json.dumps(about).encode(), "licenses.txt": licenses(name == "box").encode()}
    files |= {path.name: path.read_bytes() for path in PAGE.iterdir()}
    version = hashlib.sha256(b"".join(files.values())).hexdigest()[:16]  # a browser that knows another one loads anew
    files["sw.js"] = files["sw.js"].replace(b"unpublished", version.encode())
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        (folder / key).write_bytes(content)
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Write the page of a run, by default the most recent one or the box, and print how to see it."""
    parser = argparse.ArgumentParser(prog="python -m helpers.apps.share", description=__doc__)
    parser.add_argument("--run", default="", help="its name; without it the most recent one, or the model in the box")
    parser.add_argument("--to", type=Path, help="the folder; without it `page` in the workspace")
    given = parser.parse_args(arguments)
    try:
        run = find_run(given.run, or_box=True)
        network = run.load(run.phases()[-1])
        folder = write_page(network, given.to or workspace.folder("page"), run.name)
    except (OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(
        f"{folder}: {megabytes:.1f} MB. To see it: {sys.executable} -m http.server -d '{folder}', then localhost:8000"
    )


if __name__ == "__main__":
    main()

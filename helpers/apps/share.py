"""A trained network as a page for every browser: a folder of static files that any web host serves."""

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import onnx
import onnxruntime
from torch import nn

from helpers import workspace
from helpers.color import HUES, LIGHTS, gamut_boundary
from helpers.runs import BOX

PAGE = workspace.PROJECT / "helpers" / "page"
# the library has the terms of its Python package, and no file of them
TERMS = workspace.PROJECT / "LICENSE", *map(Path(onnxruntime.__file__).with_name, ("LICENSE", "ThirdPartyNotices.txt"))
LIBRARY = "onnxruntime-web@1.30.0"  # runs the network in the browser
CODE, WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs"), "ort-wasm-simd-threaded.wasm"


@contextmanager
def exporting(network: nn.Module) -> Iterator[None]:
    """Around an export, raise ValueError that names the layer which ONNX cannot express.

    Within, timm's convolutions of TensorFlow pad as they do for multiples of the stride: their own formula, for any
    size, takes the exporter minutes.
    """
    try:
        with mock.patch("timm.layers.padding.get_same_padding", lambda x, kernel, stride, _: max(kernel - stride, 0)):
            yield
    except Exception as error:  # each step of the exporter has errors of its own
        inner, known = error.__cause__ or error, {id(layer): name for name, layer in network.named_modules()}
        names = [type(network).__name__]
        for frame, _ in traceback.walk_tb(inner.__traceback__):  # where a layer runs, or an operation is translated
            stack = getattr(frame.f_locals.get("node"), "meta", {}).get("nn_module_stack", {})
            names += [known.get(id(frame.f_locals.get("self"))), *(name for name, _ in stack.values())]
        layer = [name for name in names if name][-1]
        raise ValueError(f"the layer {layer!r} cannot be expressed in ONNX: {str(inner).splitlines()[0]}") from error


def library() -> dict[str, bytes]:
    """Return the files of `LIBRARY` that the page needs; npm fetches them once. Raises RuntimeError if it cannot."""
    package = workspace.folder("page library") / f"{LIBRARY.replace('@', '-')}.tgz"
    if not package.exists():
        try:
            command = [shutil.which("npm") or "npm", "pack", "--prefer-offline", LIBRARY]
            subprocess.run(command, cwd=package.parent, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or error
            raise RuntimeError(f"{LIBRARY} is fetched by npm once. Install Node.js and connect ({why})") from None
    with tarfile.open(package) as files:
        return {name: files.extractfile(f"package/dist/{name}").read() for name in (*CODE, WASM)}


def write_page(model: onnx.ModelProto, folder: Path, name: str, size: int) -> None:
    """Write the page of an exported network to a folder; raises RuntimeError as `library` does.

    model: of notebook 11, inputs L and maybe hints; name: of the run, as the page shows it; size: pixels on the shorter
    side that the network was trained on.
    """
    files = library() | {path.name: path.read_bytes() for path in PAGE.glob("[!.]*")}
    large = {"model.onnx": model.SerializeToString(), WASM: files.pop(WASM), "gamut.bin": gamut_boundary().tobytes()}
    packed = {f"{key}.gzip": gzip.compress(content, mtime=0) for key, content in large.items()}
    about = {"name": name, "size": size, "hints": len(model.graph.input) > 1, "gamut": [LIGHTS, HUES]}
    about["files"] = {key: len(content) for key, content in packed.items()}
    files |= packed | {"model.json": json.dumps(about).encode()}
    terms = [*TERMS, *[BOX / "README.md"] * (name == "box")]
    files["licenses.txt"] = b"\n\n".join(path.read_bytes() for path in terms)
    version = hashlib.sha256(b"".join(files.values())).hexdigest()[:16]  # browsers that kept another one load anew
    files["sw.js"] = files["sw.js"].replace(b"unpublished", version.encode())
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        (folder / key).write_bytes(content)

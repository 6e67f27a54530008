"""What all tests share: an empty workspace, no settings from outside, fixed seeds, and a few things slow to make."""

import os
import sys
from pathlib import Path
from urllib.error import URLError

import matplotlib
import numpy as np
import pytest
import torch
from skimage.data import coffee

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]  # the helpers, and the modules that tests of several folders share
matplotlib.use("Agg")
torch.set_num_threads(1)  # networks this small gain nothing from more
os.environ["OMP_NUM_THREADS"] = "1"  # the same for the programs that tests start

from helpers import workspace  # noqa: E402
from helpers.config import Config  # noqa: E402
from helpers.data import dataset  # noqa: E402
from helpers.models.generator import Generator  # noqa: E402
from helpers.models.likely_colors import count_colors  # noqa: E402
from helpers.runs import Run  # noqa: E402
from helpers.training.losses import Perceptual  # noqa: E402


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    """Give every test an empty workspace, the smoke profile and the same seed."""
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("COLORIZE_PROFILE", "smoke")
    for name in ("COLORIZE_PHOTOS", "COLORIZE_SHOW"):
        monkeypatch.delenv(name, raising=False)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def cfg():
    """The smoke profile in fp32, whatever the machine."""
    return Config.from_profile(precision="fp32")


@pytest.fixture
def accelerator():
    return workspace.make_accelerator("fp32")


@pytest.fixture
def kept(cfg):
    """Return a function that keeps a network as the phase of a run does; it returns the network's file."""

    def _kept(name, phase, network):
        run = Run(name)
        run.path.mkdir(parents=True, exist_ok=True)
        run.save(phase, network, cfg)
        return run.file(phase)

    return _kept


@pytest.fixture(scope="session")
def sample_photos(tmp_path_factory):
    """The prepared photos of the smoke profile, made once; tests only read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZE_WORKSPACE", str(tmp_path_factory.mktemp("photos")))
        patch.setenv("COLORIZE_PROFILE", "smoke")
        patch.delenv("COLORIZE_PHOTOS", raising=False)
        return dataset.prepare(Config.from_profile())


@pytest.fixture(scope="session")
def perceptual():
    """LPIPS on an untrained backbone: it needs no network."""
    return Perceptual(None)


@pytest.fixture(scope="session")
def loud_generator():
    """A generator whose colors are strong and random, as those of a stranger's weights may be."""
    torch.manual_seed(1)
    generator = Generator(weights=None, res_blocks=0)
    with torch.no_grad():
        generator.head.weight.mul_(100)
    return generator.eval()


@pytest.fixture(scope="session")
def hinted_generator():
    """A generator whose hints matter, though it was never trained."""
    torch.manual_seed(0)
    generator = Generator(weights=None, res_blocks=0, hints=True)
    with torch.no_grad():
        generator.head.weight.mul_(5)
        generator.palette.copy_(count_colors(generator, torch.from_numpy(coffee()).permute(2, 0, 1)[None]))
    generator.trained_size = 64
    return generator.eval()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache for downloaded weights, and no network to fill it from."""

    def refuse(*args, **kwargs):
        raise URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)

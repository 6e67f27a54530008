"""The profiles, what is refused and with which words, and what the environment may name."""

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from helpers.config import PROFILES, Config


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_found_by_its_name(monkeypatch, profile):
    monkeypatch.setenv("COLORIZE_PROFILE", profile)
    cfg = Config.from_profile()
    assert cfg.profile == cfg.run == profile
    assert {name: getattr(cfg, name) for name in PROFILES[profile]} == PROFILES[profile]


def test_paper_is_the_reports_recipe():
    wanted = {"n_photos": 1500, "size": 255, "batch_size": 8, "encoder": "resnet18", "res_blocks": 9, "clip_norm": 1}
    wanted |= {"color_loss": "L1", "lambda_l1": 50, "lambda_perc": 10, "warmup_lr": 1e-4, "adversarial_lr": 1e-4}
    wanted |= {"n_critic": 1, "discriminator_lr": None, "schedule": "constant", "ema_decay": None, "keep": "best"}
    wanted |= {"warmup_epochs": 20, "adversarial_epochs": 120, "flip": 0.5, "rotation": 15, "crop": 0.8, "jitter": 0.3}
    wanted |= {"encoder_weights": "imagenet", "lpips_weights": "imagenet"}
    assert vars(Config()) | wanted == vars(Config())


def test_without_a_named_profile_the_machine_decides_without_starting_cuda(monkeypatch):
    """Processes that are forked later could not use CUDA; NVML only asks the driver."""
    monkeypatch.delenv("COLORIZE_PROFILE")
    for gpu, profile in ((True, "paper"), (False, "laptop")):
        by_nvml = {"1": gpu}
        ask = lambda by_nvml=by_nvml: by_nvml[os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]]  # noqa: E731
        monkeypatch.setattr("torch.cuda.is_available", ask)
        assert Config.from_profile().profile == profile


def test_an_unknown_profile_or_field_is_refused_by_its_name(monkeypatch):
    with pytest.raises(TypeError, match="lamda_l1"):
        Config.from_profile(lamda_l1=3)
    with pytest.raises(FrozenInstanceError):
        Config().size = 64
    monkeypatch.setenv("COLORIZE_PROFILE", "papre")
    with pytest.raises(ValueError, match=r"papre.*paper.*laptop.*smoke"):
        Config.from_profile()


def test_folders_of_photos_can_be_named_from_outside(monkeypatch, tmp_path):
    monkeypatch.setenv("COLORIZE_PHOTOS", str(tmp_path))
    monkeypatch.setenv("COLORIZE_SHOW", "/show")
    cfg = Config.from_profile()
    assert (cfg.data_source, cfg.photos_folder, cfg.show_folder) == ("folder", str(tmp_path), "/show")
    assert cfg.replace(photos_folder=Path("/mine")).photos_folder == "/mine"


IMPOSSIBLE = [("size", 8, "from 32 to 4096"), ("lambda_perc", float("nan"), "from 0 to"), ("ema_decay", 1.0, "to 0.99")]
IMPOSSIBLE += [("schedule", "linear", "constant, cosine"), ("encoder_weights", "imagenett", "imagenet, auto, None")]
IMPOSSIBLE += [("run", "a/b", "letters"), ("run", "box", "name yours"), ("patch_size", 66, "multiple of 4")]
OF_NO_TYPE = [("batch_size", 2.5, "int"), ("batch_size", True, "int"), ("ema_decay", "0.9", "float or None")]
OF_NO_TYPE += [("photos_folder", 3, "str or PathLike")]


@pytest.mark.parametrize(("field", "value", "allowed"), IMPOSSIBLE + OF_NO_TYPE)
def test_an_impossible_value_is_refused_with_what_is_allowed(cfg, field, value, allowed):
    kind = TypeError if (field, value, allowed) in OF_NO_TYPE else ValueError
    with pytest.raises(kind, match=f"^{field}=.*{allowed}"):
        cfg.replace(**{field: value})

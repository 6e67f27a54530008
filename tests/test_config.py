"""The profiles, what is refused and with which words, and what the environment may name."""

import dataclasses
from pathlib import Path

import pytest

from helpers.config import PROFILES, Config


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_found_by_its_name(monkeypatch, profile):
    monkeypatch.setenv("COLORIZE_PROFILE", profile)
    cfg = Config.from_profile()
    assert cfg.profile == cfg.run == profile
    assert {name: getattr(cfg, name) for name in PROFILES[profile]} == PROFILES[profile]


def test_paper_is_the_reports_recipe(monkeypatch):
    monkeypatch.setenv("COLORIZE_PROFILE", "paper")
    cfg = Config.from_profile()
    assert (cfg.n_photos, cfg.size, cfg.batch_size, cfg.encoder, cfg.res_blocks) == (1500, 255, 8, "resnet18", 9)
    assert (cfg.color_loss, cfg.lambda_l1, cfg.lambda_perc) == ("L1", 50, 10)
    assert (cfg.warmup_lr, cfg.adversarial_lr, cfg.beta1, cfg.beta2, cfg.clip_norm) == (1e-4, 1e-4, 0.5, 0.999, 1)
    assert cfg.n_critic == 1 and cfg.discriminator_lr is None and cfg.schedule == "constant" and not cfg.ema_decay
    assert cfg.warmup_epochs == 20 and 100 <= cfg.adversarial_epochs <= 120 and cfg.keep == "best"
    assert (cfg.flip, cfg.rotation, cfg.crop, cfg.jitter) == (0.5, 15, 0.8, 0.3)
    assert cfg.encoder_weights == cfg.lpips_weights == "imagenet"


def test_smoke_needs_no_network(cfg):
    assert cfg.data_source == "sample" and cfg.encoder_weights is None and cfg.lpips_weights is None


@pytest.mark.parametrize(("gpu", "profile"), [(True, "paper"), (False, "laptop")])
def test_without_a_named_profile_the_machine_decides(monkeypatch, gpu, profile):
    monkeypatch.delenv("COLORIZE_PROFILE")
    monkeypatch.setattr("helpers.config.is_cuda_available", lambda: gpu)
    assert Config.from_profile().profile == profile


def test_an_unknown_profile_or_field_is_refused_by_its_name(monkeypatch):
    with pytest.raises(TypeError, match="lamda_l1"):
        Config.from_profile(lamda_l1=3)
    monkeypatch.setenv("COLORIZE_PROFILE", "papre")
    with pytest.raises(ValueError, match=r"papre.*paper.*laptop.*smoke"):
        Config.from_profile()


def test_a_configuration_is_changed_by_copies_alone(cfg):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.size = 128
    assert cfg.replace(size=128).size == 128 and cfg.size == Config.from_profile().size == 64


def test_folders_of_photos_can_be_named_from_outside(monkeypatch, tmp_path):
    monkeypatch.setenv("COLORIZE_PHOTOS", str(tmp_path))
    monkeypatch.setenv("COLORIZE_SHOW", "/show")
    cfg = Config.from_profile()
    assert (cfg.data_source, cfg.photos_folder, cfg.show_folder) == ("folder", str(tmp_path), "/show")
    assert Config.from_profile(photos_folder=Path("/mine")).photos_folder == "/mine"


@pytest.mark.parametrize(
    ("field", "value", "kind", "allowed"),
    [
        ("size", 8, ValueError, "from 32 to 4096"),
        ("lambda_perc", float("nan"), ValueError, "from 0 to"),
        ("ema_decay", 1.0, ValueError, "to 0.999999"),
        ("schedule", "linear", ValueError, "constant, cosine"),
        ("encoder_weights", "imagenett", ValueError, "imagenet, auto, None"),
        ("patch_size", 66, ValueError, "multiple of 4"),
        ("run", "a/b", ValueError, "letters"),
        ("run", "..", ValueError, "letters"),
        ("run", "box", ValueError, "name yours"),
        ("batch_size", 2.5, TypeError, "int"),
        ("seed", [1], TypeError, "int"),
        ("batch_size", True, TypeError, "int"),
        ("compile", 1, TypeError, "bool"),
        ("ema_decay", "0.9", TypeError, "float or None"),
        ("photos_folder", 3, TypeError, "str or PathLike"),
    ],
)
def test_an_impossible_value_is_refused_with_what_is_allowed(cfg, field, value, kind, allowed):
    for make in (Config.from_profile, cfg.replace):
        with pytest.raises(kind, match=f"^{field}=.*{allowed}"):
            make(**{field: value})

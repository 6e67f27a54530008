"""The profiles, what is refused and with which words, and what the environment may name."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.config import PROFILES, Config


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_can_be_had_by_its_name(monkeypatch, profile):
    monkeypatch.setenv("COLORIZE_PROFILE", profile)
    cfg = Config.from_profile()
    assert cfg.profile == profile and cfg.run == profile
    assert {name: getattr(cfg, name) for name in PROFILES[profile]} == PROFILES[profile]


def test_paper_is_the_reports_recipe(monkeypatch):
    monkeypatch.setenv("COLORIZE_PROFILE", "paper")
    cfg = Config.from_profile()
    assert (cfg.n_photos, cfg.size, cfg.batch_size, cfg.encoder, cfg.res_blocks) == (1500, 255, 8, "resnet18", 9)
    assert (cfg.color_loss, cfg.lambda_l1, cfg.lambda_perc) == ("L1", 50, 10)
    assert (cfg.warmup_lr, cfg.adversarial_lr, cfg.beta1, cfg.beta2, cfg.clip_norm) == (1e-4, 1e-4, 0.5, 0.999, 1)
    assert cfg.n_critic == 1 and cfg.discriminator_lr is None
    assert cfg.warmup_epochs == 20 and 100 <= cfg.adversarial_epochs <= 120
    assert (cfg.flip, cfg.rotation, cfg.crop, cfg.jitter) == (0.5, 15, 0.8, 0.3)
    assert cfg.encoder_weights == cfg.lpips_weights == "IMAGENET1K_V1"


def test_smoke_needs_no_network(cfg):
    assert cfg.data_source == "sample" and cfg.encoder_weights is None and cfg.lpips_weights is None


@pytest.mark.parametrize(("gpu", "profile"), [(True, "paper"), (False, "laptop")])
def test_without_a_named_profile_the_machine_decides(monkeypatch, gpu, profile):
    monkeypatch.delenv("COLORIZE_PROFILE")
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert Config.from_profile().profile == profile


def test_unknown_profile_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("COLORIZE_PROFILE", "papre")
    with pytest.raises(ValueError, match=r"papre.*paper.*laptop.*smoke"):
        Config.from_profile()


def test_unknown_field_is_refused_by_its_name():
    with pytest.raises(ValueError, match="bach_size"):
        Config.from_profile(bach_size=4)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("data_source", "kagle", ["kaggle", "folder", "sample"]),
        ("encoder", "resnet50", ["resnet18", "resnet34"]),
        ("schedule", "linear", ["constant", "cosine"]),
        ("precision", "fp8", ["auto", "fp32", "bf16", "fp16"]),
    ],
)
def test_wrong_choice_is_refused_with_the_allowed_ones(cfg, field, value, allowed):
    for make in (Config.from_profile, cfg.replace):
        with pytest.raises(ValueError, match=field) as caught:
            make(**{field: value})
        assert all(choice in str(caught.value) for choice in [value, *allowed])


def test_configuration_cannot_be_changed_by_accident(cfg):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.size = 128
    assert cfg.replace(size=128).size == 128 and cfg.size == 64


def test_changes_hold_for_one_call_and_nothing_is_written(tmp_path):
    assert Config.from_profile(size=96).size == 96
    assert Config.from_profile().size == 64
    assert list(tmp_path.rglob("*")) == []


def test_a_folder_of_photos_can_be_named_from_outside(monkeypatch, tmp_path):
    monkeypatch.setenv("COLORIZE_PHOTOS", str(tmp_path))
    cfg = Config.from_profile()
    assert cfg.data_source == "folder" and cfg.photos_folder == str(tmp_path)


IMPOSSIBLE = [
    ("size", 8, "from 32 to 4096"),
    ("lambda_l1", -1, "from 0 to"),
    ("lambda_perc", float("nan"), "from 0 to"),
    ("crop", 1.5, "to 1"),
    ("flip", 50, "to 1"),
    ("ema_decay", 1.0, "to 0.999999"),
    ("n_photos", 5, "from 10"),
    ("warmup_epochs", 0, "from 1"),
    ("batch_size", 0, "from 1"),
    ("n_critic", 0, "from 1"),
    ("discriminator_lr", 0.0, "to 1"),
    ("run", "a/b", "letters"),
    ("run", "..", "letters"),
]
WRONG_TYPE = [
    ("batch_size", 2.5, "int"),
    ("batch_size", "8", "int"),
    ("batch_size", True, "int"),
    ("compile", 1, "bool"),
    ("ema_decay", "0.9", "float or None"),
    ("encoder_weights", 3, "str or None"),
    ("warmup_lr", None, "float"),
    ("photos_folder", 3, "str or PathLike"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_with_what_is_allowed(cfg, field, value, allowed):
    with pytest.raises(ValueError, match=f"^{field}=") as caught:
        cfg.replace(**{field: value})
    assert repr(value) in str(caught.value) and allowed in str(caught.value)


@pytest.mark.parametrize(("field", "value", "allowed"), WRONG_TYPE)
def test_a_wrong_type_is_refused_with_the_right_one(cfg, field, value, allowed):
    with pytest.raises(TypeError, match=f"^{field}=.*must be {allowed}$"):
        cfg.replace(**{field: value})


def test_a_misspelled_field_is_refused_with_the_likely_one():
    with pytest.raises(ValueError, match="lamda_l1=3; did you mean lambda_l1"):
        Config.from_profile(lamda_l1=3)


@given(
    st.sampled_from([field.name for field in dataclasses.fields(Config)]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers())),
)
def test_any_value_is_either_taken_or_refused_by_its_field(field, value):
    try:
        taken = Config(**{field: value})
    except (TypeError, ValueError) as error:
        assert str(error).startswith(f"{field}=")
    else:
        assert Config(**{field: getattr(taken, field)}) == taken

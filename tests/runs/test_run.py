"""Runs on disk: what is saved is what is loaded, damaged files are named, nothing earlier is lost."""

import os
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tiny import TinyGenerator

from helpers import runs as weights
from helpers.data.dataset import PhotoSet
from helpers.models.generator import Generator
from helpers.runs import Run, arguments_of, comparable_runs, find_run, load_network, runs, warmup_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(1)
    return Generator(weights=None, res_blocks=1).eval()


@pytest.fixture
def saved(generator, cfg, sample_photos):
    """A run whose warmup is on disk."""
    run = Run("mine")
    run.begin("warmup", cfg, sample_photos)
    run.save("warmup", generator, cfg)
    return run


def write_half(state, path, metadata=None):
    """A disk that is full before the file is whole."""
    path.write_bytes(b"half a fi")
    raise OSError("no space left on device")


def contents(folder, name):
    """What all files of that name hold, anywhere below a folder."""
    return {path.read_text() for path in folder.rglob(name)}


@torch.no_grad()
def test_a_loaded_generator_does_what_the_saved_one_did(saved, generator):
    L = torch.rand(2, 1, 40, 50) * 2 - 1
    loaded = saved.load("warmup")
    assert not loaded.training
    assert torch.equal(loaded(L), generator(L))


def test_the_architecture_travels_with_the_weights(tmp_path, cfg, sample_photos):
    run = Run("mine")
    run.begin("adversarial", cfg, sample_photos)
    run.save("adversarial", Generator("resnet34", None, res_blocks=2), cfg)
    loaded = load_network(run.file("adversarial"))
    wanted = {"encoder": "resnet34", "weights": None, "res_blocks": 2, "bottleneck": "residual", "attention_at": 0}
    assert arguments_of(loaded) == wanted | {"positions": "conv", "hints": False}
    assert len(loaded.bottleneck) == 2 and len(loaded.encoder.layer3) == 6


def test_loading_needs_no_network(saved, offline):
    assert isinstance(saved.load("warmup"), Generator)


@pytest.mark.parametrize(("phase", "notebook"), [("warmup", "03_warmup"), ("adversarial", "04_adversarial")])
def test_a_missing_file_names_itself_and_the_notebook_that_makes_it(phase, notebook):
    with pytest.raises(FileNotFoundError, match=notebook) as caught:
        Run("mine").load(phase)
    assert f"{phase}.safetensors" in str(caught.value)


def test_damaged_files_are_named(saved, tmp_path):
    whole = saved.file("warmup").read_bytes()
    damaged = {"text": b"not weights at all", "empty": b"", "cut": whole[: len(whole) // 2], "head": whole[:100]}
    for name, content in damaged.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            load_network(path)


def test_weights_that_changed_on_the_disk_are_named_and_a_copy_without_checksum_is_taken(cfg, loud_generator, tmp_path):
    path = tmp_path / "mine.safetensors"
    weights.save_network(path, loud_generator, cfg)
    copy = shutil.copy(path, tmp_path / "copy.safetensors")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="mine.safetensors is damaged"):
        weights.load_network(path)
    assert weights.load_network(copy).trained_size == cfg.size


@pytest.mark.parametrize(
    ("state", "metadata"),
    [
        ({"weight": torch.zeros(3)}, None),
        ({"weight": torch.zeros(3)}, {"class": "Generator", "arguments": '{"res_blocks": 1}'}),
        ({"weight": torch.zeros(3)}, {"class": "Generator", "arguments": '{"layers": 4}'}),
        ({"weight": torch.zeros(3)}, {"class": "Generator", "arguments": "a UNet"}),
        ({"weight": torch.zeros(3)}, {"class": "Generator", "arguments": "[1, 2]"}),
        ({"weight": torch.zeros(3)}, {"class": "Generator", "arguments": '{"encoder": "no such net"}'}),
    ],
    ids=["no metadata", "other weights", "other architecture", "no json", "json of a list", "unknown encoder"],
)
def test_safetensors_of_something_else_are_named(tmp_path, state, metadata):
    path = tmp_path / "other.safetensors"
    save_file(state, path, metadata)
    with pytest.raises(ValueError, match="other.safetensors"):
        load_network(path)


def test_weights_of_another_depth_are_named(generator, tmp_path):
    path = tmp_path / "deep.safetensors"
    save_file(generator.state_dict(), path, {"class": "Generator", "arguments": '{"res_blocks": 3}'})
    with pytest.raises(ValueError, match="deep.safetensors"):
        load_network(path)


def test_running_a_phase_again_archives_the_old_files_and_loses_none(cfg, sample_photos):
    run = Run("mine")
    for attempt in ("first", "second", "third"):  # also within one second
        run.begin("warmup", cfg, sample_photos)
        assert run.phases() == [] and len(run.table("warmup")) == 0
        run.file("warmup").write_text(attempt)
        run.log("warmup", pd.DataFrame({"what": [attempt]}), pd.DataFrame({"what": [attempt]}))
    assert contents(run.path, "warmup.safetensors") == {"first", "second", "third"}
    assert len(contents(run.path, "warmup_history.csv")) == len(contents(run.path, "warmup_steps.csv")) == 3
    assert run.file("warmup").read_text() == "third"


def test_running_one_phase_again_leaves_the_other_alone(saved, cfg, sample_photos):
    before = saved.file("warmup").read_bytes()
    saved.begin("adversarial", cfg, sample_photos)
    saved.begin("adversarial", cfg, sample_photos)
    assert saved.file("warmup").read_bytes() == before


def test_what_was_archived_is_said(saved, cfg, sample_photos, capsys):
    saved.begin("warmup", cfg, sample_photos)
    assert "an earlier warmup of run 'mine' was archived in" in capsys.readouterr().out


def test_the_adversarial_phase_starts_from_the_warmup_of_its_own_run(saved, cfg, generator, sample_photos):
    other = Run(cfg.profile)
    other.begin("warmup", cfg, sample_photos)
    other.save("warmup", generator, cfg)
    assert warmup_of(cfg.replace(run="mine")).name == "mine"


def test_without_a_warmup_of_its_own_a_run_starts_from_the_profiles(cfg, generator, sample_photos):
    run = Run(cfg.profile)
    run.begin("warmup", cfg, sample_photos)
    run.save("warmup", generator, cfg)
    assert warmup_of(cfg.replace(run="experiment")).name == cfg.profile


def test_without_any_warmup_the_notebook_is_named(cfg):
    with pytest.raises(FileNotFoundError, match="03_warmup_training"):
        warmup_of(cfg.replace(run="experiment"))


def test_a_failed_write_leaves_the_old_file_whole(saved, generator, cfg, monkeypatch):
    before = saved.file("warmup").read_bytes()
    monkeypatch.setattr(weights, "save_file", write_half)
    with pytest.raises(OSError, match="no space left"):
        saved.save("warmup", generator, cfg)
    assert saved.file("warmup").read_bytes() == before


def test_a_failed_first_write_leaves_no_file_that_looks_whole(generator, cfg, sample_photos, monkeypatch):
    run = Run("mine")
    run.begin("warmup", cfg, sample_photos)
    monkeypatch.setattr(weights, "save_file", write_half)
    with pytest.raises(OSError, match="no space left"):
        run.save("warmup", generator, cfg)
    assert run.phases() == []


def test_history_and_settings_come_back_as_they_were_written(saved, cfg):
    history = pd.DataFrame({"epoch": [1, 2], "val L1": [0.1, 0.09]})
    saved.log("warmup", history, history)
    pd.testing.assert_frame_equal(saved.table("warmup"), history)
    pd.testing.assert_frame_equal(saved.table("warmup", "steps"), history)
    assert saved.settings("warmup")["size"] == cfg.size
    assert saved.table("adversarial").empty


def test_only_runs_with_a_generator_are_listed(saved, cfg, sample_photos):
    Run("begun").begin("warmup", cfg, sample_photos)
    assert [run.name for run in runs()] == ["mine"]


def made(name, generator, cfg, photos, start=None):
    """A run with a finished phase on disk: a warmup, or the adversarial phase that started from one."""
    run, phase = Run(name), "adversarial" if start else "warmup"
    run.begin(phase, cfg, photos, start)
    run.save(phase, generator, cfg)
    return run


def test_a_run_is_found_by_its_name_and_else_the_last_one(saved, generator, cfg, sample_photos):
    late = made("late", generator, cfg, sample_photos)
    os.utime(saved.file("warmup"), (1, 1))
    assert find_run("mine").name == "mine" and find_run("").name == find_run("laptop").name == late.name
    with pytest.raises(FileNotFoundError, match="no run 'lamda 100'; there are: mine, late"):
        find_run("lamda 100")
    assert [run.name for run in runs()] == ["mine", "late"]


def test_without_any_run_the_notebook_is_named():
    with pytest.raises(FileNotFoundError, match="03_warmup_training"):
        find_run("mine")


def test_what_must_agree_with_a_run_is_taken_from_it_and_printed(saved, cfg, capsys):
    other = cfg.replace(size=96, res_blocks=4, lambda_l1=7, run="next")
    agreed = saved.agree(other)
    assert (agreed.size, agreed.res_blocks, agreed.lambda_l1, agreed.run) == (cfg.size, cfg.res_blocks, 7, "next")
    assert f"size={cfg.size} (here 96)" in capsys.readouterr().out


def test_without_hints_the_colors_are_those_of_the_phase_before(generator, cfg, sample_photos):
    run = made("mine", generator, cfg, sample_photos)
    run.save("hints", generator, cfg)
    found, phase = run.colors()
    assert (found.name, phase) == ("mine", "warmup")
    alone = Run("from the box")  # notebook 07 alone, twice
    alone.begin("hints", cfg, sample_photos, start="box")
    alone.save("hints", generator, cfg)
    found, phase = alone.colors()
    assert (found.name, phase) == ("box", "warmup")
    run.begin("hints", cfg, sample_photos)
    run.save("hints", generator, cfg)
    run.file("warmup").unlink()
    found, phase = run.colors()
    assert (found.name, phase) == ("mine", "hints")


def test_a_folder_of_photos_may_have_moved(generator, cfg, sample_photos):
    then = cfg.replace(data_source="folder", photos_folder="/old")
    run = made("mine", generator, then, sample_photos)
    assert run.agree(then.replace(photos_folder="/new")).photos_folder == "/new"
    assert run.agree(cfg).photos_folder == "/old"


def test_runs_are_compared_unless_they_saw_the_test_photos_or_nobody_knows_their_network(
    saved, generator, cfg, sample_photos, capsys
):
    swapped = PhotoSet(sample_photos.folder, sample_photos.manifest.copy(), sample_photos.dropped)
    swapped.manifest["split"] = swapped.manifest["split"].replace({"train": "test", "test": "train"})
    made("cheat", generator, cfg, swapped)
    made("heir", generator, cfg, sample_photos, start="cheat")
    made("other", generator, cfg.replace(data_source="folder", photos_folder="/old"), sample_photos)
    made("own", TinyGenerator(), cfg, sample_photos)
    assert [run.name for run in comparable_runs(cfg, sample_photos)] == ["mine"]
    told = capsys.readouterr().out
    tested = (sample_photos.manifest["split"] == "test").sum()
    for name in ("cheat", "heir"):  # also what its warmup was trained on
        assert f"left out: '{name}' trained on {tested} of these test photos" in told
    assert "left out: 'other' learned from other photos (folder)" in told
    assert "left out: 'own': " in told and "class TinyGenerator, which is not known here: run its cell first" in told

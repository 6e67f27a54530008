"""Runs on disk: what is saved is what is loaded, what cannot be used is named, nothing earlier is lost."""

import json
import os
import pickle
import sys

import pandas as pd
import pytest
import torch
from malicious import MaliciousPickle
from safetensors.torch import save_file
from torch import nn

from helpers import runs as runs_module
from helpers.models.generator import Generator
from helpers.models.srresnet import SRResNet
from helpers.runs import BOX, Run, comparable_runs, find_run, load_network, runs, save_network, warmup_of

SMALL = {"encoder": "test_efficientnet", "weights": None, "res_blocks": 1}


def generator(**arguments):
    return Generator(**SMALL | arguments).eval()


class Plain(nn.Module):
    """A network as a student writes it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))

    def forward(self, L):
        return self.layers(L)


class Changed(Generator):
    """The series' own with a part exchanged in a subclass."""

    def __init__(self, **arguments):
        super().__init__(**SMALL | arguments)
        self.bottleneck = nn.Identity()


class Tied(nn.Module):
    """Two layers that share their weights."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.other.weight = self.one.weight

    def forward(self, L):
        return self.other(self.one(L).relu()).repeat(1, 2, 1, 1)


@pytest.fixture
def saved(cfg, sample_photos):
    """Return a function that makes a run with a phase on disk."""

    def _saved(name="mine", phase="warmup", network=None, start="", photos=sample_photos, **changes):
        run, changed = Run(name), cfg.replace(**changes)
        run.begin(phase, changed, photos, start)
        run.save(phase, network or generator(), changed)
        return run

    return _saved


@torch.no_grad()
def same(one, other):
    L = torch.rand(1, 1, 40, 50) * 2 - 1
    return torch.equal(one.eval()(L), other.eval()(L))


# networks in files


NETWORKS = [generator, lambda: generator(encoder="resnetblur18", res_blocks=0), lambda: SRResNet(1, 8)]
NETWORKS += [lambda: generator(bottleneck="identity", hints=True)]


@pytest.mark.parametrize("make", NETWORKS)
def test_a_loaded_network_does_what_the_saved_one_did(make, cfg, tmp_path, offline):
    network, again = make(), make()
    save_network(tmp_path / "network", network, cfg)
    state = torch.get_rng_state()
    loaded = load_network(tmp_path / "network")
    assert torch.equal(state, torch.get_rng_state())
    assert not loaded.training and loaded.trained_size == cfg.size
    assert type(loaded) is type(network) and str(loaded) == str(network) and same(loaded, network)
    assert load_network(tmp_path / "network", into=again) is again and same(again, network)


def test_half_precision_is_half_as_large_and_nearly_the_same(cfg, tmp_path):
    network, L, sizes = generator(), torch.rand(1, 1, 40, 50), []
    for half in (True, False):
        save_network(tmp_path / "network", network, cfg, half=half)
        loaded = load_network(tmp_path / "network")
        assert {weights.dtype for weights in loaded.parameters()} == {torch.float32}
        assert (loaded(L) - network(L)).abs().max() < 1e-3
        sizes.append((tmp_path / "network").stat().st_size)
    assert sizes[0] < 0.55 * sizes[1]


WRONG = ('{"layers": 4}', '{"res_blocks": 1000000}', "[1, 2]", "a UNet", '{"res_blocks": 1}')
STRANGERS = [("Generator", arguments, 64) for arguments in (*WRONG, '{"encoder": "hf-hub:stranger/network"}')]
STRANGERS += [("SRResNet", '{"blocks": 1, "channels": 8}', 10_000_000), ("another program", None, None)]


@pytest.mark.parametrize("stranger", [*STRANGERS, "cut", "empty", "malicious"])
def test_a_strangers_or_damaged_file_is_refused_by_its_name(tmp_path, stranger, offline):
    path, weights = tmp_path / "stranger.safetensors", SRResNet(1, 8).state_dict()
    if isinstance(stranger, tuple):
        name, arguments, size = stranger
        metadata = {"class": name, "arguments": arguments, "config": json.dumps({"size": size})} if arguments else None
        save_file(weights, path, metadata)
    else:
        save_file(weights, path)
        malicious = pickle.dumps(MaliciousPickle(tmp_path / "trace"))
        path.write_bytes({"cut": path.read_bytes()[:1000], "empty": b"", "malicious": malicious}[stranger])
    with pytest.raises(ValueError, match=r"stranger\.safetensors|size=10000000"):
        load_network(path)
    assert not (tmp_path / "trace").exists()


def test_loading_downloads_nothing(cfg, tmp_path, monkeypatch):
    """Neither into the series' own class nor into a subclass of a notebook."""
    for kind in (Generator, type("Mine", (Generator,), {"__module__": "__main__"})):
        network = kind(**SMALL)
        network._hub_mixin_config["weights"] = "imagenet"  # as if it had been built with them
        save_network(tmp_path / kind.__name__, network, cfg)
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
    monkeypatch.setattr("helpers.models.generator.imagenet_weights", lambda *args: pytest.fail("a download"))
    assert [type(load_network(tmp_path / name)).__name__ for name in ("Generator", "Mine")] == ["Generator", "Mine"]


@pytest.mark.parametrize("make", [Plain, Changed, Tied])
def test_a_class_of_a_notebook_is_saved_and_built_again(make, saved, monkeypatch):
    network = make().to(memory_format=torch.channels_last)  # as it comes from a training
    name, run = type(network).__name__, saved(network=network)
    with pytest.raises(NameError, match=rf"{name}.*into"):
        run.load("warmup")
    assert same(run.load("warmup", into=make()), network.to(memory_format=torch.contiguous_format))
    monkeypatch.setattr(sys.modules["__main__"], name, type(network), raising=False)
    loaded = run.load("warmup")
    assert type(loaded) is type(network) and same(loaded, network)


def test_a_network_that_was_changed_after_building_is_loaded_into_another(saved, cfg, capsys):
    network, again = generator(), generator()
    for each in (network, again):
        each.bottleneck, each.decoder[0].norm = nn.Identity(), nn.GroupNorm(8, 256)
    run = saved(network=network)
    with pytest.raises(ValueError, match=r"into="):
        run.load("warmup")
    assert same(run.load("warmup", into=again), network) and "note" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"warmup\.safetensors"):
        run.load("warmup", into=Plain())
    network = generator()
    network.bottleneck[0].body[2] = nn.LeakyReLU(0.1)  # a change that no weight shows
    saved(network=network).load("warmup")
    assert "note" in capsys.readouterr().out


# folders


def test_a_failed_write_leaves_the_old_file_whole(saved, cfg, monkeypatch):
    run = saved()
    before = run.file("warmup").read_bytes()
    monkeypatch.setattr(runs_module, "save_file", lambda state, path, metadata: path.write_bytes(b"half") / 0)
    for phase in ("warmup", "adversarial"):
        with pytest.raises(OSError, match="cannot be written"):
            run.save(phase, generator(), cfg)
    assert run.file("warmup").read_bytes() == before and run.phases() == ["warmup"]


def test_beginning_again_archives_the_phase_and_loses_nothing(saved, cfg, sample_photos):
    run = saved()
    before = run.file("warmup").read_bytes()
    for attempt in range(3):  # also within one second
        run.begin("adversarial", cfg, sample_photos)
        assert run.table("adversarial").empty and run.phases() == ["warmup"]
        run.file("adversarial").write_text(str(attempt))
        run.file("adversarial", "_checkpoint.new").touch()  # a kill may have left it
        run.log("adversarial", pd.DataFrame({"epoch": [attempt]}), pd.DataFrame({"epoch": [attempt]}))
    assert {path.read_text() for path in run.path.rglob("adversarial.safetensors")} == {"0", "1", "2"}
    assert len([*run.path.rglob("*_history.csv")]) == len([*run.path.rglob("*_checkpoint.new")]) == 3
    assert run.file("warmup").read_bytes() == before


def test_tables_and_settings_come_back_as_they_were_written_and_what_is_missing_is_named(saved, cfg, sample_photos):
    run, history = saved(start="box"), pd.DataFrame({"epoch": [1, 2], "val L1": [0.1, 0.09]})
    run.log("warmup", history, history * 2)
    pd.testing.assert_frame_equal(run.table("warmup"), history)
    pd.testing.assert_frame_equal(run.table("warmup", "steps"), history * 2)
    assert run.table("warmup", "manifest")["name"].tolist() == sample_photos.manifest["name"].tolist()
    assert run.settings("warmup")["size"] == cfg.size and run.begun_from("warmup").name == "box"
    for phase, notebook in {"adversarial": "04_", "hints": "07_"}.items():
        assert run.table(phase).empty
        with pytest.raises(FileNotFoundError, match=rf"{phase}\.safetensors.*{notebook}"):
            run.load(phase)


def test_a_run_is_found_by_its_name_or_as_the_last_one(saved, cfg, sample_photos):
    with pytest.raises(FileNotFoundError, match="03_warmup_training"):
        find_run()
    assert find_run(or_box=True).name == find_run("box").name == "box"
    saved("try this")  # an experiment: only by its name, or if there is no other
    assert find_run().name == "try this" and find_run(or_box=True).name == "box"
    for age, name in enumerate(("first", "last", "try this")):
        os.utime(saved(name).file("warmup"), (age, age))
    Run("begun").begin("warmup", cfg, sample_photos)  # has no network yet
    assert [run.name for run in runs()] == ["first", "last", "try this"]
    assert all(find_run(name).name == name for name in ("first", "try this"))
    assert find_run().name == find_run("laptop").name == find_run(or_box=True).name == "last"
    with pytest.raises(FileNotFoundError, match="first, last"):
        find_run("frist")


def test_the_adversarial_phase_starts_with_the_nearest_warmup(saved, cfg):
    """Its own, that of the run it names, and that of the profile's run, in this order."""
    saved(cfg.profile)
    saved("other")
    for start, wanted in {"": cfg.profile, "other": "other", "box": "box"}.items():
        assert warmup_of(cfg.replace(run="mine", start=start)).name == wanted
    saved("mine")
    assert warmup_of(cfg.replace(run="mine", start="other")).name == "mine"
    with pytest.raises(FileNotFoundError, match="othr"):
        warmup_of(cfg.replace(run="new", start="othr"))


def test_what_must_agree_with_a_run_is_copied_and_printed(saved, cfg, capsys):
    agreed = saved().agree(cfg.replace(size=96, res_blocks=4, lambda_l1=7, run="next"))
    assert (agreed.size, agreed.res_blocks, agreed.lambda_l1, agreed.run) == (cfg.size, cfg.res_blocks, 7, "next")
    printed = capsys.readouterr().out
    assert f"size={cfg.size}" in printed and "96" in printed and "lambda_l1" not in printed
    moved = saved("moved", data_source="folder", photos_folder="/old")
    assert moved.agree(cfg.replace(data_source="folder", photos_folder="/new")).photos_folder == "/new"
    assert moved.agree(cfg).photos_folder == "/old"


def test_colors_without_hints_are_those_of_the_phase_before(saved):
    run = saved()
    saved("alone", "hints", start="mine")
    saved(phase="hints", start="mine")
    for before, phase in (run.color_phase(), Run("alone").color_phase()):
        assert (before.name, phase) == ("mine", "warmup")
    run.file("warmup").unlink()
    assert run.color_phase()[1] == "hints"


def test_runs_are_compared_if_they_have_not_seen_the_test_photos_and_can_be_loaded(saved, cfg, sample_photos, capsys):
    swapped = type(sample_photos)(**vars(sample_photos) | {"manifest": sample_photos.manifest.copy()})
    swapped.manifest["split"] = swapped.manifest["split"].replace({"train": "test", "test": "train"})
    saved()
    saved("cheat", photos=swapped)
    saved("heir", "adversarial", start="cheat")  # its warmup has seen them
    saved("grandchild", start="heir")
    saved("great-grandchild", "hints", start="grandchild")
    saved("other", data_source="folder", photos_folder="/old")
    saved("own", network=Plain())
    assert [run.name for run in comparable_runs(cfg, sample_photos)] == ["mine"]
    printed = capsys.readouterr().out.splitlines()
    for name, reason in (("cheat", "test photos"), ("heir", "test photos"), ("other", "folder"), ("own", "Plain")):
        assert any(f"'{name}'" in line and reason in line for line in printed)


# the model in the box


def test_the_box_is_small_names_no_machine_and_agrees_in_its_network_alone(cfg):
    file = BOX / "warmup.safetensors"
    assert file.stat().st_size <= 32e6
    text = file.read_bytes()[:20_000].decode(errors="ignore") + (BOX / "warmup.json").read_text()
    assert not any(word in text for word in ("/home", "/tmp", "/work", "/root", "Users"))
    agreed, box = Run("box").agree(cfg), Run("box").load("warmup")
    assert str(Generator(**agreed.generator()).bottleneck) == str(box.bottleneck)
    assert agreed.replace(**{name: getattr(cfg, name) for name in runs_module.NETWORK}) == cfg

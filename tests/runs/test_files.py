"""Files are written whole or not at all, verified before they are believed, and held by one program at a time."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from notebook_tools import PROJECT

from helpers import storage


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights"
    path.write_text("the old ones")

    def half(temporary):
        temporary.write_text("hal")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="disk full"):
        storage.write_atomically(path, half)
    assert path.read_text() == "the old ones" and list(tmp_path.iterdir()) == [path]


def test_a_full_file_system_is_named_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights"
    path.write_text("the old ones")

    def write(temporary):
        temporary.symlink_to("/dev/full")
        temporary.write_text("the new ones")

    with pytest.raises(OSError, match="weights cannot be written.*disk full"):
        storage.write_atomically(path, write)
    assert path.read_text() == "the old ones"


def test_the_checksum_is_sha256s(tmp_path):
    storage.write_verified(tmp_path / "a.pt", lambda path: path.write_bytes(b"abc"))
    assert storage.is_whole(tmp_path / "a.pt")
    assert (tmp_path / "a.pt.sha256").read_text() == f"{hashlib.sha256(b'abc').hexdigest()}  a.pt\n"


@pytest.mark.parametrize("damage", [b"", b"ab", b"abd", b"abcd"])
def test_a_changed_file_is_not_whole(tmp_path, damage):
    path = tmp_path / "a.pt"
    storage.write_verified(path, lambda temporary: temporary.write_bytes(b"abc"))
    path.write_bytes(damage)
    assert not storage.is_whole(path)


def test_without_a_checksum_a_file_is_not_whole(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"abc")
    assert not storage.is_whole(tmp_path / "a.pt")
    (tmp_path / "a.pt.sha256").write_bytes(b"\xff\xfe")
    assert not storage.is_whole(tmp_path / "a.pt")


def test_the_second_program_is_told_who_holds_a_folder(tmp_path):
    refused = pytest.raises(BlockingIOError, match=f"process {os.getpid()} on")
    with storage.in_use(tmp_path), refused, storage.in_use(tmp_path):
        pass
    with storage.in_use(tmp_path):
        pass  # free again


def test_a_holder_that_has_died_counts_no_more(tmp_path):
    """Killed in the middle, as a machine that disappears: nobody cleans up."""
    script = f"import os; from helpers import storage\nwith storage.in_use({str(tmp_path)!r}): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(PROJECT)})
    assert (tmp_path / "in_use.json").exists()
    with storage.in_use(tmp_path):
        assert json.loads((tmp_path / "in_use.json").read_text())["process"] == os.getpid()


@pytest.mark.parametrize(("age", "held"), [(10, True), (storage.STALE + 10, False)])
def test_a_holder_on_another_machine_counts_while_it_gives_signs_of_life(tmp_path, age, held):
    note = tmp_path / "in_use.json"
    note.write_text(json.dumps({"process": 1, "machine": socket.gethostname() + "-other", "since": "today"}))
    os.utime(note, (time.time() - age, time.time() - age))
    if held:
        with pytest.raises(BlockingIOError, match="-other since today"), storage.in_use(tmp_path):
            pass
    else:
        with storage.in_use(tmp_path):
            pass


def test_a_torn_note_holds_nobody_off(tmp_path):
    (tmp_path / "in_use.json").write_text('{"proc')
    with storage.in_use(tmp_path):
        pass

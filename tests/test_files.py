"""Files are written whole or not at all, and a folder is used by one program at a time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from helpers import files
from helpers.files import locked, write_atomically


@pytest.mark.parametrize("name", ["weights", "ü" * 125 + ".txt"], ids=["short", "as long as names can be"])
def test_a_file_is_written_to_the_disk_and_nothing_beside_it(tmp_path, name, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((tmp_path / name).exists()) or fsync(file))
    write_atomically(tmp_path / name, lambda temporary: temporary.write_text("whole"))
    assert (tmp_path / name).read_text() == "whole" and list(tmp_path.iterdir()) == [tmp_path / name]
    assert synced == [False]  # on the disk before it has its name


def half(temporary):
    temporary.write_text("hal")
    raise ValueError("each library has errors of its own for a full disk")


def full(temporary):
    temporary.symlink_to("/dev/full")
    temporary.write_text("the new ones")


@pytest.mark.parametrize("write", [half, full])
def test_a_write_that_fails_says_so_and_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "weights"
    path.write_text("the old ones")
    with pytest.raises(OSError, match=r"weights cannot be written.*disk full"):
        write_atomically(path, write)
    assert path.read_text() == "the old ones" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def impatient(monkeypatch):
    """Do not wait for a program that may be about to end."""
    monkeypatch.setattr(files, "GRACE", 0)


def holder_of(folder):
    return json.loads((folder / "lock.json").read_text())["process"]


def test_a_folder_has_one_holder_at_a_time(tmp_path, impatient):
    with locked(tmp_path), pytest.raises(BlockingIOError, match=f"{os.getpid()} on {socket.gethostname()}"):
        locked(tmp_path).__enter__()
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):  # free after the end, and after an error
        assert holder_of(tmp_path) == os.getpid()
    assert not (tmp_path / "lock.json").exists()


def start_holder(folder, inside):
    """Start a program that holds a folder, and wait until it does."""
    script = "import os, sys, time\nfrom pathlib import Path\nfrom helpers.files import locked\n"
    command = [sys.executable, "-c", f"{script}with locked(Path(sys.argv[1])):\n{inside}", str(folder)]
    holder = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    while not (folder / "lock.json").exists():
        assert holder.poll() is None
        time.sleep(0.02)
    return holder


def test_another_program_holds_a_folder_until_it_ends(tmp_path, impatient):
    with start_holder(tmp_path, "    time.sleep(600)") as holder:
        with pytest.raises(BlockingIOError, match=f"process {holder.pid} on"):
            locked(tmp_path).__enter__()
        holder.kill()
    assert (tmp_path / "lock.json").exists()  # nobody has cleaned up
    with locked(tmp_path):
        assert holder_of(tmp_path) == os.getpid()


ORPHAN = """
    if os.fork() == 0:  # a child inherits the system's lock
        time.sleep(1)
        os._exit(0)
    os.kill(os.getpid(), 9)
"""


def test_the_child_of_a_killed_holder_is_waited_for(tmp_path):
    assert start_holder(tmp_path, ORPHAN).wait() == -signal.SIGKILL
    with locked(tmp_path):
        assert holder_of(tmp_path) == os.getpid()


def leave_note(folder, age, machine):
    """Leave the note of a holder on a machine, touched some seconds ago."""
    (note := folder / "lock.json").write_text(json.dumps({"process": 1, "machine": machine, "since": "today"}))
    os.utime(note, (time.time() - age, time.time() - age))


@pytest.mark.parametrize("locks", [True, False])  # False: a file system without locks
def test_a_holder_on_another_machine_counts_while_its_note_is_fresh(tmp_path, monkeypatch, locks):
    machine = "another" if locks else socket.gethostname()
    if not locks:
        monkeypatch.setattr(FileLock, "acquire", lambda self, timeout: (_ for _ in ()).throw(NotImplementedError))
    leave_note(tmp_path, 10, machine)
    for _ in range(2):  # the refusal leaves the note
        with pytest.raises(BlockingIOError, match=f"{machine} since today"):
            locked(tmp_path).__enter__()
    leave_note(tmp_path, files.STALE + 10, machine)
    for torn in ('{"proc', "", "[1, 2]", "{}"):  # nor does a torn note lock anybody out
        with locked(tmp_path):
            assert holder_of(tmp_path) == os.getpid()
        assert not (tmp_path / "lock.json").exists()
        (tmp_path / "lock.json").write_text(torn)


def test_a_thread_touches_the_note(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "STALE", 0.2)
    with locked(tmp_path):
        note = tmp_path / "lock.json"
        os.utime(note, (1, 1))
        time.sleep(0.3)
        assert time.time() - note.stat().st_mtime < 10
        note.unlink()  # a folder that was moved away is no reason to die
        time.sleep(0.1)
        assert not note.exists()

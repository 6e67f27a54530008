"""Files are written whole or not at all, and a folder is used by one program at a time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

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


def holds(folder):
    """Whether this program is noted as the holder of a folder."""
    return json.loads((folder / "lock.json").read_text())["process"] == os.getpid()


def test_a_folder_has_one_holder_at_a_time(tmp_path, impatient):
    with locked(tmp_path), pytest.raises(BlockingIOError, match=f"{os.getpid()} on {socket.gethostname()}"):
        locked(tmp_path).__enter__()
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):  # free after the end, and after an error
        assert holds(tmp_path)
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
        with pytest.raises(BlockingIOError, match=f"process {holder.pid} on"), locked(tmp_path):
            pass
        holder.kill()
    assert (tmp_path / "lock.json").exists()  # nobody has cleaned up
    with locked(tmp_path):
        assert holds(tmp_path)


ORPHAN = """
    if os.fork() == 0:  # a child inherits the system's lock
        time.sleep(1)
        os._exit(0)
    os.kill(os.getpid(), 9)
"""


def test_the_child_of_a_killed_holder_is_waited_for(tmp_path):
    assert start_holder(tmp_path, ORPHAN).wait() == -signal.SIGKILL
    with locked(tmp_path):
        assert holds(tmp_path)


def leave_note(folder, age, **who):
    """Leave the note of a holder on another machine, touched some seconds ago."""
    note = folder / "lock.json"
    note.write_text(json.dumps({"process": 1, "machine": "another", "since": "today"} | who))
    os.utime(note, (time.time() - age, time.time() - age))
    return note


def test_a_holder_on_another_machine_counts_while_its_note_is_fresh(tmp_path):
    note = leave_note(tmp_path, age=10)
    for _ in range(2):  # the refusal leaves the note
        with pytest.raises(BlockingIOError, match="another since today"), locked(tmp_path):
            pass
    leave_note(tmp_path, age=files.STALE + 10)
    with locked(tmp_path):
        assert holds(tmp_path)
    assert not note.exists()
    with FileLock(tmp_path / "lock", timeout=0):
        pass


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


@pytest.mark.parametrize(("age", "free"), [(5, False), (1000, True)])
def test_without_locks_in_the_file_system_the_note_decides(tmp_path, monkeypatch, age, free):
    def _acquire(self, timeout):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", _acquire)
    leave_note(tmp_path, age, machine=socket.gethostname())
    with nullcontext() if free else pytest.raises(BlockingIOError, match="process 1"), locked(tmp_path):
        assert holds(tmp_path)


@pytest.mark.parametrize("text", ['{"proc', "", "[1, 2]"])
def test_a_torn_note_locks_nobody_out(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with locked(tmp_path):
        assert holds(tmp_path)

"""Files are written whole or not at all, and a folder is held by one program at a time."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from filelock import FileLock
from notebook_tools import PROJECT

from helpers import files
from helpers.files import locked, write_atomically


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights"
    path.write_text("the old ones")

    def half(temporary):
        temporary.write_text("hal")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert path.read_text() == "the old ones" and list(tmp_path.iterdir()) == [path]


def test_a_full_file_system_is_named_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights"
    path.write_text("the old ones")

    def write(temporary):
        temporary.symlink_to("/dev/full")
        temporary.write_text("the new ones")

    with pytest.raises(OSError, match="weights cannot be written.*disk full"):
        write_atomically(path, write)
    assert path.read_text() == "the old ones"


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("ü" * 125 + ".txt")
    write_atomically(path, lambda temporary: temporary.write_text("whole"))
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_the_second_holder_in_this_process_is_told_who_holds_a_folder(tmp_path):
    refused = pytest.raises(BlockingIOError, match=f"process {os.getpid()} on {socket.gethostname()}")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass  # free again


def test_a_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    started = time.perf_counter()
    with locked(tmp_path):
        assert time.perf_counter() - started < 5
    assert not (tmp_path / "lock.json").exists()


def run_holder(folder, inside):
    """Run a program that holds a folder and does something there; returns it, started."""
    script = "import os, time\nfrom pathlib import Path\nfrom helpers.files import locked\n"
    script += f"with locked(Path({str(folder)!r})):\n"
    script += "".join(f"    {line}\n" for line in inside.splitlines())
    return subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(PROJECT)})


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)


def test_another_program_that_lives_holds_a_folder_until_it_ends(tmp_path):
    with run_holder(tmp_path, "time.sleep(600)") as holder:
        wait_for(tmp_path / "lock.json", holder)
        started = time.perf_counter()
        with pytest.raises(BlockingIOError, match=f"process {holder.pid} on"), locked(tmp_path):
            pass
        assert time.perf_counter() - started < files.ORPHANS / 2  # one that lives is not waited for
        holder.kill()
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()


def test_a_holder_that_was_killed_counts_no_more(tmp_path):
    """In the middle, as a machine that disappears: nobody cleans up."""
    holder = run_holder(tmp_path, "os.kill(os.getpid(), 9)")
    assert holder.wait() == -signal.SIGKILL and (tmp_path / "lock.json").exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()


def leave_note(folder, age, **who):
    """Leave the note of a holder who was heard of some seconds ago."""
    note = folder / "lock.json"
    note.write_text(json.dumps({"process": 1, "machine": socket.gethostname() + "-other", "since": "today"} | who))
    os.utime(note, (time.time() - age, time.time() - age))
    return note


@pytest.fixture
def orphan(tmp_path):
    """Start a reader of photos, say, that a killed program has left behind with the system's lock still held."""
    started = []

    def start(seconds):
        script = "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        script += "print('held', flush=True)\ntime.sleep(float(sys.argv[2]))"
        command = [sys.executable, "-c", script, tmp_path / "lock", str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[0].stdout.readline() == "held\n"
        gone = subprocess.Popen(["true"])
        gone.wait()
        leave_note(tmp_path, 5, process=gone.pid, machine=socket.gethostname())
        return gone.pid

    yield start
    started[0].kill()
    started[0].communicate()


def test_the_orphan_of_a_killed_holder_is_waited_for(tmp_path, orphan):
    orphan(1.5)
    started = time.perf_counter()
    with locked(tmp_path):
        assert 0.5 < time.perf_counter() - started < files.ORPHANS


def test_an_orphan_that_stays_is_told_after_a_while(tmp_path, orphan, monkeypatch):
    monkeypatch.setattr(files, "ORPHANS", 0.5)
    with pytest.raises(BlockingIOError, match=f"process {orphan(60)} on"), locked(tmp_path):
        pass


FORKED = """
if os.fork() == 0:  # a reader of photos, which inherits what its parent had open
    time.sleep(1.5)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_a_killed_holder_with_a_living_child_is_followed(tmp_path):
    holder = run_holder(tmp_path, FORKED.strip())
    assert holder.wait() == -signal.SIGKILL
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()


@pytest.mark.parametrize(("age", "held"), [(10, True), (files.STALE + 10, False)], ids=["fresh", "stale"])
def test_a_holder_on_another_machine_counts_while_its_heartbeat_is_fresh(tmp_path, age, held):
    note = leave_note(tmp_path, age)
    if held:
        for _ in range(2):  # nor does the refusal take the lock away
            with pytest.raises(BlockingIOError, match="-other since today"), locked(tmp_path):
                pass
        assert "-other" in note.read_text()
    else:
        with locked(tmp_path):
            assert json.loads(note.read_text())["process"] == os.getpid()
    with FileLock(tmp_path / "lock", timeout=0):
        pass  # neither way leaves it behind


def test_the_heartbeat_renews_an_old_note_and_leaves_a_young_one(tmp_path):
    with locked(tmp_path) as heartbeat:
        note = tmp_path / "lock.json"
        for age, renewed in ((5, False), (files.STALE / 2, True)):
            before = time.time() - age
            os.utime(note, (before, before))
            heartbeat()
            assert (time.time() - note.stat().st_mtime < 4) == renewed
        note.unlink()
        heartbeat()  # a folder that was moved away is no reason to die
        assert not note.exists()


@pytest.mark.parametrize("living", [True, False])
def test_without_locks_in_the_file_system_the_note_decides(tmp_path, monkeypatch, living):
    def acquire(self, timeout):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", acquire)
    done = subprocess.Popen(["true"])
    done.wait()
    leave_note(tmp_path, 5, process=os.getpid() if living else done.pid, machine=socket.gethostname())
    if living:
        with pytest.raises(BlockingIOError, match=str(os.getpid())), locked(tmp_path):
            pass
    else:
        with locked(tmp_path):
            pass


@pytest.mark.parametrize("text", ['{"proc', "", "[1, 2]", "null"])
def test_a_torn_note_holds_nobody_off(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with locked(tmp_path):
        pass

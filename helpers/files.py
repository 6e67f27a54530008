"""Files that survive crashes: written whole or not at all, and used by one program at a time."""

import json
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from filelock import FileLock, Timeout

STALE = 180  # seconds without a heartbeat after which a lock of another machine expires
GRACE = 3  # seconds that a program which is just ending may take to release its lock


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it, so that nobody ever sees half a file.

    Raises OSError with what to do if it cannot be written; an earlier file of that name is then unchanged.
    """
    short = f"{path.name[:40]}.{zlib.crc32(os.fsencode(path.name)):08x}.part"  # the name itself may be at its limit
    temporary = path.with_name(short)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # on the disk, not only in its cache
        temporary.replace(path)
    except Exception as error:  # safetensors and torch raise their own errors for a full disk
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(
            f"{path} cannot be written ({error}). Is the disk full, write-protected, or Drive no longer mounted? "
            "Nothing that was there before is lost: make room and run this again."
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for a `with` block; raises BlockingIOError that names the program which holds it.

    The operating system's lock ends with the program, but only this machine sees it. Other machines (two Colabs on one
    Drive) see `lock.json`, which a thread touches; the lock expires after 3 minutes without that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note, lock, done = folder / "lock.json", FileLock(folder / "lock"), Event()
    _acquire(lock, note)

    def _beat():
        while not done.wait(STALE / 4):
            with suppress(OSError):
                os.utime(note)

    me = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        write_atomically(note, lambda path: path.write_text(json.dumps(me), encoding="utf-8"))
        Thread(target=_beat, daemon=True).start()
        yield
    finally:
        done.set()
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, note: Path) -> None:
    """Acquire the system's lock; raises BlockingIOError if a program here or on another machine has the folder."""
    try:
        holder = {**json.loads(note.read_text(encoding="utf-8")), "touched": note.stat().st_mtime}
    except (OSError, ValueError, TypeError):  # no note, or half of one
        holder = {}
    try:
        lock.acquire(timeout=GRACE)
        used = holder.get("machine") != socket.gethostname() and time.time() - holder.get("touched", 0) < STALE
    except NotImplementedError:  # a file system without locks: the note decides alone
        used = time.time() - holder.get("touched", 0) < STALE
    except Timeout:
        used = True
    if used:
        lock.release()
        who = f"process {holder.get('process', '?')} on {holder.get('machine', '?')} since {holder.get('since', '?')}"
        raise BlockingIOError(
            f"{note.parent} is in use by {who}. Wait for it, stop it, or choose another name. If that program no "
            f"longer runs, the lock expires after {STALE // 60} minutes."
        )

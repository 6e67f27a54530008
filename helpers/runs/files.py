"""Files that survive crashes: written whole or not at all, and in use by one program at a time."""

import json
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

STALE = 180  # seconds without a heartbeat, after which a holder on another machine is taken for gone
ORPHANS = 10  # seconds that what a killed program had started (readers of photos) may take to notice


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place, so that no half file is ever seen.

    Raises OSError with what to do when it cannot be written; what was there before is then still there.
    """
    short = f"{path.name[:40]}.{zlib.crc32(os.fsencode(path.name)):08x}.part"  # a name may be as long as names can be
    temporary = path.with_name(short)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # on the disk, not only on its way there
        temporary.replace(path)
        with suppress(OSError):  # the folder's list of names too, where a file system can do that
            descriptor = os.open(path.parent, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    except Exception as error:  # safetensors and torch have errors of their own for a full disk
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"{path} cannot be written ({error}). Is the disk full, or Drive no longer mounted? "
            "What was there before is intact: make room and run this again."
        ) from error


def refuse_another(folder: Path, now: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise ValueError when a folder holds what was made in another way; else note in it what this way is.

    defaults: what holds where an older note does not speak of a setting.
    """
    note = folder / "made_with.json"
    then = defaults | json.loads(note.read_text()) if note.exists() else now
    differ = [f"{name}: {then.get(name)} then, {value} now" for name, value in now.items() if then.get(name) != value]
    if differ:
        raise ValueError(
            f"{folder} holds what was made in another way ({'; '.join(differ)}): name another target, or delete it."
        )
    write_atomically(note, lambda path: path.write_text(json.dumps(now, indent=1)))


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a folder for the time of a `with` block; gives the heartbeat, a function to call now and then.

    Two locks, for each sees what the other cannot: the operating system's, in `lock`, ends with the program, however it
    dies, but knows this machine alone; the heartbeat of `lock.json` is seen from other machines too (two Colabs on one
    Drive), where a holder counts as gone after three minutes of silence. Raises BlockingIOError that names the holder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note, lock = folder / "lock.json", FileLock(folder / "lock")
    holder = _holder(note)
    here = holder["machine"] == socket.gethostname()
    lives = here and psutil.pid_exists(holder["process"])
    try:
        lock.acquire(timeout=0 if lives else ORPHANS)
        lives = False if here else holder["age"] < STALE
    except Timeout as error:
        raise in_use(folder, holder) from error
    except NotImplementedError:  # a file system without locks
        lives = lives if here else holder["age"] < STALE
    try:
        if lives:
            raise in_use(folder, holder)
        me = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_atomically(note, lambda path: path.write_text(json.dumps(me)))
        try:
            yield lambda: _beat(note)
        finally:
            note.unlink(missing_ok=True)
    finally:
        lock.release()


def in_use(folder: Path, holder: dict[str, Any]) -> BlockingIOError:
    """Return the error that names who holds a folder."""
    return BlockingIOError(
        f"{folder} is in use by process {holder['process']} on {holder['machine']} since {holder['since']}. Wait for "
        f"it, stop it, or train under another name. If it is gone: it counts no more after {STALE // 60} minutes."
    )


def _beat(note: Path) -> None:
    with suppress(FileNotFoundError):
        if time.time() - note.stat().st_mtime > STALE / 4:
            os.utime(note)


def _holder(note: Path) -> dict[str, Any]:
    """Return what a note says of who wrote it, and how many seconds ago it was touched."""
    try:
        told = json.loads(note.read_text())
        age = time.time() - note.stat().st_mtime
        return {"process": int(told["process"]), "machine": told["machine"], "since": told["since"], "age": age}
    except (OSError, ValueError, TypeError, KeyError):  # gone, or torn: whoever wrote it died while writing
        return {"process": -1, "machine": "", "since": "", "age": STALE}

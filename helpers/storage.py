"""Files that survive crashes: written whole or not at all, verified by a checksum, in use by one program at a time."""

import hashlib
import json
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

STALE = 180  # seconds without a sign of life, after which whoever holds a folder is taken for gone


def write_atomically(path, write):
    """Let `write` fill a temporary file beside `path`, then put it in place, so that no half file is ever seen.

    Raises OSError with what to do when it cannot be written; what was there before is then still there.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # on the disk, not only on its way there
        temporary.replace(path)
    except Exception as error:  # safetensors and torch have errors of their own for a full disk
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"{path} cannot be written ({error}). Is the disk full, or Drive no longer mounted? "
            "What was there before is intact: make room and run this again."
        ) from error


def write_verified(path, write):
    """Write as `write_atomically`, then the file's SHA-256 beside it, as `sha256sum` would."""
    write_atomically(path, write)
    line = f"{checksum(path)}  {path.name}\n"
    write_atomically(_sum_of(path), lambda temporary: temporary.write_text(line))


def is_whole(path):
    """Say whether a file is what `write_verified` wrote: False if it is cut, changed, or has no checksum."""
    try:
        return _sum_of(path).read_text().split()[0] == checksum(path)
    except (OSError, IndexError, UnicodeDecodeError):
        return False


def remove(path):
    """Remove a file of `write_verified`, its checksum first: without it the file counts for nothing."""
    _sum_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def checksum(path):
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_of(path):
    return path.with_name(path.name + ".sha256")


@contextmanager
def in_use(folder):
    """Hold a folder for the time of a `with` block; gives a function to call now and then as a sign of life.

    Raises BlockingIOError that names the holder when another program has it. One that has died counts no more:
    at once on the same machine, after three minutes on another.
    """
    note = Path(folder) / "in_use.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            descriptor = os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            _refuse_if_alive(note)
            note.unlink(missing_ok=True)
    me = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with os.fdopen(descriptor, "w") as file:
        json.dump(me, file)
    last = time.monotonic()

    def alive():
        nonlocal last
        if time.monotonic() - last > STALE / 4:
            os.utime(note)
            last = time.monotonic()

    try:
        yield alive
    finally:
        note.unlink(missing_ok=True)


def _refuse_if_alive(note):
    """Raise BlockingIOError if who wrote a note still lives, or may."""
    try:
        holder, age = json.loads(note.read_text()), time.time() - note.stat().st_mtime
        process, machine = holder["process"], holder["machine"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # gone meanwhile, or torn: whoever wrote it died while writing
    same = machine == socket.gethostname()
    if (same and psutil.pid_exists(process)) or (not same and age < STALE):
        raise BlockingIOError(
            f"{note.parent} is in use by process {process} on {machine} since {holder.get('since')}. Wait for it, or "
            f"stop it, or train under another name. If it is gone: it counts no more after {STALE // 60} minutes."
        )

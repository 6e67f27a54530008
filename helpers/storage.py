"""Files that survive crashes: written whole or not at all, verified by a checksum, in use by one program at a time."""

import hashlib
import json
import os
import socket
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

WRITING = 0.5  # seconds after which a note that cannot be read is not one that is just being written
STALE = 180  # seconds without a sign of life, after which whoever holds a folder is taken for gone


def write_atomically(path, write):
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
        _flush_folder(path.parent)
    except Exception as error:  # safetensors and torch have errors of their own for a full disk
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"{path} cannot be written ({error}). Is the disk full, or Drive no longer mounted? "
            "What was there before is intact: make room and run this again."
        ) from error


def _flush_folder(folder):
    """Put a folder's list of names on the disk too, where a file system can do that: a rename is a change of it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_verified(path, write):
    """Write as `write_atomically`, then the file's SHA-256 beside it, as `sha256sum` would."""

    def write_anew(temporary):
        write(temporary)
        _sum_of(path).unlink(missing_ok=True)  # that of an older file must not speak against this one

    write_atomically(path, write_anew)
    line = f"{checksum(path)}  {path.name}\n"
    write_atomically(_sum_of(path), lambda temporary: temporary.write_text(line))


def has_checksum(path):
    """Say whether a checksum lies beside a file: a copy that somebody sent may come without it."""
    return _sum_of(path).exists()


def is_whole(path):
    """Say whether a file is what `write_verified` wrote: False if it is cut, changed, or has no checksum.

    Raises OSError when the disk does not answer, which says nothing about the file.
    """
    try:
        return _sum_of(path).read_text().split()[0] == checksum(path)
    except (FileNotFoundError, IndexError, UnicodeDecodeError):
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
    me = _take(note)
    last = time.monotonic()

    def alive():
        nonlocal last
        if time.monotonic() - last > STALE / 4 and _holder(note) == me:
            os.utime(note)
            last = time.monotonic()

    try:
        yield alive
    finally:
        if _holder(note) == me:
            note.unlink(missing_ok=True)


def _take(note):
    """Write a note that says who this is, when nobody alive has one there; return what it says."""
    note.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            descriptor = os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            _refuse_if_alive(note)
            note.unlink(missing_ok=True)
    me = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    me["begun"] = psutil.Process().create_time()  # numbers of processes are used again
    with os.fdopen(descriptor, "w") as file:
        json.dump(me, file)
    return me


def _holder(note):
    """Return what a note says of who wrote it, or None if it is gone or torn."""
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None


def _lives(holder):
    """Say whether the process of a note on this machine still runs, and is not another of the same number."""
    try:
        begun = psutil.Process(holder["process"]).create_time()
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
    return abs(begun - holder.get("begun", begun)) < 1


def _refuse_if_alive(note):
    """Raise BlockingIOError if who wrote a note still lives, or may."""
    try:
        age = time.time() - note.stat().st_mtime
    except FileNotFoundError:
        return  # gone meanwhile
    holder = _holder(note)
    if holder is None:  # torn, or just being written
        time.sleep(WRITING)
        holder = _holder(note)
    if not isinstance(holder, dict):
        return  # whoever wrote it died while writing
    here = holder.get("machine") == socket.gethostname()
    if _lives(holder) if here else age < STALE:
        raise BlockingIOError(
            f"{note.parent} is in use by process {holder.get('process')} on {holder.get('machine')} since "
            f"{holder.get('since')}. Wait for it, or stop it, or train under another name. If it is gone: it counts no "
            f"more after {STALE // 60} minutes."
        )

"""Film files, written: H.264 in chunks, then joined with the original sound."""

import heapq
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from helpers.apps.film_reader import Film, opened, packets

FORMATS = {".mp4": "mp4", ".mkv": "matroska"}  # that can be written
# without frames out of order, chunks can be joined; with the same threads on any machine, the bytes are the same
QUALITY = {"crf": "16", "preset": "faster", "bf": "0", "threads": "8"}
BT709 = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}  # in the header, else players guess
OWN = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}  # what describes the old file itself


def write_film(
    path: Path, frames: Iterable, time_base: Fraction, rate: float, kind: str = "mp4", aspect: Fraction | None = None
) -> None:
    """Write frames, their times in units of `time_base` and pixels (H, W, 3) uint8, as H.264; odd sides grow by one.

    rate: frames per second, nominally; kind: FFmpeg's name of the format; aspect: of a pixel.
    """
    with opened(path, "w", format=kind) as result:
        stream = None
        for time, rgb in frames:
            height, width = rgb.shape[:2]
            even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = result.add_stream("libx264", Fraction(rate).limit_denominator(1001), options=QUALITY, **BT709)
                stream.height, stream.width = even.shape[:2]
                stream.codec_context.time_base, stream.sample_aspect_ratio = time_base, aspect or 0
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1)
            frame.pts, frame.time_base = time, time_base
            result.mux(stream.encode(frame))
        result.mux(stream.encode())


def target_suffix(path: Path) -> str:
    """Return the ending of a format that can hold a film's sound unchanged: its own, ".mp4", else ".mkv"."""
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return suffix
    with suppress(av.FFmpegError, OSError), opened(path) as container:  # reading a faulty film will show why
        if not all(can_copy(stream, ".mp4") for stream in container.streams.audio):
            return ".mkv"
    return ".mp4"


def can_copy(stream: Any, suffix: str) -> bool:
    """Say whether a format can hold a stream in a way that players know: PCM in .mp4 is too new for most."""
    if not stream.codec_context or (suffix == ".mp4" and stream.codec_context.name.startswith("pcm")):
        return False
    with suppress(av.FFmpegError, ValueError), av.open(os.devnull, "w", format=FORMATS[suffix]) as container:
        container.add_stream_from_template(stream)
        container.start_encoding()
        return True
    return False


def mux(chunks: list[Path], film: Film, path: Path) -> list[str]:
    """Write chunks one after another, with the film's sound, subtitles, chapters and descriptions, to a file.

    Returns a sentence for each stream that the format cannot hold, or that is faulty.
    """
    suffix, lost = path.suffix.lower(), []
    clock = {"movie_timescale": str(film.time_base.denominator)} if suffix == ".mp4" else {}
    how = {"format": FORMATS[suffix], "options": clock}
    with opened(film.path) as source, opened(chunks[0]) as first, opened(path, "w", **how) as result:
        picture = result.add_stream_from_template(first.streams.video[0])
        result.metadata.update({name: text for name, text in source.metadata.items() if name.lower() not in OWN})
        others = [stream for stream in source.streams if stream.index != film.index]
        targets = {stream.index: target_stream(result, stream, suffix, film) for stream in others}
        result.set_chapters(source.chapters())
        rows = pictures(chunks, picture), sound_and_subtitles(source, targets, lost)
        for packet in heapq.merge(*rows, key=lambda packet: packet.dts * packet.time_base):
            try:
                result.mux(packet)
            except av.FFmpegError:
                if packet.stream is picture:
                    raise
                lost.append(packet)
    notes = [note for _, note in targets.values() if note]
    return notes + [f"{len(lost)} faulty packets of its sound or subtitles are left out"] * bool(lost)


def can_decode(film: Film, index: int) -> bool:
    """Say whether any packet of a film's stream can be decoded."""
    with opened(film.path) as container:
        for packet in container.demux(container.streams[index]):
            with suppress(av.FFmpegError, ValueError):
                if packet.decode():
                    return True
    return False


def target_stream(result: Any, stream: Any, suffix: str, film: Film) -> tuple[Any, str]:
    """Add a stream for another one to a film, None if there is no way; returns it, and what the user may not expect."""
    name, note = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown", ""
    if stream.type == "attachment" and suffix == ".mkv":
        result.add_attachment(stream.name, stream.mimetype or "application/octet-stream", stream.data)
        return None, ""
    if stream.type not in ("audio", "subtitle"):
        name = "a cover picture" if stream.disposition & Disposition.attached_pic else getattr(stream, "name", name)
        return None, f"its {stream.type} stream ({name}) is left out"
    if stream.type == "audio" and not can_decode(film, stream.index):
        return None, "its sound cannot be decoded, and is left out"
    if can_copy(stream, suffix):
        target = result.add_stream_from_template(stream)
    elif stream.type == "audio" and stream.codec_context:
        note = f"its sound ({name}) is encoded anew as AAC, because {suffix} cannot hold it"
        target = result.add_stream("aac", rate=min(48_000, stream.codec_context.sample_rate or 48_000))
        target.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    else:
        return None, f"its {stream.type} stream ({name}) is left out, because {suffix} cannot hold it"
    target.metadata.update({key: stream.metadata[key] for key in ("language", "title") if key in stream.metadata})
    target.disposition = stream.disposition
    return target, note


def pictures(chunks: list[Path], target: Any) -> Iterator[Any]:
    """Yield the packets of all chunks for a stream."""
    for chunk in chunks:
        with opened(chunk) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size and packet.dts is not None:
                    packet.stream = target
                    yield packet


def sound_and_subtitles(source: Any, targets: dict[int, tuple[Any, str]], lost: list) -> Iterator[Any]:
    """Yield a film's packets for other streams; sound that cannot be decoded is left out, and added to `lost`.

    targets: by the film's index, as `target_stream` returns them; those with a note are encoded anew.
    """
    following = {}  # by stream: the time of the next frame to encode, where the file has none
    for packet in packets(source):
        target, encode = targets.get(packet.stream.index, (None, ""))
        try:
            frames = packet.decode() if target and packet.stream.type == "audio" else []
        except (av.FFmpegError, ValueError):
            lost.append(packet)
            continue
        for frame in frames if encode else []:
            frame.pts = following.get(target, 0) if frame.pts is None else frame.pts
            following[target] = frame.pts + round(frame.samples / frame.sample_rate / frame.time_base)
            yield from target.encode(frame)
        if target and not encode and packet.size and packet.dts is not None:
            packet.stream = target
            yield packet
    for target, encode in targets.values():
        if target and encode:
            yield from target.encode()

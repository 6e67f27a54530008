"""Film files: reading frames, finding cuts, and writing with the original sound."""

import heapq
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".ogv", ".ts", ".mts", ".m2ts"}
SUFFIXES |= {".3gp", ".vob", ".flv", ".dv"}
FORMATS = {".mp4": "mp4", ".mkv": "matroska"}  # that can be written
QUALITY = {"crf": "17", "bf": "0"}  # without frames out of order, chunks can be joined
LOOK = 160  # pixels on the shorter side of the frames in which cuts are found
BT709 = 1  # its number in a file's header
HDR = {16: "PQ", 18: "HLG"}  # numbers of their transfer functions
JUMP = 1.0  # seconds; larger jumps back in time begin a new part
LATE = 0.1  # seconds; a clock that starts later is set to 0
OWN = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}  # what describes the old file itself


class Film:
    """A film file to be read frame by frame, upright, its clock starting at 0 and never jumping back.

    Raises ValueError for a file that is missing, that holds no film, or that is in HDR.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            with av.open(str(path)) as container:
                moving = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
                if not moving:
                    raise ValueError(f"{path} holds no pictures: name a film")
                stream = moving[0]
                self.index, self.count, self.shape_of_pixels = stream.index, stream.frames, stream.sample_aspect_ratio
                self.time_base, self.rate = stream.time_base, stream.average_rate or stream.guessed_rate or 25
                first = next(self._decoded(container))
        except (av.FFmpegError, StopIteration) as error:
            raise ValueError(f"{path} cannot be read as a film ({str(error) or 'it holds no frame'})") from error
        if first.color_trc in HDR:
            raise ValueError(
                f"{path} is in HDR ({HDR[first.color_trc]}), whose tones this project does not map. Convert it first: "
                "ffmpeg -i IN -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709,format=yuv420p OUT"
            )
        self.stored, self.matrix = (first.width, first.height), orientation(first)
        self.height, self.width = turned(np.empty(self.stored[::-1]), self.matrix).shape
        if self.shape_of_pixels and self.matrix[0, 0] == 0:
            self.shape_of_pixels = 1 / self.shape_of_pixels

    def frames(self, shorter: int | None = None, kind: str = "rgb24") -> Iterator[tuple[int, np.ndarray]]:
        """Yield the time of each frame, in units of `time_base`, and its pixels, uint8 (H, W, 3), or (H, W) if "gray".

        shorter: pixels to reduce the shorter side to; None for their own size. A film that breaks off ends there.
        """
        share = min(1, (shorter or min(self.stored)) / min(self.stored))  # a film may change its size on the way
        width, height = (max(1, round(side * share)) for side in self.stored)
        step = max(1, round(1 / self.rate / self.time_base))
        time = -step
        with av.open(str(self.path)) as container:
            for frame in self._decoded(container):
                if frame.pts is None:
                    time += step
                else:  # a filter has its own time base
                    time = max(time + 1, round(frame.pts * (frame.time_base or self.time_base) / self.time_base))
                yield time, turned(frame.to_ndarray(format=kind, width=width, height=height), self.matrix)

    def _decoded(self, container: Any) -> Iterator[Any]:
        """Yield decoded frames, deinterlaced if necessary; damaged ones are left out."""
        stream, graph = container.streams[self.index], None
        stream.thread_type = "AUTO"
        for packet in packets(container):
            if packet.stream.index == self.index:
                with suppress(av.FFmpegError):  # a damaged stretch, or the end of a film that breaks off
                    for frame in packet.decode():
                        if graph is None and frame.interlaced_frame:
                            graph = deinterlacer(stream)
                        yield from filtered(graph, frame) if graph else [frame]
        if graph:
            yield from filtered(graph, None)


def packets(container: Any) -> Iterator[Any]:
    """Yield the packets of a film's pictures, sound and subtitles on one clock, which starts at 0 and never jumps back.

    A film whose time stamps jump back consists of parts, such as the joined files of a DVD: all streams of a part begin
    where the part before ended.
    """
    start = (container.start_time or 0) / av.time_base
    shifts = [-start if start > LATE else 0.0]  # seconds to add in each part
    part, read, last, ends = Counter(), {}, {}, {}  # by stream: its part, last time stamp as read and on the clock, end
    for packet in container.demux([each for each in container.streams if each.type in ("video", "audio", "subtitle")]):
        index, dts, unit = packet.stream.index, packet.dts, float(packet.time_base or 0)
        if dts is not None:
            part[index] += (read.get(index, dts) - dts) * unit > JUMP
            if part[index] == len(shifts):  # another stream's last packet may be still to come
                begin = max((end + (each != index) * length for each, (end, length) in ends.items()), default=0.0)
                shifts.append(begin - dts * unit)
            read[index] = dts
            last[index] = packet.dts = max(dts + round(shifts[part[index]] / unit), last.get(index, -math.inf) + 1)
            if packet.stream.type != "subtitle":
                length = (packet.duration or 0) * unit
                ends[index] = packet.dts * unit + length, length
        if packet.pts is not None:
            packet.pts += round(shifts[part[index]] / unit) if dts is None else packet.dts - dts
        yield packet


def deinterlacer(stream: Any) -> Any:
    """Return a filter that deinterlaces."""
    graph = av.filter.Graph()
    parts = graph.add_buffer(template=stream), graph.add("yadif", "deint=interlaced"), graph.add("buffersink")
    graph.link_nodes(*parts).configure()
    return graph


def filtered(graph: Any, frame: Any) -> Iterator[Any]:
    """Give a frame to a filter, None at the end; yield the frames that are ready."""
    graph.push(frame)
    with suppress(av.BlockingIOError, av.EOFError):
        while True:
            yield graph.pull()


def find_cuts(frames: Iterable[np.ndarray], rate: float, content: float = 40.0, adaptive: float = 1.8) -> list[int]:
    """Return the numbers of the frames that begin a shot, 0 included; frames: gray (H, W) uint8, `rate` per second.

    Two detectors of PySceneDetect: `content` is the threshold for the difference from the last frame, `adaptive` for
    its ratio to the differences nearby.
    """
    options = {"luma_only": True, "min_scene_len": 1}
    detectors = ContentDetector(content, **options), AdaptiveDetector(adaptive, min_content_val=6.0, **options)
    cuts, number = {0}, -1
    for number, gray in enumerate(frames):
        picture, time = np.repeat(gray[..., None], 3, axis=2), FrameTimecode(number, float(rate))
        for detector in detectors:
            cuts |= {cut.frame_num for cut in detector.process_frame(time, picture)}
    for detector in detectors:
        cuts |= {cut.frame_num for cut in detector.post_process(FrameTimecode(max(number, 0), float(rate)))}
    return sorted(cuts)


def write_film(
    path: Path,
    frames: Iterable[tuple[int, np.ndarray]],
    time_base: Fraction,
    rate: Fraction | float,
    kind: str = "mp4",
    shape_of_pixels: Fraction | None = None,
) -> None:
    """Write frames, their times in units of `time_base` and pixels (H, W, 3) uint8, as H.264; odd sides grow by one.

    rate: frames per second, nominally; kind: FFmpeg's name of the format.
    """
    with av.open(str(path), "w", format=kind) as result:
        stream = None
        for time, rgb in frames:
            if stream is None:
                height, width = rgb.shape[:2]
                stream = result.add_stream("libx264", Fraction(rate).limit_denominator(1001), options=QUALITY)
                stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
                context = stream.codec_context
                context.time_base, context.color_range = time_base, 1
                context.colorspace = context.color_primaries = context.color_trc = BT709  # else players guess
                if shape_of_pixels:
                    context.sample_aspect_ratio = shape_of_pixels
            even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = time, time_base
            result.mux(stream.encode(frame))
        result.mux(stream.encode())


def orientation(frame: Any) -> np.ndarray:
    """Return the signs (2, 2) of a frame's display matrix: which way its rows and columns are to be shown."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.sign(np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2])
    return np.eye(2, dtype=int)


def turned(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return pixels (H, W) or (H, W, 3) as a display matrix shows them, in one of eight orientations."""
    (a, b), (c, d) = matrix
    if a == 0 and d == 0:  # columns become rows
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def target_suffix(path: Path) -> str:
    """Return the ending of a format that can hold a film's sound unchanged: its own, ".mp4", else ".mkv"."""
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return suffix
    with suppress(av.FFmpegError, OSError), av.open(str(path)) as container:  # reading a faulty film will show why
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


def join(chunks: list[Path], film: Film, path: Path) -> list[str]:
    """Write chunks one after another, with the film's sound, subtitles, chapters and descriptions, to a file.

    Returns a sentence for each stream that the format cannot hold. Raises ValueError if the film's streams are faulty.
    """
    suffix, notes, targets = path.suffix.lower(), [], {}
    clock = {"movie_timescale": str(film.time_base.denominator)} if suffix == ".mp4" else {}
    with (
        av.open(str(film.path)) as source,
        av.open(str(chunks[0])) as first,
        av.open(str(path), "w", format=FORMATS[suffix], options=clock) as result,
    ):
        picture = result.add_stream_from_template(first.streams.video[0])
        result.metadata.update({name: text for name, text in source.metadata.items() if name.lower() not in OWN})
        for stream in (*source.streams.audio, *source.streams.subtitles):
            target, note = target_stream(result, stream, suffix)
            targets[stream.index] = target, bool(note)
            notes += [note] if note else []
        result.set_chapters(source.chapters())
        try:
            rows = pictures(chunks, picture), sound_and_subtitles(source, targets)
            for packet in heapq.merge(*rows, key=lambda packet: packet.dts * packet.time_base):
                result.mux(packet)
        except av.ArgumentError as error:
            raise ValueError(f"{film.path} has faulty sound or subtitles, which cannot be written: {error}") from error
    return notes


def target_stream(result: Any, stream: Any, suffix: str) -> tuple[Any, str]:
    """Add a stream for another one to a film, None if there is no way; returns it, and what the user may not expect."""
    name, note = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown", ""
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
        with av.open(str(chunk)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size and packet.dts is not None:
                    packet.stream = target
                    yield packet


def sound_and_subtitles(source: Any, targets: dict[int, tuple[Any, bool]]) -> Iterator[Any]:
    """Yield a film's packets for other streams, which `targets` holds by the film's index, and whether to encode."""
    following = {}  # by stream: the time of the next frame to encode, where the file has none
    for packet in packets(source):
        target, encode = targets.get(packet.stream.index, (None, False))
        if target and encode:
            with suppress(av.FFmpegError):  # a damaged stretch
                for frame in packet.decode():
                    frame.pts = following.get(target, 0) if frame.pts is None else frame.pts
                    following[target] = frame.pts + round(frame.samples / frame.sample_rate / frame.time_base)
                    yield from target.encode(frame)
        elif target and packet.size and packet.dts is not None:
            packet.stream = target
            yield packet
    for target, encode in targets.values():
        if target and encode:
            yield from target.encode()

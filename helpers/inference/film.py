"""Film files: reading frames, finding cuts, and writing with the original sound."""

import heapq
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
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
OWN = {
    "encoder",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "duration",
}  # descriptions of the old file itself


class Film:
    """A film file to be read frame by frame, upright, its clock starting at 0 and never jumping back.

    Raises FileNotFoundError for a missing file, ValueError for one that holds no film or is in HDR.
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
            self.shifts = shifts_of(self.path)
            self.matrix, self.transfer = np.eye(2, dtype=int), None
            self.height, self.width = next(self.frames())[1].shape[:2]
            if self.matrix[0, 0] == 0 and self.shape_of_pixels:
                self.shape_of_pixels = 1 / self.shape_of_pixels
        except FileNotFoundError:
            raise
        except (av.FFmpegError, StopIteration) as error:
            raise ValueError(f"{path} cannot be read as a film ({str(error) or 'it holds no frame'})") from error
        if self.transfer in HDR:
            raise ValueError(
                f"{path} is in HDR ({HDR[self.transfer]}), whose tones this project does not map. Convert it first: "
                "ffmpeg -i IN -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709,format=yuv420p OUT"
            )

    def frames(self, shorter: int | None = None, kind: str = "rgb24") -> Iterator[tuple[int, np.ndarray]]:
        """Yield the time of each frame, in units of `time_base`, and its pixels, uint8 (H, W, 3), or (H, W) if "gray".

        shorter: pixels to reduce the shorter side to; None for their own size. A film that breaks off ends there.
        """
        with av.open(str(self.path)) as container:
            stream = container.streams[self.index]
            stream.thread_type = "AUTO"
            clock, first, step = Clock(self.shifts, self.time_base), None, max(1, round(1 / self.rate / self.time_base))
            for frame in self._decoded(container, stream):
                first = first or (frame.width, frame.height)  # a film may change its size
                share = min(1, (shorter or min(first)) / min(first))
                size = {"width": max(1, round(first[0] * share)), "height": max(1, round(first[1] * share))}
                pts = frame.pts
                if pts is not None:  # a filter has its own time base
                    pts = round(pts * (frame.time_base or self.time_base) / self.time_base)
                self.matrix, self.transfer = orientation(frame), frame.color_trc
                yield clock.time(pts, step), turned(frame.to_ndarray(format=kind, **size), self.matrix)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield decoded frames, deinterlaced if necessary; damaged ones are left out."""
        graph = None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # a damaged stretch, or the end of a film that breaks off
                continue
            for frame in frames:
                if graph is None and frame.interlaced_frame:
                    graph = deinterlacer(stream)
                if graph is None:
                    yield frame
                else:
                    graph.push(frame)
                    yield from pulled(graph)
        if graph is not None:
            graph.push(None)
            yield from pulled(graph)


def deinterlacer(stream: Any) -> Any:
    """Return a filter that deinterlaces."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream), graph.add("yadif", "deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def pulled(graph: Any) -> Iterator[Any]:
    """Yield the frames that are ready in a filter."""
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


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


class Clock:
    """Turns a stream's time stamps into times that start at 0 and rise, see `shifts_of`."""

    def __init__(self, shifts: list[float], time_base: Fraction):
        self.shifts, self.time_base, self.part, self.raw, self.last = shifts, time_base, 0, None, None

    def time(self, stamp: int | None, step: int = 1) -> int:
        """Return the time of the next stamp, in units of the time base; without a stamp, a step after the last one."""
        if stamp is None:
            time = 0 if self.last is None else self.last + step
        else:
            if self.raw is not None and (self.raw - stamp) * self.time_base > JUMP:
                self.part = min(self.part + 1, len(self.shifts) - 1)
            self.raw = stamp
            time = stamp + round(self.shifts[self.part] / self.time_base)
        self.last = time if self.last is None else max(time, self.last + 1)
        return self.last


def shifts_of(path: Path) -> list[float]:
    """Return the seconds to add to all time stamps of each part of a film.

    A film whose time stamps jump back consists of parts, such as the joined files of a DVD. Each part begins where the
    one before ends, for pictures and sound alike, and the first one at 0.
    """
    starts, ends, part, last = {}, {}, {}, {}
    with av.open(str(path)) as container:
        for packet in container.demux([*container.streams.video, *container.streams.audio]):
            if packet.dts is None:
                continue
            index, time = packet.stream_index, float(packet.dts * packet.time_base)
            part[index] = part.get(index, 0) + (last.get(index, time) - time > JUMP)
            last[index], number = time, part[index]
            shown = time if packet.pts is None else float(packet.pts * packet.time_base)
            starts[number] = min(starts.get(number, shown), shown)
            ends[number] = max(ends.get(number, shown), shown + float((packet.duration or 0) * packet.time_base))
    shifts = [-starts[0] if starts and starts[0] > LATE else 0.0]
    for number in range(1, len(starts)):
        shifts.append(ends[number - 1] + shifts[-1] - starts[number])
    return shifts


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
    try:
        with av.open(str(path)) as container:
            return ".mp4" if all(can_copy(stream, ".mp4") for stream in container.streams.audio) else ".mkv"
    except (av.FFmpegError, OSError):  # reading it will say why
        return ".mp4"


def can_copy(stream: Any, suffix: str) -> bool:
    """Say whether a format can hold a stream in a way that players know: PCM in .mp4 is too new for most."""
    if not stream.codec_context or (suffix == ".mp4" and stream.codec_context.name.startswith("pcm")):
        return False
    try:
        with av.open(os.devnull, "w", format=FORMATS[suffix]) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
        return True
    except (av.FFmpegError, ValueError):
        return False


def packets(film: Film, index: int, target: Any) -> Iterator[Any]:
    """Yield the packets of a stream for another stream, on the film's repaired clock."""
    with av.open(str(film.path)) as container:
        clock = None
        for packet in container.demux(container.streams[index]):
            if packet.size and packet.dts is not None:
                clock = clock or Clock(film.shifts, packet.time_base)
                delay = (packet.pts or packet.dts) - packet.dts
                packet.dts = clock.time(packet.dts)
                packet.pts, packet.stream = packet.dts + delay, target
                yield packet


def encoded_sound(film: Film, index: int, target: Any) -> Iterator[Any]:
    """Yield the packets of a sound stream encoded anew as AAC, on the film's repaired clock."""
    with av.open(str(film.path)) as container:
        clock = None
        for packet in container.demux(container.streams[index]):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # a damaged stretch
                continue
            for frame in frames:
                clock = clock or Clock(film.shifts, frame.time_base)
                frame.pts = clock.time(frame.pts, round(frame.samples / frame.sample_rate / frame.time_base))
                yield from target.encode(frame)
        yield from target.encode()


def join(chunks: list[Path], film: Film, path: Path, suffix: str) -> list[str]:
    """Write chunks one after another, with the film's sound, subtitles, chapters and descriptions, to a file.

    Returns a sentence for each stream that the format cannot hold. Raises ValueError if the film's streams are faulty.
    """
    lost, rows, kind = [], [], FORMATS[suffix]
    with ExitStack() as stack:
        source = stack.enter_context(av.open(str(film.path)))
        first = stack.enter_context(av.open(str(chunks[0])))
        clock = {"movie_timescale": str(film.time_base.denominator)} if kind == "mp4" else {}
        result = stack.enter_context(av.open(str(path), "w", format=kind, options=clock))
        picture = result.add_stream_from_template(first.streams.video[0])
        rows.append(packet for chunk in chunks for packet in chunk_packets(chunk, picture))
        result.metadata.update({name: text for name, text in source.metadata.items() if name.lower() not in OWN})
        for stream in (*source.streams.audio, *source.streams.subtitles):
            name = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
            if can_copy(stream, suffix):
                target = result.add_stream_from_template(stream)
                rows.append(packets(film, stream.index, target))
            elif stream.type == "audio" and stream.codec_context:
                target = result.add_stream("aac", rate=min(48_000, stream.codec_context.sample_rate or 48_000))
                target.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
                rows.append(encoded_sound(film, stream.index, target))
                lost.append(f"its sound ({name}) is encoded anew as AAC, because {suffix} cannot hold it")
            else:
                lost.append(f"its {stream.type} stream ({name}) is left out, because {suffix} cannot hold it")
                continue
            target.metadata.update(
                {key: stream.metadata[key] for key in ("language", "title") if key in stream.metadata}
            )
            target.disposition = stream.disposition
        result.set_chapters(source.chapters())
        try:
            for packet in heapq.merge(*rows, key=lambda packet: packet.dts * packet.time_base):
                result.mux(packet)
        except av.ArgumentError as error:
            raise ValueError(f"{film.path} has faulty sound or subtitles, which cannot be written: {error}") from error
    return lost


def chunk_packets(path: Path, target: Any) -> Iterator[Any]:
    """Yield the packets of a chunk for another stream."""
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size and packet.dts is not None:
                packet.stream = target
                yield packet

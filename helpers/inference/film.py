"""Film files: their frames one after the other, where a shot begins, and writing them with their own sound."""

import heapq
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
LOOK = 160  # pixels on the shorter side that cuts are found at
BT709 = 1  # the number that stands for it in a file's header


class Film:
    """A film file that can be read frame by frame, upright.

    Raises FileNotFoundError for a file that is not there, ValueError for one that holds no film.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            with av.open(str(path)) as container:
                moving = [
                    stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
                ]
                if not moving:
                    raise ValueError(f"{path} holds no pictures: name a film")
                stream = moving[0]
                self.index, self.count, self.shape_of_pixels = stream.index, stream.frames, stream.sample_aspect_ratio
                self.time_base, self.rate = stream.time_base, stream.average_rate or stream.guessed_rate or 25
            self.turns = 0
            self.height, self.width = next(self.frames())[1].shape[:2]
            if self.turns % 2 and self.shape_of_pixels:
                self.shape_of_pixels = 1 / self.shape_of_pixels
        except FileNotFoundError:
            raise
        except (av.FFmpegError, StopIteration) as error:
            raise ValueError(f"{path} cannot be read as a film ({str(error) or 'it holds no frame'})") from error

    def frames(self, shorter: int | None = None, kind: str = "rgb24") -> Iterator[tuple[int, np.ndarray]]:
        """Yield the time of each frame, in units of `time_base`, and its pixels, uint8 (H, W, 3), or (H, W) if "gray".

        shorter: what their shorter side is reduced to; None for their own size. Times rise, whatever the file says. A
        film that breaks off ends there.
        """
        last = None
        with av.open(str(self.path)) as container:
            stream = container.streams[self.index]
            stream.thread_type = "AUTO"
            first = None
            for frame in self._decoded(container, stream):
                first = first or (frame.width, frame.height)  # a film may change its size
                share = min(1, (shorter or min(first)) / min(first))
                size = {"width": max(1, round(first[0] * share)), "height": max(1, round(first[1] * share))}
                step = max(1, round(1 / self.rate / self.time_base))
                time = 0 if last is None else last + step
                if frame.pts is not None:  # a filter has a time base of its own
                    time = round(frame.pts * (frame.time_base or self.time_base) / self.time_base)
                last = time if last is None else max(time, last + 1)
                self.turns = frame.rotation // 90 % 4
                yield last, np.rot90(frame.to_ndarray(format=kind, **size), self.turns)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield decoded frames, those of two half-pictures made whole; what cannot be decoded is left out."""
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
    """Return a filter that makes whole frames of two half-pictures each."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream), graph.add("yadif", "deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def pulled(graph: Any) -> Iterator[Any]:
    """Yield the frames that a filter has ready."""
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def find_cuts(frames: Iterable[np.ndarray], rate: float, content: float = 40.0, adaptive: float = 1.8) -> list[int]:
    """Return the numbers of the frames that begin a shot, from 0 on; frames: gray (H, W) uint8, rate a second.

    What two detectors of PySceneDetect find: `content` is how far a frame has to be from the last one, `adaptive` how
    many times farther than the frames around it.
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
    """Write frames, their times in units of `time_base` and pixels (H, W, 3), uint8, as H.264 to a file of a format.

    Odd sides get a pixel more. rate: frames a second, as far as there is one.
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


def packets(path: Path, index: int, target: Any) -> Iterator[Any]:
    """Yield the packets of one stream of a file, for another stream; without the empty ones that end it."""
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams[index]):
            if packet.size and packet.dts is not None:
                packet.stream = target
                yield packet


def join(chunks: list[Path], film: Film, path: Path, kind: str) -> list[str]:
    """Write chunks one after the other, and the film's sound and subtitles as they are, to a file of a format.

    Returns what was left out because the format cannot hold it.
    """
    left_out, rows = [], []
    with ExitStack() as stack:
        source = stack.enter_context(av.open(str(film.path)))
        first = stack.enter_context(av.open(str(chunks[0])))
        clock = {"movie_timescale": str(film.time_base.denominator)} if kind == "mp4" else {}
        result = stack.enter_context(av.open(str(path), "w", format=kind, options=clock))
        picture = result.add_stream_from_template(first.streams.video[0])
        rows.append(packet for chunk in chunks for packet in packets(chunk, 0, picture))
        for stream in (*source.streams.audio, *source.streams.subtitles):
            name = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
            if name not in result.supported_codecs:
                left_out.append(f"{stream.type} ({name})")
                continue
            rows.append(packets(film.path, stream.index, result.add_stream_from_template(stream)))
        for packet in heapq.merge(*rows, key=lambda packet: packet.dts * packet.time_base):
            result.mux(packet)
    return left_out

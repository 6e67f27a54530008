"""Film files, read: their frames, upright and on one clock, and where a shot begins."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

HDR = {16: "PQ", 18: "HLG"}  # transfer functions, by their numbers in a file's header
JUMP = 1.0  # seconds; larger jumps back in time begin a new part
LATE = 0.1  # seconds; a clock that starts later is set to 0
FIELDS = ("tff", "bff", "progressive")  # the upper lines come first, the lower lines, or all at once
LOOKED_AT = 60  # first frames in which interlacing is looked for


class Film:
    """A film file to be read frame by frame, upright, its clock starting at 0 and never jumping back.

    deinterlace: "always", "never", or "auto": frames that are flagged as interlaced, or all, if no frame is flagged and
    FFmpeg's idet finds the first ones interlaced. Raises ValueError for a file that is missing, that holds no film, or
    that is in HDR.
    """

    def __init__(self, path: Path | str, deinterlace: str = "auto"):
        self.path, self.yadif = Path(path), ""
        try:
            with opened(path) as container:
                moving = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
                if not moving:
                    raise ValueError(f"{path} holds no pictures: name a film")
                stream = moving[0]
                self.index, self.count, self.shape_of_pixels = stream.index, stream.frames, stream.sample_aspect_ratio
                self.time_base, self.rate = stream.time_base, stream.average_rate or stream.guessed_rate or 25
                first, found = look_for_fields(islice(self._decoded(container), LOOKED_AT), stream)
        except (av.FFmpegError, StopIteration) as error:
            raise ValueError(f"{path} cannot be read as a film ({str(error) or 'it holds no frame'})") from error
        self.yadif = {"auto": found, "always": found.replace("interlaced", "all"), "never": ""}[deinterlace]
        if first.color_trc in HDR:
            raise ValueError(
                f"{path} is in HDR ({HDR[first.color_trc]}), whose tones this project does not map. Convert it first: "
                "ffmpeg -i IN -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709,format=yuv420p OUT"
            )
        self.stored, self.matrix = (first.width, first.height), orientation(first)
        self.height, self.width = turned(np.empty(self.stored[::-1]), self.matrix).shape
        if self.shape_of_pixels and self.matrix[0, 0] == 0:
            self.shape_of_pixels = 1 / self.shape_of_pixels

    def frames(self, shorter: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the time of each frame, in units of `time_base`, and its pixels, uint8 (H, W, 3).

        shorter: pixels to reduce the shorter side to; None for their own size. A film that breaks off ends there.
        """
        share = min(1, (shorter or min(self.stored)) / min(self.stored))  # a film may change its size on the way
        size = [max(1, round(side * share)) for side in self.stored]
        step = max(1, round(1 / self.rate / self.time_base))
        time = -step
        with opened(self.path) as container:
            for frame in self._decoded(container):
                unit = frame.time_base or self.time_base  # a filter has its own
                due = time + step if frame.pts is None else round(frame.pts * unit / self.time_base)
                time = max(time + 1, due)
                yield time, turned(frame.reformat(*size, "rgb24", threads=1).to_ndarray(), self.matrix)

    def _decoded(self, container: Any) -> Iterator[Any]:
        """Yield decoded frames, deinterlaced if necessary; damaged ones are left out."""
        stream, graph = container.streams[self.index], None
        stream.thread_type = "AUTO"
        for packet in packets(container):
            if packet.stream.index == self.index:
                with suppress(av.FFmpegError):  # a damaged stretch, or the end of a film that breaks off
                    for frame in packet.decode():
                        if graph is None and self.yadif and (frame.interlaced_frame or "all" in self.yadif):
                            graph = filter_graph(stream, "yadif", self.yadif)
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


def opened(path: Path | str, *how: Any, **named: Any) -> Any:
    """Open a film as `av.open` does, but take no name for a protocol: 1950:trip.mp4 is a file."""
    return av.open(f"file:{path}", *how, **named)


def look_for_fields(frames: Iterator[Any], stream: Any) -> tuple[Any, str]:
    """Return the first of some frames, and the options for yadif: which frames are to be deinterlaced."""
    first, counts, graph = next(frames), {}, None
    for frame in chain([first], frames):
        if frame.interlaced_frame:
            return first, "deint=interlaced"
        graph = graph or filter_graph(stream, "idet")  # its format is known once a frame is decoded
        for seen in filtered(graph, frame):
            counts = {kind: float(seen.metadata[f"lavfi.idet.multiple.{kind}"]) for kind in FIELDS}
    found = max(counts, key=counts.get, default="progressive")
    sure = counts and counts[found] > 3 + 2 * (sum(counts.values()) - counts[found])
    return first, f"deint=all:parity={found}" if sure and found != "progressive" else "deint=interlaced"


def filter_graph(stream: Any, *filter_: str) -> Any:
    """Return a graph of one of FFmpeg's filters, given its name and options, for the frames of a stream."""
    graph = av.filter.Graph()
    graph.link_nodes(graph.add_buffer(template=stream), graph.add(*filter_), graph.add("buffersink")).configure()
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
    from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode  # only here: its import takes a second

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


def orientation(frame: Any) -> np.ndarray:
    """Return the signs (2, 2) of a frame's display matrix: which way its rows and columns are to be shown."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return np.sign(np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]) if data else np.eye(2, dtype=int)


def turned(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return pixels (H, W) or (H, W, 3) as a display matrix shows them, in one of eight orientations."""
    (a, b), (c, d) = matrix
    if a == 0 and d == 0:  # columns become rows
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])

"""Films of every kind, made on the spot: with sound, without, rotated, broken off."""

from fractions import Fraction

import av
import cv2
import numpy as np
from bench.measures import pan
from skimage import data

from helpers.apps.film_reader import Film
from helpers.color import rgb_to_L_ab
from helpers.data.photos import to_tensor

TONE = 440  # Hz


def shots(*lengths, size=(72, 96)):
    """Frames (H, W, 3) of as many shots as there are lengths, each a camera that moves over another photo."""
    photos = [data.coffee(), data.chelsea(), data.astronaut(), data.rocket()]
    return [frame for i, length in enumerate(lengths) for frame in pan(photos[i % 4], length, size, turn=0.5)[0]]


def write(path, frames, times=None, rate=25, sound=(), codec="libx264", options=None, **settings):
    """Write a film. times: of the frames, in units of 1/12800 s; sound: a codec for each track.

    options: of the encoder; settings: of the video's codec context.
    """
    base = Fraction(1, 12800)
    with av.open(str(path), "w") as film:
        picture = film.add_stream(codec, rate, options={"bf": "0"} | (options or {}))  # as `film.QUALITY`: repeatable
        picture.height, picture.width = frames[0].shape[:2]
        picture.pix_fmt, picture.time_base = "yuv420p", base
        for name, value in settings.items():
            setattr(picture, name, value)
        picture.codec_context.time_base = base
        tracks = [film.add_stream(name, 48000, layout="stereo") for name in sound]
        for i, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = (times[i] if times is not None else 512 * i), base
            film.mux(picture.encode(frame))
        film.mux(picture.encode())
        for k, track in enumerate(tracks):
            seconds = np.arange(48000 * len(frames) // rate) / 48000
            wave = (8000 * np.sin(2 * np.pi * TONE * (k + 1) * seconds)).astype(np.int16)
            tone = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
            tone.sample_rate, tone.pts = 48000, 0
            film.mux(track.encode(tone))
            film.mux(track.encode())
    return path


def interlaced(count=16, size=(96, 120)):
    """Frames whose lines come from two moments, as of a camcorder, and what the first moments looked like."""
    photo = cv2.resize(data.coffee(), (400, 200))[20 : 20 + size[0]]
    moments = [photo[:, 3 * i : 3 * i + size[1]] for i in range(2 * count)]
    lines = np.arange(size[0])[:, None, None] % 2 == 0
    return [np.where(lines, *pair) for pair in zip(moments[::2], moments[1::2], strict=True)], moments[::2]


def changed(source, target, change, **added):
    """Copy a film packet by packet, each after a change; added: name and content of attachments."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        for name, content in added.items():
            new.add_attachment(name, "font/ttf" if "font" in name else "image/jpeg", content)
        for packet in old.demux():
            if packet.size:
                packet, stream = change(packet), streams[packet.stream]
                packet.stream = stream
                new.mux(packet)
    return target


def packets(path, kind):
    """What a film's tracks of a kind hold: a list of (time in seconds, bytes) for each."""
    with av.open(str(path)) as film:
        streams = [stream.index for stream in film.streams if stream.type == kind]
    found = []
    for index in streams:
        with av.open(str(path)) as film:
            read = film.demux(film.streams[index])
            found.append([(float(p.pts * p.time_base), bytes(p)) for p in read if p.size])
    return found


def pictures(path):
    """The frames of a film, as they are read."""
    return [rgb for _, rgb in Film(path).frames()]


def ab_of(rgb):
    """The ab (H, W, 2) of a frame, in [-1, 1]."""
    return rgb_to_L_ab(to_tensor(rgb))[1][0].permute(1, 2, 0).numpy()

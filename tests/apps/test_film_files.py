"""Films of every kind are read upright and in time, and written with their own sound; what is none is a clear error."""

import struct
import wave
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import films
import numpy as np
import odd_photos
import pytest
from films import pictures

from helpers.apps.film_reader import Film, find_cuts
from helpers.apps.film_writer import mux, target_suffix, write_film


@pytest.fixture(scope="module")
def frames():
    return films.shots(6, 6)


def seconds_of(path):
    film = Film(path)
    return np.array([float(time * film.time_base) for time, _ in film.frames()])


def copied(path, target, length=None):
    """Write a film's frames in chunks of a length, and mux them with all else; returns the notes."""
    film, chunks = Film(path), []
    given = list(film.frames())
    for i in range(0, len(given), length or len(given)):
        chunks.append(target.with_name(f"{i}.nut"))
        write_film(chunks[-1], given[i : i + (length or len(given))], film.time_base, film.rate, "nut")
    return mux(chunks, film, target)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_frames_come_at_their_own_times_and_sizes(name, frames, tmp_path):
    times = np.cumsum(np.random.default_rng(0).integers(200, 2000, len(frames)))
    path = films.write(tmp_path / name, frames, times.tolist())
    seconds, film = seconds_of(path), Film(path)
    np.testing.assert_allclose(seconds, (times - times[0]) / 12800, atol=1e-3)  # the clock starts at 0
    assert (film.height, film.width) == pictures(path)[0].shape[:2] == (72, 96) and np.diff(seconds).min() > 0
    assert np.abs(pictures(path)[3].astype(int) - frames[3]).mean() < 8
    assert [rgb.shape for _, rgb in film.frames(36)] == len(frames) * [(36, 48, 3)]


ORIENTATIONS = {  # a, b, c, d of the display matrix: what a player does with the stored picture
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, -1, -1, 0): lambda p: p.swapaxes(0, 1)[::-1, ::-1],
}


@pytest.mark.parametrize("signs", ORIENTATIONS)
def test_all_eight_orientations_come_upright(signs, frames, tmp_path):
    path = films.write(tmp_path / "film.mp4", frames[:2])
    plain, content = pictures(path)[0], bytearray(path.read_bytes())
    a, b, c, d = (sign << 16 for sign in signs)
    x, y = (96 if signs[0] < 0 or signs[1] < 0 else 0), (72 if signs[2] < 0 or signs[3] < 0 else 0)
    start = content.index(b"tkhd") + 4 + 40  # the matrix in the track's header, where telephones write it
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, x << 16, y << 16, 1 << 30)
    path.write_bytes(content)
    np.testing.assert_array_equal(pictures(path)[0], ORIENTATIONS[signs](plain))
    assert Film(path).height == pictures(path)[0].shape[0]


def test_clocks_that_start_late_or_jump_back_are_repaired_for_pictures_and_sound(frames, tmp_path):
    late = films.write(tmp_path / "late.mkv", frames, [46_080_000 + 512 * i for i in range(len(frames))])
    np.testing.assert_allclose(seconds_of(late), np.arange(len(frames)) / 25, atol=2e-3)
    part = films.write(tmp_path / "part.ts", films.shots(40), sound=["mp2"])
    (tmp_path / "joined.ts").write_bytes(2 * part.read_bytes())  # as the files of a DVD
    seconds = seconds_of(tmp_path / "joined.ts")
    steps = np.diff(seconds)
    assert len(seconds) == 80 and 0 <= seconds[0] < 0.1
    assert np.abs(np.delete(steps, 39) - 0.04).max() < 1e-3 and 0.03 < steps[39] < 0.2
    assert copied(tmp_path / "joined.ts", tmp_path / "out.mp4") == []
    times = [time for time, _ in films.packets(tmp_path / "out.mp4", "audio")[0]]
    assert np.diff(times).min() > 0 and abs(times[-1] - seconds[-1]) < 0.2


def test_sound_that_a_format_cannot_hold_is_encoded_anew_or_gets_another_format(frames, tmp_path):
    source = films.write(tmp_path / "camera.avi", frames, sound=["pcm_s16le"], codec="mpeg4")
    assert target_suffix(source) == ".mkv"
    assert copied(source, tmp_path / "copied.mkv") == []
    assert films.packets(tmp_path / "copied.mkv", "audio")[0][0][1] == films.packets(source, "audio")[0][0][1]
    (note,) = copied(source, tmp_path / "aac.mp4")
    with av.open(str(tmp_path / "aac.mp4")) as result:
        assert result.streams.audio[0].codec_context.name == "aac" and "AAC" in note
        waves = np.concatenate([frame.to_ndarray() for frame in result.decode(audio=0)], axis=1)[0]
    tone = np.abs(np.fft.rfft(waves)).argmax() * 48000 / len(waves)
    assert abs(tone - films.TONE) < 10


@pytest.mark.parametrize(("suffix", "lost"), [(".mkv", []), (".mp4", ["subtitle stream (subrip) is left out"])])
def test_titles_languages_chapters_and_subtitles_stay_or_are_named(suffix, lost, frames, tmp_path):
    (tmp_path / "lines.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nGood evening.\n")
    plain = films.write(tmp_path / "plain.mkv", frames, sound=["aac", "aac"])
    chapter = {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "Picnic"}}
    with av.open(str(tmp_path / "film.mkv"), "w") as film, av.open(str(plain)) as rest:
        parts = rest, av.open(str(tmp_path / "lines.srt"))
        targets = {stream: film.add_stream_from_template(stream) for part in parts for stream in part.streams}
        film.metadata["title"] = "Grandpa 1962"
        for language, stream in zip(("fra", "eng"), film.streams.audio, strict=True):
            stream.metadata["language"] = language
        film.set_chapters([chapter])
        for packet in (packet for part in parts for packet in part.demux() if packet.size):
            packet.stream = targets[packet.stream]
            film.mux(packet)
    notes = copied(tmp_path / "film.mkv", tmp_path / f"out{suffix}")
    assert len(notes) == len(lost) and all(text in note for text, note in zip(lost, notes, strict=True))
    with av.open(str(tmp_path / f"out{suffix}")) as result:
        assert result.metadata["title"] == "Grandpa 1962"
        assert [stream.language for stream in result.streams.audio] == ["fra", "eng"]
        assert [each["metadata"]["title"] for each in result.chapters()] == ["Picnic"]
    texts = [data for track in films.packets(tmp_path / f"out{suffix}", "subtitle") for _, data in track]
    assert texts == ([] if lost else [b"Good evening."])


def combed(frames):
    """How much each line differs from the lines around it."""
    lines = np.array(frames).astype(float).mean(-1)
    return np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean()


@pytest.mark.parametrize(
    ("flag", "how", "whole"),
    [
        ("tff=1", "auto", True),
        ("", "auto", True),
        ("", "always", True),
        ("", "never", False),
        ("tff=1", "never", False),
    ],
)
def test_half_pictures_are_made_whole(flag, how, whole, tmp_path):
    frames, moments = films.interlaced()
    path = films.write(tmp_path / "old.mkv", frames, options={"x264-params": flag, "crf": "8"})
    found = [rgb for _, rgb in Film(path, how).frames()]
    assert (combed(found) < 1.3 * combed(moments)) == whole and combed(frames) > 2 * combed(moments)
    np.testing.assert_allclose(seconds_of(path), np.arange(16) / 25, atol=1e-3)


def doubled(packet):
    """A packet of sound with the time stamp of the one before."""
    if packet.stream.type == "audio":
        packet.pts = packet.dts = packet.dts // 2048 * 2048
    return packet


def spoiled(packet, first=0):
    """A packet of sound that cannot be decoded, from a time stamp on."""
    if packet.stream.type != "audio" or packet.dts < first:
        return packet
    spoiled = av.Packet(bytes(range(40, 120)))
    spoiled.pts, spoiled.dts, spoiled.time_base = packet.pts, packet.dts, packet.time_base
    return spoiled


@pytest.mark.parametrize(
    ("change", "attached", "sound", "notes"),
    [
        (doubled, {}, 1, []),
        (spoiled, {}, 0, ["sound cannot be decoded"]),
        (partial(spoiled, first=200), {}, 1, ["faulty packets"]),
        (lambda packet: packet, {"title font.ttf": b"font"}, 1, []),
        (lambda packet: packet, {"cover.jpg": odd_photos.originals()[0]}, 1, ["cover picture"]),
    ],
)
def test_faulty_sound_costs_no_picture_and_attachments_come_along_or_are_named(
    change, attached, sound, notes, frames, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # and names with a colon are no protocols
    source = films.changed(films.write(tmp_path / "whole.mkv", frames, sound=["aac"]), "odd.mkv", change, **attached)
    source = Path(source).rename("1950:trip.mkv")
    found = copied(source, Path("in:color.mkv"))
    assert len(found) == len(notes) and all(text in note for text, note in zip(notes, found, strict=True))
    assert len(pictures("in:color.mkv")) == len(frames)
    with av.open(str(tmp_path / "in:color.mkv")) as result:
        assert len(result.streams.audio) == sound and len(result.streams.attachments) == len(attached) - (
            "cover" in str(attached)
        )
        assert sound == 0 or sum(frame.samples for frame in result.decode(audio=0)) > 9000


@pytest.mark.parametrize("size", [(71, 97), (33, 35), (2, 500)])
def test_odd_sizes_grow_by_one(size, tmp_path):
    write_film(tmp_path / "odd.mp4", enumerate(films.shots(3, size=size)), Fraction(1, 25), 25)
    even = size[0] + size[0] % 2, size[1] + size[1] % 2
    assert [rgb.shape[:2] for rgb in pictures(tmp_path / "odd.mp4")] == 3 * [even]


def test_one_frame_is_a_film_and_ten_bits_are_read(frames, tmp_path):
    (found,) = pictures(films.write(tmp_path / "deep.mkv", frames[:1], pix_fmt="yuv420p10le"))
    assert np.abs(found.astype(int) - frames[0]).mean() < 8


def test_a_film_that_breaks_off_ends_there(tmp_path):
    content = films.write(tmp_path / "whole.mkv", films.shots(40, 40)).read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    assert 5 < len(pictures(tmp_path / "half.mkv")) < 80


def test_what_is_no_film_is_a_clear_error(frames, tmp_path):
    films.write(tmp_path / "hdr.mkv", frames, color_trc=16)
    headless = films.write(tmp_path / "a.mp4", frames).read_bytes()
    for name, content in {
        "cut.mp4": headless[: len(headless) // 2],
        "text.mp4": b"no\n" * 99,
        "empty.mp4": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    with wave.open(str(tmp_path / "song.wav"), "wb") as song:
        song.setparams((1, 2, 8000, 0, "NONE", ""))
        song.writeframes(bytes(16000))
    for name, message in {
        "cut.mp4": "cut.mp4 cannot be read as a film",
        "text.mp4": "text.mp4 cannot be read as a film",
        "empty.mp4": "empty.mp4 cannot be read as a film",
        "song.wav": "song.wav holds no pictures",
        "nowhere.mp4": "No such file",
        "hdr.mkv": "HDR .PQ.*Convert it first",
    }.items():
        with pytest.raises(ValueError, match=message):
            Film(tmp_path / name)


@pytest.mark.parametrize("sound", [(), ("aac",), ("aac", "mp3")])
def test_chunks_are_joined_with_the_films_own_sound(frames, tmp_path, sound):
    times = np.cumsum(np.random.default_rng(1).integers(200, 900, len(frames))).tolist()
    source, target = films.write(tmp_path / "film.mp4", frames, times, sound=sound), tmp_path / "joined.mp4"
    assert copied(source, target, 5) == []
    with av.open(str(target)) as film:
        frame = next(film.decode(video=0))
        assert frame.colorspace == 1 and frame.color_range == 1  # BT.709, as players take it
    np.testing.assert_allclose(seconds_of(target), seconds_of(source), atol=1e-6)
    np.testing.assert_array_equal(pictures(target), [p for i in (0, 5, 10) for p in pictures(tmp_path / f"{i}.nut")])
    ours, theirs = (films.packets(path, "audio") for path in (target, source))
    assert [[data for _, data in track] for track in ours] == [[data for _, data in track] for track in theirs]
    for track, own in zip(ours, theirs, strict=True):
        np.testing.assert_allclose([time for time, _ in track], [time for time, _ in own], atol=1e-4)
    assert len(ours) == len(sound)


def test_cuts_are_found_and_a_camera_that_moves_is_none():
    grays = [frame.mean(2).astype(np.uint8) for frame in films.shots(20, 15, 9, 30, size=(90, 160))]
    for some, cuts in ((grays, [0, 20, 35, 44]), (grays[:20], [0]), ([], [0]), (grays[:1], [0])):
        assert find_cuts(some, 25) == cuts

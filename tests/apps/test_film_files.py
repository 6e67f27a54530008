"""Films of every kind are read upright and in time, and written with their own sound; what is none is a clear error."""

import struct
import wave
from fractions import Fraction

import av
import films
import numpy as np
import pytest

from helpers.apps.film_reader import Film, find_cuts
from helpers.apps.film_writer import mux, target_suffix, write_film


@pytest.fixture(scope="module")
def frames():
    return films.shots(6, 6)


def read(path):
    film = Film(path)
    return [float(time * film.time_base) for time, _ in film.frames()], [rgb for _, rgb in film.frames()], film


def test_frames_come_at_their_own_times_and_sizes(frames, tmp_path):
    times = np.cumsum(np.random.default_rng(0).integers(200, 2000, len(frames))).tolist()
    for name in ("film.mp4", "film.mkv"):
        seconds, pictures, film = read(films.write(tmp_path / name, frames, times))
        wanted = (np.array(times) - times[0]) / 12800  # the clock starts at 0
        assert np.abs(np.array(seconds) - wanted).max() < 1e-3 and np.diff(seconds).min() > 0
        assert (film.height, film.width) == pictures[0].shape[:2] == (72, 96)
        assert np.abs(pictures[3].astype(int) - frames[3]).mean() < 8
    small = [gray for _, gray in film.frames(36, "gray")]
    assert small[0].shape == (36, 48) and len(small) == len(frames)


def turned(path, matrix):
    """Write a matrix into the header of a film's track, as telephones do."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    return path


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
    a, b, c, d = (sign << 16 for sign in signs)
    plain = read(films.write(tmp_path / "plain.mp4", frames[:2]))[1][0]
    x, y = (96 if signs[0] < 0 or signs[1] < 0 else 0), (72 if signs[2] < 0 or signs[3] < 0 else 0)
    path = turned(films.write(tmp_path / "turned.mp4", frames[:2]), (a, b, 0, c, d, 0, x << 16, y << 16, 1 << 30))
    _, pictures, film = read(path)
    np.testing.assert_array_equal(pictures[0], ORIENTATIONS[signs](plain))
    assert film.height == pictures[0].shape[0]


def test_clocks_that_start_late_or_jump_back_are_repaired_for_pictures_and_sound(frames, tmp_path):
    late = films.write(tmp_path / "late.mkv", frames, [46_080_000 + 512 * i for i in range(len(frames))])
    np.testing.assert_allclose(read(late)[0], np.arange(len(frames)) / 25, atol=2e-3)
    long = films.shots(40)
    part = films.write(tmp_path / "part.ts", long, sound=["mp2"])
    (tmp_path / "joined.ts").write_bytes(2 * part.read_bytes())  # as the files of a DVD
    seconds, _, film = read(tmp_path / "joined.ts")
    assert len(seconds) == 80 and 0 <= seconds[0] < 0.1
    steps = np.diff(seconds)
    assert np.abs(np.delete(steps, 39) - 0.04).max() < 1e-3 and 0.03 < steps[39] < 0.2
    chunk = tmp_path / "0.nut"
    write_film(chunk, film.frames(), film.time_base, film.rate, "nut")
    assert mux([chunk], film, tmp_path / "out.mp4") == []
    (sound,) = films.packets(tmp_path / "out.mp4", "audio")
    times = [time for time, _ in sound]
    assert np.diff(times).min() > 0 and abs(times[-1] - seconds[-1]) < 0.2


def test_sound_that_a_format_cannot_hold_is_encoded_anew_or_gets_another_format(frames, tmp_path):
    source = films.write(tmp_path / "camera.avi", frames, sound=["pcm_s16le"], codec="mpeg4")
    assert target_suffix(source) == ".mkv"
    film, chunk = Film(source), tmp_path / "0.nut"
    write_film(chunk, film.frames(), film.time_base, film.rate, "nut")
    assert mux([chunk], film, tmp_path / "copied.mkv") == []
    assert films.packets(tmp_path / "copied.mkv", "audio")[0][0][1] == films.packets(source, "audio")[0][0][1]
    (note,) = mux([chunk], film, tmp_path / "aac.mp4")
    with av.open(str(tmp_path / "aac.mp4")) as result:
        assert result.streams.audio[0].codec_context.name == "aac" and "AAC" in note
        waves = np.concatenate([frame.to_ndarray() for frame in result.decode(audio=0)], axis=1)[0]
    tone = np.abs(np.fft.rfft(waves)).argmax() * 48000 / len(waves)
    assert abs(tone - films.TONE) < 10


def test_titles_languages_and_chapters_stay(frames, tmp_path):
    plain = films.write(tmp_path / "plain.mkv", frames, sound=["aac", "aac"])
    with av.open(str(plain)) as source, av.open(str(tmp_path / "film.mkv"), "w") as film:
        targets = {stream.index: film.add_stream_from_template(stream) for stream in source.streams}
        film.metadata["title"] = "Grandpa 1962"
        for language, stream in zip(("fra", "eng"), film.streams.audio, strict=True):
            stream.metadata["language"] = language
        chapter = {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "Picnic"}}
        film.set_chapters([chapter])
        for packet in source.demux():
            if packet.size:
                packet.stream = targets[packet.stream_index]
                film.mux(packet)
    source, chunk = Film(tmp_path / "film.mkv"), tmp_path / "0.nut"
    write_film(chunk, source.frames(), source.time_base, source.rate, "nut")
    for suffix in (".mkv", ".mp4"):
        assert mux([chunk], source, tmp_path / f"out{suffix}") == []
        with av.open(str(tmp_path / f"out{suffix}")) as result:
            assert result.metadata["title"] == "Grandpa 1962"
            assert [stream.language for stream in result.streams.audio] == ["fra", "eng"]
            assert [each["metadata"]["title"] for each in result.chapters()] == ["Picnic"]


def test_high_dynamic_range_is_refused_with_the_reason(frames, tmp_path):
    path = films.write(tmp_path / "hdr.mkv", frames, color_trc=16)
    with pytest.raises(ValueError, match="HDR .PQ.*Convert it first"):
        Film(path)


def test_half_pictures_are_made_whole(tmp_path):
    first, second = films.shots(2, size=(72, 96))
    for i in range(72):
        first[i] = 255 * (i % 2)  # two fields, one black and one white
    path = films.write(tmp_path / "old.mkv", [first] * 8, options={"x264-params": "tff=1", "crf": "5"})
    with av.open(str(path)) as film:
        assert next(film.decode(video=0)).interlaced_frame
    seconds, pictures, _ = read(path)
    np.testing.assert_allclose(seconds, np.arange(8) / 25, atol=1e-3)
    rows = pictures[4].mean((1, 2))
    assert np.abs(np.diff(rows))[10:-10].mean() < 60  # was 255
    assert second.shape == (72, 96, 3)


@pytest.mark.parametrize("odd", [(71, 97), (33, 35), (2, 500)])
def test_odd_sizes_and_ten_bits(odd, tmp_path):
    frames = films.shots(3, size=odd)
    path = tmp_path / "odd.mp4"
    film = films.write(tmp_path / "source.mkv", [np.pad(f, ((0, odd[0] % 2), (0, odd[1] % 2), (0, 0))) for f in frames])
    write_film(path, ((512 * i, frame) for i, frame in enumerate(frames)), Film(film).time_base, 25)
    _, pictures, _ = read(path)
    assert len(pictures) == 3 and pictures[0].shape[:2] == (odd[0] + odd[0] % 2, odd[1] + odd[1] % 2)
    if odd == (71, 97):
        deep = films.write(tmp_path / "deep.mkv", pictures, pix_fmt="yuv420p10le")
        assert np.abs(read(deep)[1][0].astype(int) - pictures[0]).mean() < 4


def test_one_frame_is_a_film(tmp_path):
    assert len(read(films.write(tmp_path / "one.mp4", films.shots(1)))[0]) == 1


def test_a_film_that_breaks_off_ends_there_and_what_is_none_is_a_clear_error(frames, tmp_path):
    whole = films.write(tmp_path / "whole.mkv", films.shots(40, 40))
    content = whole.read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    assert 5 < len(read(tmp_path / "half.mkv")[0]) < 80
    films.write(tmp_path / "a.mp4", frames)
    headless = (tmp_path / "a.mp4").read_bytes()
    for name, data in {
        "cut.mp4": headless[: len(headless) // 2],
        "text.mp4": b"no film\n" * 99,
        "empty.mp4": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} cannot be read as a film"):
            Film(tmp_path / name)
    with wave.open(str(tmp_path / "song.wav"), "wb") as song:
        song.setparams((1, 2, 8000, 0, "NONE", ""))
        song.writeframes(bytes(16000))
    with pytest.raises(ValueError, match="song.wav holds no pictures"):
        Film(tmp_path / "song.wav")
    with pytest.raises(ValueError, match="No such file"):
        Film(tmp_path / "nowhere.mp4")


@pytest.mark.parametrize("sound", [(), ("aac",), ("aac", "mp3")])
def test_chunks_are_joined_with_the_films_own_sound(frames, tmp_path, sound):
    times = np.cumsum(np.random.default_rng(1).integers(200, 900, len(frames))).tolist()
    film = Film(films.write(tmp_path / "film.mp4", frames, times, sound=sound))
    chunks, given = [], list(film.frames())
    for i in range(0, len(frames), 5):
        chunks.append(tmp_path / f"{i}.nut")
        write_film(chunks[-1], given[i : i + 5], film.time_base, film.rate, "nut")
    with av.open(str(chunks[0])) as first:
        frame = next(first.decode(video=0))
        assert frame.colorspace == 1 and frame.color_range == 1  # BT.709, as players take it
    assert mux(chunks, film, tmp_path / "joined.mp4") == []
    seconds, pictures, _ = read(tmp_path / "joined.mp4")
    np.testing.assert_allclose(seconds, read(film.path)[0], atol=1e-6)
    apart = [frame for chunk in chunks for frame in read(chunk)[1]]
    assert all((ours == theirs).all() for ours, theirs in zip(pictures, apart, strict=True))
    ours, theirs = (films.packets(path, "audio") for path in (tmp_path / "joined.mp4", film.path))
    assert len(ours) == len(sound)
    for track, own in zip(ours, theirs, strict=True):
        assert [data for _, data in track] == [data for _, data in own]
        np.testing.assert_allclose([time for time, _ in track], [time for time, _ in own], atol=1e-4)


def test_what_a_format_cannot_hold_is_left_out_and_named(frames, tmp_path):
    (tmp_path / "lines.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nGood evening.\n")
    silent = films.write(tmp_path / "silent.mkv", frames)
    with (
        av.open(str(silent)) as pictures,
        av.open(str(tmp_path / "lines.srt")) as lines,
        av.open(str(tmp_path / "film.mkv"), "w") as film,
    ):
        targets = [film.add_stream_from_template(part.streams[0]) for part in (pictures, lines)]
        for part, target in zip((pictures, lines), targets, strict=True):
            for packet in part.demux():
                if packet.size:
                    packet.stream = target
                    film.mux(packet)
    source = Film(tmp_path / "film.mkv")
    chunk = tmp_path / "0.nut"
    write_film(chunk, source.frames(), source.time_base, source.rate, "nut")
    assert mux([chunk], source, tmp_path / "joined.mp4") == [
        "its subtitle stream (subrip) is left out, because .mp4 cannot hold it"
    ]
    assert mux([chunk], source, tmp_path / "joined.mkv") == []
    assert films.packets(tmp_path / "joined.mkv", "subtitle")[0][0][1] == b"Good evening."


def test_cuts_are_found_and_a_camera_that_moves_is_none():
    grays = [frame.mean(2).astype(np.uint8) for frame in films.shots(20, 15, 9, 30, size=(90, 160))]
    assert find_cuts(grays, 25) == [0, 20, 35, 44]
    assert find_cuts(grays[:20], 25) == [0] and find_cuts([], 25) == [0] and find_cuts(grays[:1], 25) == [0]

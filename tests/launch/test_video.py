"""Films through the door that colours: frames, times, sound and the measure of flicker."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import colortrain
from launch.colorize import main
from launch.image_jobs import Job, Outcome
from launch.video import Flicker, check_video, colorize_film
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.sources.decode import fit_image
from tests.support.small_run import small_run
from tests.support.small_shard_set import photograph

av: Any = pytest.importorskip("av", reason="films need colortrain[video]")

FRAMES, RATE = 12, 10


def write_film(path: Path, sound: str | None = "aac", seconds: int = 1) -> Path:
    """A window that moves over the cat, 1.2 s, with a tone of so many seconds."""
    cat = photograph("chelsea")
    with av.open(str(path), "w") as film:
        pictures = film.add_stream("libx264", rate=RATE, options={"crf": "10"})
        pictures.width, pictures.height, pictures.pix_fmt = 160, 120, "yuv420p"
        tones = film.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(
                cat[40:160, 60 + 4 * number : 220 + 4 * number], format="rgb24"
            )
            film.mux(pictures.encode(frame))
        film.mux(pictures.encode(None))
        if tones:
            wave = (np.sin(np.arange(44100 * seconds) / 10)[None] * 0.3).astype(np.float32)
            made = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            made.sample_rate, made.pts, made.time_base = 44100, 0, Fraction(1, 44100)
            resampler = av.AudioResampler(format=tones.format, layout="mono", rate=44100)
            for piece in resampler.resample(made):
                film.mux(tones.encode(piece))
            film.mux(tones.encode(None))
    return path


def read_film(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """Frames, their times in seconds, and the sound's packets."""
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    with av.open(str(path)) as film:
        sound = (
            [bytes(packet) for packet in film.demux(audio=0) if packet.size]
            if film.streams.audio
            else []
        )
    return pictures, [frame.time for frame in frames], sound


def write_plain(
    path: Path,
    times: Sequence[int] = (0, 40),
    size: tuple[int, int] = (64, 48),
    matrix: str = "ITU601",
    levels: str = "MPEG",
    tags: Sequence[int] = (),
    wide: Fraction = Fraction(1),
) -> Path:
    """A green picture, at these milliseconds, coded by `matrix`, which `tags` may tell or not; its pixels so `wide`."""
    width, height = size
    green = av.VideoFrame.from_ndarray(
        np.full((height, width, 3), (30, 160, 60), np.uint8), format="rgb24"
    )
    with av.open(str(path), "w") as film:
        pictures = film.add_stream(
            "libx264", rate=30, options={"crf": "1"}, time_base=Fraction(1, 1000)
        )
        pictures.width, pictures.height, pictures.color_range = (
            width,
            height,
            2 if levels == "JPEG" else 1,
        )
        pictures.sample_aspect_ratio = wide
        if tags:
            pictures.colorspace, pictures.color_primaries, pictures.color_trc = tags
        for time in times:
            frame = green.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=levels)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            film.mux(pictures.encode(frame))
        film.mux(pictures.encode(None))
    return path


class Own:
    """In a network's place: gives pictures their own colours back."""

    def predict_ab(self, images: Sequence[Image.Image], dropout: bool | None = None) -> np.ndarray:
        return np.stack(
            [rgb_to_lab(np.asarray(fit_image(image, 16, "squash")))[1:] for image in images]
        )


def recoded(film: Path, target: Path) -> Outcome:
    """What comes of a film that gets its own colours back."""
    network: Any = Own()
    colorize_film(Job(film, (target,)), {"own": network}, 8, False, outcome := Outcome())
    return outcome


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "run"
    small_run(folder)
    return folder


def test_a_film_keeps_its_frames_times_and_sound(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_film(tmp_path / "cat.mp4")
    out = tmp_path / "out"
    assert main(["--run", str(run), "--out", str(out), str(film), "--batch-size", "5"]) == 0
    assert [path.name for path in out.iterdir()] == ["cat.mp4"]
    before, times, sound = read_film(film)
    after, same_times, same_sound = read_film(out / "cat.mp4")
    assert (len(after), same_times) == (FRAMES, times)
    assert same_sound == sound
    assert len(sound) > 10
    network = colortrain.load(run)
    for one, other in zip(before, after, strict=True):
        expected = network.colorize(one, dropout=False).astype(int)
        assert np.abs(expected - other).mean() < 6, "but for H.264's own loss"
        assert np.abs(rgb_to_lab(one)[0] - rgb_to_lab(other)[0]).mean() < 3
    said = capsys.readouterr().out
    assert "cat.mp4 by run: 12 frames, flicker " in said
    with pytest.raises(UserError, match=r"cat\.mp4 exists"):
        main(["--run", str(run), "--out", str(out), str(film)])


def test_a_film_without_sound_or_with_one_that_mp4_cannot_hold(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, raw = (
        write_film(tmp_path / "silent.mp4", sound=None),
        write_film(tmp_path / "raw.mkv", "pcm_s16le", seconds=4),
    )
    assert main(["--run", str(run), "--out", str(tmp_path / "out"), str(silent), str(raw)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("without its sound, which MP4 cannot hold") for line in lines[:2]] == [
        False,
        True,
    ]
    assert [len(read_film(tmp_path / "out" / name)[0]) for name in ("silent.mp4", "raw.mp4")] == [
        FRAMES,
        FRAMES,
    ]


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    steady = [round(number * 1000 / 30) for number in range(30)]
    times = [*steady[:11], *steady[12:], 1600, 1637, 2500]  # one picture dropped, then pauses
    film = write_plain(tmp_path / "phone.mkv", times)
    assert recoded(film, tmp_path / "phone.mp4").failures == []
    for path in (film, tmp_path / "phone.mp4"):
        with av.open(str(path)) as opened:
            assert [frame.pts * frame.time_base * 1000 for frame in opened.decode(video=0)] == times


@pytest.mark.parametrize(
    ("size", "matrix", "levels", "tags", "told"),
    [
        ((1280, 720), "ITU709", "MPEG", (1, 1, 1), (1, 1, 1, 1)),
        ((1280, 720), "ITU709", "MPEG", (), (1, 1, 1, 1)),
        ((1280, 720), "ITU601", "MPEG", (5, 5, 6), (6, 1, 5, 6)),
        ((64, 48), "ITU601", "MPEG", (), (6, 1, 6, 6)),
        ((64, 48), "ITU709", "JPEG", (1, 1, 13), (1, 1, 1, 13)),  # a telephone's full range
    ],
    ids=["HD", "untagged HD", "HD of PAL", "untagged SD", "full range"],
)
def test_colours_that_go_in_come_out(
    tmp_path: Path,
    size: tuple[int, int],
    matrix: str,
    levels: str,
    tags: Sequence[int],
    told: Sequence[int],
) -> None:
    film = write_plain(tmp_path / "film.mkv", size=size, matrix=matrix, levels=levels, tags=tags)
    assert recoded(film, tmp_path / "film.mp4").failures == []
    with av.open(str(film)) as before, av.open(str(tmp_path / "film.mp4")) as after:
        out = after.streams.video[0]
        assert (out.colorspace, out.color_range, out.color_primaries, out.color_trc) == told
        first = [next(opened.decode(video=0)) for opened in (before, after)]
    one, other = (
        each.to_ndarray(format="rgb24", src_colorspace=matrix).astype(int) for each in first
    )
    assert np.abs(one - (30, 160, 60)).max() <= 3, "the film itself, rounded and coded"
    assert np.abs(one - other).max() <= 2


def turn(film: Path) -> None:
    """Turn an MP4 by 90 degrees, in the matrix of its track's header (ISO/IEC 14496-12, 8.3.2)."""
    data = film.read_bytes()
    start = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    film.write_bytes(data[:start] + matrix + data[start + len(matrix) :])


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_stay_so(tmp_path: Path, turned: bool) -> None:
    film = write_plain(tmp_path / "dvd.mp4", wide=Fraction(64, 45))
    if turned:
        turn(film)
    assert recoded(film, tmp_path / "out.mp4").failures == []
    with av.open(str(tmp_path / "out.mp4")) as opened:
        out = opened.streams.video[0]
        shape = (out.width, out.height, out.sample_aspect_ratio)
    assert shape == ((48, 64, Fraction(45, 64)) if turned else (64, 48, Fraction(64, 45)))


def test_what_is_no_film_is_listed_and_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no film at all")
    assert (
        main(["--run", str(run), "--out", str(tmp_path / "out"), str(tmp_path / "broken.mp4")]) == 1
    )
    assert f"not coloured: {tmp_path / 'broken.mp4'}: " in capsys.readouterr().err
    assert list(tmp_path.rglob("*.mp4*")) == [tmp_path / "broken.mp4"]


def test_a_film_without_a_picture_leaves_what_is_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_plain(tmp_path / "head.mkv").read_bytes()
    cluster = whole.index(b"\x1f\x43\xb6\x75")  # its identifier: RFC 9559, 5.1.3
    (tmp_path / "head.mkv").write_bytes(whole[: cluster + 20])
    (tmp_path / "head.mp4").write_bytes(b"good")
    assert (
        main(["--run", str(run), "--out", str(tmp_path), "--force", str(tmp_path / "head.mkv")])
        == 1
    )
    assert "head.mkv: no picture in it could be read" in capsys.readouterr().err
    assert (tmp_path / "head.mp4").read_bytes() == b"good"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_film_that_was_cut_is_said_to_be(tmp_path: Path) -> None:
    film = write_plain(tmp_path / "film.mkv", range(0, 4000, 40))
    assert "could be read" not in recoded(film, tmp_path / "film.mp4").lines[0]
    whole = film.read_bytes()
    film.write_bytes(whole[: len(whole) // 2])
    said = recoded(film, tmp_path / "film.mp4").lines[0]
    assert re.search(r"; what could be read ends at [012]\.\d s of 4\.0 s$", said)


def test_a_length_that_is_guessed_is_held_against_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mpg"), "w", format="mpeg1video") as film:
        options = {"qmax": "4", "maxrate": "10000", "bufsize": "400000"}
        pictures = film.add_stream("mpeg1video", rate=25, options=options)
        pictures.width, pictures.height, pictures.bit_rate = (
            160,
            120,
            10_000,
        )  # far below what it will need
        for number in range(5):
            noise = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
            film.mux(pictures.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        film.mux(pictures.encode(None))
    with av.open(str(tmp_path / "film.mpg")) as film:
        assert film.duration > 5_000_000, "guessed by the size, for a fifth of a second"
    assert "could be read" not in recoded(tmp_path / "film.mpg", tmp_path / "film.mp4").lines[0]


def test_films_need_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Path) -> None:
    film = write_film(tmp_path / "cat.mp4", sound=None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'colortrain\[video\]'"):
        main(["--run", str(run), "--out", str(tmp_path / "out"), str(film)])
    check_video([])


def test_flicker_is_the_mean_step_of_colours_where_nothing_moves() -> None:
    flicker = Flicker()
    assert math.isnan(flicker.mean)
    L, ab = np.full((4, 4), 50.0), np.zeros((2, 4, 4))
    flicker.add(L, ab)
    moved = L.copy()
    moved[:2] += 10  # here something moved: not counted, whatever its colours do
    other = np.stack([np.full((4, 4), 3.0), np.full((4, 4), 4.0)])
    other[:, :2] = 90
    flicker.add(moved, other)
    assert flicker.mean == pytest.approx(5.0)
    flicker.add(moved, other)
    assert flicker.mean == pytest.approx(5 * 8 / (8 + 16)), (
        "a frame that repeats the one before brings zeros"
    )

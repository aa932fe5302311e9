"""Colorizing videos: frames, time stamps, sound, colour tags and flicker."""

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
from launch.colorize_journal import JOURNAL
from launch.image_jobs import Job, Outcome
from launch.video import Flicker, check_video, colorize_video
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.sources.decode import fit_image
from tests.support.small_run import small_run
from tests.support.small_shard_set import photograph

av: Any = pytest.importorskip("av", reason="videos need colortrain[video]")

FRAMES, RATE = 12, 10


def write_video(path: Path, sound: str | None = "aac", seconds: int = 1) -> Path:
    """Write a moving crop of a photograph, 1.2 s, with a tone of `seconds` seconds."""
    cat = photograph("chelsea")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        audio = video.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(
                cat[40:160, 60 + 4 * number : 220 + 4 * number], format="rgb24"
            )
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
        if audio:
            wave = (np.sin(np.arange(44100 * seconds) / 10)[None] * 0.3).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            tone.sample_rate, tone.pts, tone.time_base = 44100, 0, Fraction(1, 44100)
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=44100)
            for part in resampler.resample(tone):
                video.mux(audio.encode(part))
            video.mux(audio.encode(None))
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """Return frames, their times in seconds, and the audio packets."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
        images = [frame.to_ndarray(format="rgb24") for frame in frames]
    with av.open(str(path)) as video:
        sound = (
            [bytes(packet) for packet in video.demux(audio=0) if packet.size]
            if video.streams.audio
            else []
        )
    return images, [frame.time for frame in frames], sound


def write_green(
    path: Path,
    times: Sequence[int] = (0, 40),
    size: tuple[int, int] = (64, 48),
    matrix: str = "ITU601",
    levels: str = "MPEG",
    tags: Sequence[int] = (),
    aspect: Fraction = Fraction(1),
) -> Path:
    """Write green frames at these times (ms), with these colour and aspect settings.

    `tags` are colorspace, primaries and transfer by their numbers in H.273; none:
    untagged.
    """
    width, height = size
    green = av.VideoFrame.from_ndarray(
        np.full((height, width, 3), (30, 160, 60), np.uint8), format="rgb24"
    )
    with av.open(str(path), "w") as video:
        stream = video.add_stream(
            "libx264", rate=30, options={"crf": "1"}, time_base=Fraction(1, 1000)
        )
        stream.width, stream.height, stream.color_range = (
            width,
            height,
            2 if levels == "JPEG" else 1,
        )
        stream.sample_aspect_ratio = aspect
        if tags:
            stream.colorspace, stream.color_primaries, stream.color_trc = tags
        for time in times:
            frame = green.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=levels)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return path


class IdentityNetwork:
    """Stands for a network: returns the images' own colours."""

    def predict_ab(self, images: Sequence[Image.Image], dropout: bool | None = None) -> np.ndarray:
        return np.stack(
            [rgb_to_lab(np.asarray(fit_image(image, 16, "squash")))[1:] for image in images]
        )


def transcoded(video: Path, target: Path) -> Outcome:
    """Return the outcome for a video that is colorized with its own colours."""
    network: Any = IdentityNetwork()
    colorize_video(Job(video, (target,)), {"identity": network}, 8, False, outcome := Outcome())
    return outcome


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "run"
    small_run(folder)
    return folder


def test_a_video_keeps_its_frames_time_stamps_and_sound(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "cat.mp4")
    out = tmp_path / "out"
    assert main(["--run", str(run), "--out", str(out), str(video), "--batch-size", "5"]) == 0
    assert {path.name for path in out.iterdir()} == {"cat.mp4", JOURNAL}
    before, times, sound = read_video(video)
    after, same_times, same_sound = read_video(out / "cat.mp4")
    assert (len(after), same_times) == (FRAMES, times)
    assert same_sound == sound
    assert len(sound) > 10
    network = colortrain.load(run)
    for one, other in zip(before, after, strict=True):
        expected = network.colorize(one, dropout=False).astype(int)
        assert np.abs(expected - other).mean() < 6, "except for the loss of H.264"
        assert np.abs(rgb_to_lab(one)[0] - rgb_to_lab(other)[0]).mean() < 3
    printed = capsys.readouterr().out
    assert "cat.mp4 by run: 12 frames, flicker " in printed
    written = (out / "cat.mp4").stat().st_ino
    assert main(["--run", str(run), "--out", str(out), str(video)]) == 0
    assert "0 of 1 inputs colorized, 1 were done before" in capsys.readouterr().out
    assert (out / "cat.mp4").stat().st_ino == written
    with pytest.raises(UserError, match=r"cat\.mp4 exists, and .* another --dropout"):
        main(["--run", str(run), "--out", str(out), str(video), "--dropout", "on"])


def test_a_video_without_sound_or_with_sound_that_mp4_cannot_contain(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, raw = (
        write_video(tmp_path / "silent.mp4", sound=None),
        write_video(tmp_path / "raw.mkv", "pcm_s16le", seconds=4),
    )
    assert main(["--run", str(run), "--out", str(tmp_path / "out"), str(silent), str(raw)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("without its sound, which MP4 cannot contain") for line in lines[:2]] == [
        False,
        True,
    ]
    assert [len(read_video(tmp_path / "out" / name)[0]) for name in ("silent.mp4", "raw.mp4")] == [
        FRAMES,
        FRAMES,
    ]


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    steady = [round(number * 1000 / 30) for number in range(30)]
    times = [*steady[:11], *steady[12:], 1600, 1637, 2500]  # one frame dropped, then pauses
    video = write_green(tmp_path / "phone.mkv", times)
    assert transcoded(video, tmp_path / "phone.mp4").failures == []
    for path in (video, tmp_path / "phone.mp4"):
        with av.open(str(path)) as opened:
            assert [frame.pts * frame.time_base * 1000 for frame in opened.decode(video=0)] == times


@pytest.mark.parametrize(
    ("size", "matrix", "levels", "tags", "tags_out"),
    [
        ((1280, 720), "ITU709", "MPEG", (1, 1, 1), (1, 1, 1, 1)),
        ((1280, 720), "ITU709", "MPEG", (), (1, 1, 1, 1)),
        ((1280, 720), "ITU601", "MPEG", (5, 5, 6), (6, 1, 5, 6)),
        ((64, 48), "ITU601", "MPEG", (), (6, 1, 6, 6)),
        ((64, 48), "ITU709", "JPEG", (1, 1, 13), (1, 1, 1, 13)),  # full range, as phones record it
    ],
    ids=["HD", "untagged HD", "HD of PAL", "untagged SD", "full range"],
)
def test_colours_and_their_tags_are_kept(
    tmp_path: Path,
    size: tuple[int, int],
    matrix: str,
    levels: str,
    tags: Sequence[int],
    tags_out: Sequence[int],
) -> None:
    video = write_green(tmp_path / "video.mkv", size=size, matrix=matrix, levels=levels, tags=tags)
    assert transcoded(video, tmp_path / "video.mp4").failures == []
    with av.open(str(video)) as before, av.open(str(tmp_path / "video.mp4")) as after:
        out = after.streams.video[0]
        assert (out.colorspace, out.color_range, out.color_primaries, out.color_trc) == tags_out
        first = [next(opened.decode(video=0)) for opened in (before, after)]
    one, other = (
        each.to_ndarray(format="rgb24", src_colorspace=matrix).astype(int) for each in first
    )
    assert np.abs(one - (30, 160, 60)).max() <= 3, "the source itself, rounded and encoded"
    assert np.abs(one - other).max() <= 2


def rotate(video: Path) -> None:
    """Rotate an MP4 by 90 degrees in its track header (ISO/IEC 14496-12, 8.3.2)."""
    data = video.read_bytes()
    start = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    video.write_bytes(data[:start] + matrix + data[start + len(matrix) :])


@pytest.mark.parametrize("rotated", [False, True])
def test_the_pixel_aspect_ratio_is_kept(tmp_path: Path, rotated: bool) -> None:
    video = write_green(tmp_path / "dvd.mp4", aspect=Fraction(64, 45))
    if rotated:
        rotate(video)
    assert transcoded(video, tmp_path / "out.mp4").failures == []
    with av.open(str(tmp_path / "out.mp4")) as opened:
        out = opened.streams.video[0]
        shape = (out.width, out.height, out.sample_aspect_ratio)
    assert shape == ((48, 64, Fraction(45, 64)) if rotated else (64, 48, Fraction(64, 45)))


def test_an_unreadable_video_is_reported_and_writes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert (
        main(["--run", str(run), "--out", str(tmp_path / "out"), str(tmp_path / "broken.mp4")]) == 1
    )
    assert f"not colorized: {tmp_path / 'broken.mp4'}: " in capsys.readouterr().err
    assert list(tmp_path.rglob("*.mp4*")) == [tmp_path / "broken.mp4"]


def test_a_video_without_frames_overwrites_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_green(tmp_path / "head.mkv").read_bytes()
    cluster = whole.index(b"\x1f\x43\xb6\x75")  # its identifier: RFC 9559, 5.1.3
    (tmp_path / "head.mkv").write_bytes(whole[: cluster + 20])
    (tmp_path / "head.mp4").write_bytes(b"good")
    assert (
        main(["--run", str(run), "--out", str(tmp_path), "--force", str(tmp_path / "head.mkv")])
        == 1
    )
    assert "head.mkv: no frame could be decoded: remove the file" in capsys.readouterr().err
    assert (tmp_path / "head.mp4").read_bytes() == b"good"
    assert {path.name for path in tmp_path.iterdir()} == {"head.mkv", "head.mp4", JOURNAL}


def test_a_truncated_video_is_reported(tmp_path: Path) -> None:
    video = write_green(tmp_path / "video.mkv", range(0, 4000, 40))
    assert "readable part" not in transcoded(video, tmp_path / "video.mp4").video_lines[0]
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    line = transcoded(video, tmp_path / "video.mp4").video_lines[0]
    assert re.search(r"; the readable part ends at [012]\.\d s of 4\.0 s$", line)


def test_an_estimated_duration_is_not_reported_as_truncated(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "video.mpg"), "w", format="mpeg1video") as video:
        options = {"qmax": "4", "maxrate": "10000", "bufsize": "400000"}
        stream = video.add_stream("mpeg1video", rate=25, options=options)
        stream.width, stream.height, stream.bit_rate = (
            160,
            120,
            10_000,
        )  # far below what noise needs
        for number in range(5):
            noise = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        video.mux(stream.encode(None))
    with av.open(str(tmp_path / "video.mpg")) as video:
        assert video.duration > 5_000_000, "estimated from the file size; it is 0.2 s"
    assert (
        "readable part"
        not in transcoded(tmp_path / "video.mpg", tmp_path / "video.mp4").video_lines[0]
    )


def test_videos_need_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Path) -> None:
    video = write_video(tmp_path / "cat.mp4", sound=None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'colortrain\[video\]'"):
        main(["--run", str(run), "--out", str(tmp_path / "out"), str(video)])
    check_video([])


def test_flicker_is_the_mean_change_of_colours_where_nothing_moves() -> None:
    flicker = Flicker()
    assert math.isnan(flicker.mean)
    L, ab = np.full((4, 4), 50.0), np.zeros((2, 4, 4))
    flicker.add(L, ab)
    moved = L.copy()
    moved[:2] += 10  # moving pixels do not count, whatever their colours
    other = np.stack([np.full((4, 4), 3.0), np.full((4, 4), 4.0)])
    other[:, :2] = 90
    flicker.add(moved, other)
    assert flicker.mean == pytest.approx(5.0)
    flicker.add(moved, other)
    assert flicker.mean == pytest.approx(5 * 8 / (8 + 16)), "a repeated frame adds zeros"

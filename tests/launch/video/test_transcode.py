"""Transcoding: time stamps and missing parts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.launch.video.films import av, transcoded, write_green


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    steady = [round(number * 1000 / 30) for number in range(30)]
    times = [*steady[:11], *steady[12:], 1600, 1637, 2500]  # one frame dropped, then pauses
    video = write_green(tmp_path / "phone.mkv", times)
    assert transcoded(video, tmp_path / "phone.mp4").failures == []
    for path in (video, tmp_path / "phone.mp4"):
        with av.open(str(path)) as opened:
            assert [frame.pts * frame.time_base * 1000 for frame in opened.decode(video=0)] == times


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

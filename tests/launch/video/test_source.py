"""Reading videos: what is opened, which stream is chosen, damaged packets."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from launch.video.source import Reader, open_source
from shards.errors import UserError
from tests.launch.video.films import av, read_levels, transcoded, write_film

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nfilm.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile film.ts\n", PLAYLIST, "no video"])
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_no_other_file_is_opened(tmp_path: Path, text: str, name: str) -> None:
    """FFmpeg recognizes a list of files by its content, and would read them all."""
    write_film(tmp_path / "film.ts", frames=3)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="FFmpeg cannot read it"), open_source(tmp_path / name):
        pass


def test_a_name_that_looks_like_an_address(tmp_path: Path) -> None:
    video = write_film(tmp_path / "film.avi", frames=3).rename(tmp_path / "12:30.avi")
    with open_source(video) as source:
        assert source.format.name == "avi"


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Is a directory"), open_source(tmp_path):
        pass


def test_titles_in_other_encodings(tmp_path: Path) -> None:
    video = write_film(tmp_path / "film.avi", frames=3)
    data = video.read_bytes()
    assert b"Lavf" in data, "the name of the program, in the list of titles"
    video.write_bytes(data.replace(b"Lavf", b"Caf\xe9"))
    assert transcoded(video, tmp_path / "out.mp4").failures == []


def write_with_cover(path: Path, frames: int) -> Path:
    """Write an MP4 with a cover image, followed by a film or alone."""
    with av.open(str(path), "w") as result:
        cover = result.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        streams = [result.add_stream("mpeg4", rate=10)] if frames else []
        for video in streams:
            video.width = video.height = 32
        result.start_encoding()
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        result.mux([*cover.encode(image), *cover.encode(None)])
        for number in range(frames):
            gray = np.full((32, 32, 3), 60 + 3 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            result.mux(streams[0].encode(frame))
        result.mux([packet for video in streams for packet in video.encode(None)])
    return path


def test_a_cover_image_is_not_the_film(tmp_path: Path) -> None:
    outcome = transcoded(write_with_cover(tmp_path / "a.mp4", 10), tmp_path / "out.mp4")
    assert outcome.failures == []
    assert len(read_levels(tmp_path / "out.mp4")[1]) == 10
    assert outcome.video_lines[0].endswith("; not kept: 1 cover image")


def test_a_cover_image_alone_is_no_film(tmp_path: Path) -> None:
    outcome = transcoded(write_with_cover(tmp_path / "a.mp4", 0), tmp_path / "out.mp4")
    assert "a.mp4: the file has no video stream" in outcome.failures[0]


@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_one_damaged_packet_costs_one_frame(tmp_path: Path, codec: str) -> None:
    options = {} if codec == "mjpeg" else {"x264-params": "keyint=1"}
    video = write_film(tmp_path / "film.mov", codec, ["aac"], 10, options=options)
    with av.open(str(video)) as film:
        packet = [each for each in film.demux(video=0) if each.size][4]
        start, end = packet.pos, packet.pos + packet.size
    data = bytearray(video.read_bytes())
    data[start:end] = bytes(end - start)
    video.write_bytes(data)
    outcome = transcoded(video, tmp_path / "out.mp4")
    assert outcome.failures == []
    times, levels = read_levels(tmp_path / "out.mp4")
    assert (len(levels), levels) == (9, sorted(levels))
    np.testing.assert_allclose(times, np.delete(np.arange(10) / 10, 4), atol=1e-3)
    assert "; 1 damaged packet skipped or repaired" in outcome.video_lines[0]


class FailingContainer:
    """Stands for a container of which some reads fail."""

    format = SimpleNamespace(name="mpegts", flags=0)
    start_time = duration = 0
    streams: tuple[Any, ...] = ()

    def __init__(self, reads: list[bool]) -> None:
        self.reads = reads  # whether each succeeds

    def demux(self, streams: list[Any]) -> Iterator[Any]:
        while self.reads:
            if not self.reads.pop(0):
                raise av.error.InvalidDataError(1, "")
            stream = SimpleNamespace(index=0, type="video")
            yield SimpleNamespace(
                size=1, is_corrupt=False, stream=stream, pos=None, pts=0, dts=0, duration=0,
                time_base=Fraction(1, 25),
            )  # fmt: skip


def test_reading_continues_after_errors() -> None:
    reader = Reader(FailingContainer([True, False, False, True, False, True]))
    assert len(list(reader.packets())) == 3
    assert reader.num_damaged == 3


def test_reading_ends_if_nothing_else_is_readable() -> None:
    reader = Reader(FailingContainer([True, *([False] * 1000), True]))
    assert len(list(reader.packets())) == 1
    assert reader.num_damaged < 100

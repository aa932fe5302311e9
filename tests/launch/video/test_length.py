"""The length that a film declares, also where FFmpeg conceals it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.video.length import asf_length, declared_length
from tests.launch.video.films import av, write_film

CODECS = {"mp4": "mpeg4", "mkv": "mpeg4", "avi": "mpeg4", "flv": "flv", "wmv": "wmv2"}


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("part", [1, 0.5])
def test_the_length_is_that_of_the_whole_film(tmp_path: Path, suffix: str, part: float) -> None:
    video = write_film(tmp_path / f"film.{suffix}", CODECS[suffix], options={"g": "5"})
    whole = video.read_bytes()
    video.write_bytes(whole[: int(len(whole) * part)])
    with av.open(str(video)) as source:
        assert declared_length(source, source.streams.video[0]) == pytest.approx(4, abs=0.11)


@pytest.mark.parametrize("suffix", ["mpg", "ts"])
def test_mpeg_declares_no_length(tmp_path: Path, suffix: str) -> None:
    with av.open(str(write_film(tmp_path / f"film.{suffix}", "mpeg2video"))) as source:
        assert declared_length(source, source.streams.video[0]) == 0


@pytest.mark.parametrize(
    "data", [b"", bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), b"x" * 99]
)
def test_a_header_without_a_length(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "film.wmv").write_bytes(data)
    assert asf_length(tmp_path / "film.wmv") == 0

"""Containers, codecs, sound and damage in combination, with FFmpeg as the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from launch.video.sound import COPIED
from tests.launch.video.films import (
    B_FRAMES,
    codecs,
    read_levels,
    tone_start,
    transcoded,
    write_film,
)

KEYED = {"g": "5"}


class Film(NamedTuple):
    """A kind of film: suffix and codecs, and the codec of its sound in the result."""

    suffix: str
    video: str
    sound: str
    sound_out: str
    options: dict[str, str] = KEYED
    size: tuple[int, int] = (32, 32)
    rate: int = 44100  # Hz of the sound
    declares_length: bool = True


FILMS = [
    Film("mp4", "libx264", "aac", "aac", B_FRAMES),
    Film("mov", "mjpeg", "pcm_s16be", "aac", {}, rate=8000),
    Film("mov", "mpeg4", "alac", "alac"),
    Film("3gp", "h263", "libopencore_amrnb", "aac", size=(128, 96), rate=8000),
    Film("mkv", "libx264", "libopus", "opus", B_FRAMES, rate=48000),
    Film("mkv", "ffv1", "flac", "flac"),
    Film("mkv", "libx264", "eac3", "eac3", B_FRAMES),
    Film("mkv", "mpeg4", "pcm_s24le", "aac", rate=8000),
    Film("webm", "libvpx", "vorbis", "aac"),
    Film("avi", "mpeg4", "libmp3lame", "mp3", {"bf": "2", **KEYED}),
    Film("avi", "libx264", "adpcm_ima_wav", "aac", B_FRAMES),
    Film("avi", "mjpeg", "pcm_u8", "aac", {}, rate=11025),
    Film("flv", "flv", "libmp3lame", "mp3"),
    Film("flv", "libx264", "aac", "aac", B_FRAMES),
    Film("wmv", "wmv2", "wmav2", "aac"),
    Film("mpg", "mpeg2video", "mp2", "mp3", declares_length=False),  # MP4 has one code for both
    Film("vob", "mpeg2video", "ac3", "ac3", declares_length=False),
    Film("ts", "libx264", "aac", "aac", B_FRAMES, declares_length=False),
    Film("m2ts", "libx264", "ac3", "ac3", B_FRAMES, declares_length=False),
    Film("ogv", "libvpx", "vorbis", "aac", declares_length=False),
    # The last one; the tests of damage leave it out, because its frames are large.
    Film("dv", "dvvideo", "pcm_s16le", "aac", {}, (720, 576), 48000, False),
]


def names(film: Film) -> str:
    return f"{film.suffix}-{film.video}-{film.sound}"


def made(film: Film, folder: Path) -> Path:
    """Return a film of 4 s, or of 0.12 s for DV, whose frames are large."""
    container = {"m2ts": "mpegts", "ogv": "ogg"}.get(film.suffix)
    frames = 3 if film.suffix == "dv" else 40
    path = folder / f"film.{film.suffix}"
    return write_film(
        path, film.video, [film.sound], frames, film.size, film.options, container, film.rate
    )


def assert_rising(times: Sequence[float]) -> None:
    assert (np.diff(times) > 0).all(), times


@pytest.mark.parametrize("film", FILMS, ids=names)
def test_frames_times_and_sound_are_kept(film: Film, tmp_path: Path) -> None:
    source = made(film, tmp_path)
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    (times, levels), (times_out, levels_out) = read_levels(source), read_levels(result)
    assert len(levels) == (3 if film.suffix == "dv" else 40)
    assert np.abs(np.subtract(levels_out, levels)).max() <= 3, "no frame is lost or exchanged"
    assert_rising(times_out)
    if (film.suffix, film.video) != ("avi", "libx264"):  # no times of its own: test_times
        assert np.abs(np.subtract(times_out, times)).max() <= 0.06
    assert codecs(result) == [film.sound_out]
    assert tone_start(result) == pytest.approx(tone_start(source), abs=0.002)
    line = outcome.video_lines[0]
    assert ("sound converted" in line) == (
        film.sound_out != codecs(source)[0].replace("mp2", "mp3")
    )
    assert ("interlaced" in line) == (film.suffix == "dv")
    assert not any(word in line for word in ("damage", "no frames", "readable", "not kept"))


@pytest.mark.parametrize("film", FILMS[:-1], ids=names)
def test_what_a_hole_leaves_is_kept_and_the_hole_is_reported(film: Film, tmp_path: Path) -> None:
    source = made(film, tmp_path)
    whole = bytearray(source.read_bytes())
    start, end = (int(len(whole) * part) for part in (0.45, 0.8))
    whole[start:end] = bytes(end - start)
    source.write_bytes(whole)
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    (_, levels), (times_out, levels_out) = read_levels(source), read_levels(result)
    assert len(levels_out) == len(levels)
    assert np.median(np.abs(np.subtract(levels_out, levels))) <= 2
    assert_rising(times_out)
    assert any(word in outcome.video_lines[0] for word in ("damaged", "no frames", "readable"))


@pytest.mark.parametrize("film", FILMS[:-1], ids=names)
def test_a_missing_end_is_reported(film: Film, tmp_path: Path) -> None:
    source = made(film, tmp_path)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    assert len(read_levels(result)[1]) == len(read_levels(source)[1])
    if film.declares_length:
        assert "; the readable part ends at " in outcome.video_lines[0]


def test_the_films_have_every_sound_codec_that_is_copied() -> None:
    assert {film.sound_out for film in FILMS} >= set(COPIED) - {"mp2"}
    assert "mp2" in {film.sound for film in FILMS}

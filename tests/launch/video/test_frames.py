"""Colours, their tags and the shape of frames."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from launch.video.frames import orientation
from tests.launch.video.films import av, rotate, transcoded, write_green


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


def set_display_matrix(video: Path, matrix: Sequence[int]) -> None:
    """Set a, b, c, d in the track header of an MP4 (ISO/IEC 14496-12, 8.3.2)."""
    a, b, c, d = (value << 16 for value in matrix)
    data = video.read_bytes()
    start = data.index(b"tkhd") + 44
    packed = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.write_bytes(data[:start] + packed + data[start + len(packed) :])


# By where the upper left quarter of the stored frame, which is white, is shown, and
# whether the frame is 48 x 64 then instead of 64 x 48.
@pytest.mark.parametrize(
    ("matrix", "corner", "upright"),
    [
        ((1, 0, 0, 1), (0, 0), False),
        ((-1, 0, 0, 1), (0, 1), False),
        ((1, 0, 0, -1), (1, 0), False),
        ((-1, 0, 0, -1), (1, 1), False),
        ((0, 1, 1, 0), (0, 0), True),
        ((0, 1, -1, 0), (0, 1), True),
        ((0, -1, 1, 0), (1, 0), True),
        ((0, -1, -1, 0), (1, 1), True),
    ],
    ids=["as is", "mirrored", "flipped", "180", "transposed", "90", "270", "transversed"],
)
def test_frames_are_turned_and_mirrored(
    tmp_path: Path, matrix: Sequence[int], corner: tuple[int, int], upright: bool
) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = 255
    video = write_still(tmp_path / "phone.mp4", stored)
    set_display_matrix(video, matrix)
    assert transcoded(video, tmp_path / "out.mp4").failures == []
    with av.open(str(tmp_path / "out.mp4")) as opened:
        shown = next(opened.decode(video=0))
        gray = shown.to_ndarray(format="gray").astype(float)
    assert shown.rotation == 0
    assert gray.shape == ((64, 48) if upright else (48, 64))
    halves = gray.reshape(2, gray.shape[0] // 2, 2, gray.shape[1] // 2).mean((1, 3))
    assert np.unravel_index(halves.argmax(), halves.shape) == corner
    if program := shutil.which("ffmpeg"):
        raw = subprocess.run(
            [program, "-v", "error", "-i", video, "-f", "rawvideo", "-pix_fmt", "gray", "-"],
            capture_output=True,
            check=True,
        ).stdout
        assert np.abs(np.frombuffer(raw, np.uint8).reshape(gray.shape) - gray).mean() < 4


def write_still(path: Path, rgb: np.ndarray, codec: str = "libx264", count: int = 1) -> Path:
    """Write a film that shows one image."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=10)
        stream.height, stream.width = rgb.shape[:2]
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "rgb24"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("size", [(1, 32), (32, 1), (1, 1), (3, 33)])
def test_narrow_and_odd_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    """4:2:0 needs even sides: they are cropped, and one pixel is doubled."""
    video = write_still(tmp_path / "line.mov", np.full((*size, 3), 99, np.uint8), "png")
    assert transcoded(video, tmp_path / "out.mp4").failures == []
    with av.open(str(tmp_path / "out.mp4")) as opened:
        frame = next(opened.decode(video=0))
        gray = frame.to_ndarray(format="gray")
    assert gray.shape == tuple(max(2, side // 2 * 2) for side in size)
    assert np.abs(gray.astype(int) - 99).max() <= 2


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    parts = [
        write_still(tmp_path / f"{name}.ts", np.full((*size, 3), 120, np.uint8), count=5)
        for name, size in (("first", (32, 64)), ("second", (64, 64)))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    outcome = transcoded(joined, tmp_path / "out.mp4")
    assert outcome.failures == []
    assert "its size changes to 64x64 at 0.5 s: scaled to the first size" in outcome.video_lines[0]
    with av.open(str(tmp_path / "out.mp4")) as opened:
        frames = [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 64)] * 10
    assert frames[0].min() > 110
    assert frames[-1][:, 16:48].min() > 100, "the square is shown in the middle"
    assert frames[-1][:, :14].max() < 30, "between black bars"


def test_other_side_data_of_frames_is_ignored() -> None:
    """PyAV cannot read the side data of a frame with a kind it does not know."""

    class Unknown:
        rotation = -90

        @property
        def side_data(self) -> dict[str, bytes]:
            raise ValueError("28 is not a valid Type")

    assert orientation(Unknown()) == (True, True, False), "90 degrees clockwise"

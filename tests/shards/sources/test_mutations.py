"""Files with flipped bits, cut ends and swapped bytes are refused or decoded correctly.

The reference is ffmpeg, whose decoders share no code with Pillow's (through PyAV).
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from shards.sources.decode import UndecodableError, decode_image
from shards.sources.image_formats import FORMATS
from tests.support.photographs import encode, photograph

RGB = photograph("coffee")[100:148, 200:264]
MUTATIONS = 200
_MOVED = 8  # bytes that are swapped
# kind of file -> (Pillow's format, options of `save`, ffmpeg's decoder, largest mean
# difference from it in levels). Compressed pixels without a checksum decode to other
# pixels after a flip, in every decoder.
KINDS: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "BMP": ("BMP", {}, "bmp", 0.0),
    "PPM": ("PPM", {}, "ppm", 0.0),
    "GIF": ("GIF", {}, "gif", 0.0),
    "TIFF": ("TIFF", {}, "tiff", 0.0),
    "TIFF deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}, "tiff", 0.0),
    "TIFF LZW": ("TIFF", {"compression": "tiff_lzw"}, "tiff", 0.0),
    "WebP lossless": ("WEBP", {"lossless": True}, "webp", 0.0),
    "WebP": ("WEBP", {}, "webp", 4.0),
    "JPEG 2000": ("JPEG2000", {}, "jpeg2000", 0.0),
}
# libjpeg, libdav1d and libheif guess pixels they cannot decode and do not report it
# through Pillow; other decoders guess differently. Only cut files are always refused.
UNCHECKED: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 95}),
    "JPEG progressive": ("JPEG", {"quality": 95, "progressive": True}),
    "AVIF": ("AVIF", {}),
    "HEIF": ("HEIF", {}),
    "JPEG XL": ("JXL", {}),
}


def mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, damaged file): a flipped bit, a cut end or two swapped pieces."""
    rng = random.Random(1)
    for number in range(MUTATIONS):
        damaged = bytearray(data)
        kind = ("flip", "cut", "swap")[number % 3]
        if kind == "flip":
            bit = rng.randrange(8 * len(data))
            damaged[bit // 8] ^= 1 << bit % 8
        elif kind == "cut":
            damaged = damaged[: rng.randrange(1, len(data))]
        else:
            first, second = (rng.randrange(len(data) - _MOVED) for _ in range(2))
            moved = bytes(damaged[first : first + _MOVED])
            damaged[first : first + _MOVED] = damaged[second : second + _MOVED]
            damaged[second : second + _MOVED] = moved
        if damaged != data:
            yield kind, bytes(damaged)


def accepted(data: bytes) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yield the damaged files that `decode_image` accepts, with their pixels."""
    for kind, damaged in mutations(data):
        try:
            yield kind, damaged, np.asarray(decode_image(damaged)).astype(int)
        except UndecodableError:
            continue


def decoded_by_ffmpeg(codec: str, data: bytes) -> np.ndarray | None:
    """Return the pixels that ffmpeg decodes, (H, W, 3), None if it cannot."""
    import av

    av.logging.set_level(av.logging.PANIC)
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, av.VideoCodecContext)
    try:
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except av.FFmpegError:
        return None
    return frames[0].to_ndarray(format="rgb24").astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_is_refused_or_decodes_as_in_ffmpeg(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'colortrain[video]'")
    name, options, codec, bound = KINDS[kind]
    for how, damaged, pixels in accepted(encode(RGB, name, **options)):
        assert how != "cut"
        expected = decoded_by_ffmpeg(codec, damaged)
        if expected is not None:  # ffmpeg lacks a few features of JPEG 2000
            assert pixels.shape == expected.shape
            assert np.abs(pixels - expected).mean() <= bound
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_every_damaged_png_is_refused(mode: str) -> None:
    from PIL import Image

    assert list(accepted(encode(Image.fromarray(RGB).convert(mode)))) == []


@pytest.mark.parametrize("kind", UNCHECKED)
def test_no_cut_file_is_accepted(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    name, options = UNCHECKED[kind]
    if name not in FORMATS:
        pytest.skip(f"this environment cannot decode {name}")
    assert [how for how, *_ in accepted(encode(RGB, name, **options)) if how == "cut"] == []
    assert capfd.readouterr().err == ""

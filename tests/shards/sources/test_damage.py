"""Tests of damage: checksums of PNG, and the messages of libtiff."""

import io
import os
import random
import sys

import numpy as np
import pytest

from shards.sources.damage import captured_messages, find_png_damage
from shards.sources.decode import UndecodableError, decode_image
from tests.support.photographs import encode, photograph

RGB = photograph("coffee")[100:164, 200:264]


def test_undamaged_png_and_other_files_have_no_damage() -> None:
    assert find_png_damage(encode(RGB)) == ""
    assert find_png_damage(encode(RGB) + b"data after the end") == ""
    assert find_png_damage(encode(RGB, "BMP")) == ""


def test_each_flipped_bit_of_the_pixels_is_found() -> None:
    data = encode(RGB)
    start = data.index(b"IDAT") + 4
    for number in range(100):
        bit = random.Random(number).randrange(8 * start, 8 * (len(data) - 16))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert find_png_damage(bytes(damaged)) == "wrong checksum of the PNG chunk b'IDAT'"


def test_png_without_its_end_is_cut_short() -> None:
    data = encode(RGB)
    for end in (20, len(data) // 2, len(data) - 12, len(data) - 1):
        assert find_png_damage(data[:end]) == "the PNG file is cut short"


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_every_damaged_byte_of_deflated_pixels_is_found(tile: tuple[int, int] | None) -> None:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, RGB, photometric="rgb", compression="zlib", tile=tile)
    data = stream.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.tags
        names = ("TileOffsets", "TileByteCounts") if tile else ("StripOffsets", "StripByteCounts")
        pieces = list(zip(*(tags[name].value for name in names), strict=True))
    rng = random.Random(0)
    for _ in range(100):
        offset, size = rng.choice(pieces)
        damaged = bytearray(data)
        damaged[offset + rng.randrange(size)] ^= rng.randrange(1, 256)
        with pytest.raises(UndecodableError, match=r"checksum of a strip or tile|ZIPDecode"):
            decode_image(bytes(damaged))
    assert np.array_equal(np.asarray(decode_image(data)), RGB)


def test_messages_of_libtiff_become_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(RGB, "TIFF", compression="tiff_lzw"))
    data[1000:1100] = bytes(100)
    with pytest.raises(UndecodableError, match=r"^unreadable: \w+: .*(code|data|LZW)"):
        decode_image(bytes(data))
    assert capfd.readouterr().err == ""


def test_other_output_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_messages() as messages:
        os.write(2, b"LZWDecode: Not enough data at scanline 0 (short 2 bytes).\n")
        print("42 images/s", file=sys.stderr)
    assert messages == ["LZWDecode: Not enough data at scanline 0 (short 2 bytes)."]
    assert capfd.readouterr().err == "42 images/s\n"


def test_closed_standard_error_is_no_obstacle() -> None:
    saved = os.dup(2)
    os.close(2)
    try:
        pixels = np.asarray(decode_image(encode(RGB, "TIFF")))
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert np.array_equal(pixels, RGB)

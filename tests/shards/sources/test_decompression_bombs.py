"""Tests of decompression_bombs: bombs are rejected, unusual files are read."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile  # a dependency of scikit-image

from shards.sources.decode import UndecodableError, decode_image
from shards.sources.decompression_bombs import find_bomb_in_header
from tests.support.photographs import encode, photograph

RGB = photograph("coffee")[:120, :160]
SIDE, LENGTH = 322, 323  # the tags of a tile's width and height
LONG, SLONG8 = 4, 17
TILE = 2000


def tiled(*entries: tuple[int, int, int]) -> bytes:
    """Return a grayscale TIFF of 100 x 100 pixels in one tile of TILE x TILE.

    `entries` are the tags (tag, type, value) that set the sides of the tile.
    """
    pixels = zlib.compress(bytes(TILE * TILE))
    tags = [
        (256, LONG, 100),
        (257, LONG, 100),
        (258, LONG, 8),
        (259, LONG, 8),
        (262, LONG, 1),
        (277, LONG, 1),
    ]
    after = 8 + 2 + 12 * (len(tags) + len(entries) + 2) + 4
    tags += [*entries, (324, LONG, after + 8), (325, LONG, len(pixels))]
    rows = b"".join(
        struct.pack("<HHII", tag, kind, 1, after if kind == SLONG8 else value)
        for tag, kind, value in tags
    )
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + rows + struct.pack("<IQ", 0, TILE) + pixels
    )


@pytest.mark.parametrize(
    ("entries", "detail"),
    [
        (
            [(SIDE, LONG, TILE), (LENGTH, LONG, TILE)],
            "2000 x 2000 pixels in tiles, more than --max-pixels 1000000",
        ),
        (
            [(SIDE, LONG, 16), (LENGTH, LONG, 1 << 20)],
            "112 x 1048576 pixels in tiles, more than --max-pixels 1000000",
        ),
        (
            [(SIDE, SLONG8, TILE), (LENGTH, SLONG8, TILE)],
            "tiles of ambiguous size",
        ),  # entries that Pillow ignores
        (
            [(SIDE, LONG, TILE), (SIDE, LONG, 16), (LENGTH, LONG, TILE), (LENGTH, LONG, 16)],
            "tiles of ambiguous size",
        ),
        ([(SIDE, LONG, 0), (LENGTH, LONG, 16)], "tiles of ambiguous size"),
    ],
    ids=["wide and high", "high", "types unknown to Pillow", "duplicate tags", "no width"],
)
def test_tiff_with_tiles_much_larger_than_the_image_is_rejected(
    entries: list[tuple[int, int, int]], detail: str
) -> None:
    with pytest.raises(UndecodableError) as caught:
        decode_image(tiled(*entries), max_pixels=1_000_000)
    assert (caught.value.reason, caught.value.detail) == ("decompression bomb", detail)


def test_tile_size_is_accepted_within_the_limit() -> None:
    assert decode_image(
        tiled((SIDE, LONG, TILE), (LENGTH, LONG, TILE)), max_pixels=TILE * TILE
    ).size == (100, 100)


@pytest.mark.parametrize(
    "how", [{"byteorder": "<"}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": "<"}]
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiled_tiff_is_read(how: dict[str, Any], compression: str | None) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, RGB, photometric="rgb", tile=(64, 48), compression=compression, **how)
    rounded = 128 * 192
    assert np.array_equal(np.asarray(decode_image(stream.getvalue(), max_pixels=rounded)), RGB)
    with pytest.raises(UndecodableError, match="192 x 128 pixels in tiles"):
        decode_image(stream.getvalue(), max_pixels=rounded - 1)


def jpeg_with_scans(times: int, **options: int) -> bytes:
    """Return a JPEG whose last scan is repeated `times` more times."""
    data = encode(RGB, "JPEG", **options)
    start = data.rfind(b"\xff\xda")
    return data[:-2] + data[start:-2] * times + data[-2:]


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"progressive": True, "restart_marker_rows": 1}]
)
def test_jpeg_with_too_many_scans_is_rejected(
    options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg_with_scans(300, **options)
    # For libjpeg, FF 02 is not a marker that has a length.
    data = data.replace(b"\xff\xd0", b"\xff\x02\xff\xff\xff\xd0", 1)
    with pytest.raises(UndecodableError) as caught:
        decode_image(data)
    assert (caught.value.reason, caught.value.detail) == (
        "decompression bomb",
        "more than 200 scans",
    )
    monkeypatch.setattr("shards.sources.decompression_bombs.MAX_SCANS", 1000)
    assert decode_image(data).size == (160, 120), "the file is otherwise valid"


def test_jpeg_with_as_many_scans_as_optimisers_write_is_read() -> None:
    assert decode_image(jpeg_with_scans(100, progressive=True)).size == (160, 120)


def test_scan_markers_in_metadata_or_after_the_image_are_not_counted() -> None:
    data = encode(RGB, "JPEG", comment=b"\xff\xda" * 300) + b"\xff\xda\x00\x02" * 300
    assert decode_image(data).tobytes() == decode_image(encode(RGB, "JPEG")).tobytes()


def test_size_of_a_jxl_is_that_of_its_codestream() -> None:
    """A box in front of the codestream cannot pretend another size."""
    pytest.importorskip("pillow_jxl", reason="colortrain[jxl] is not installed")
    for width, height in ((64, 48), (1000, 500), (257, 3), (3000, 2000), (9000, 1)):
        image = np.zeros((height, width, 3), np.uint8)
        plain = encode(image, "JXL", lossless=True)
        container = encode(image, "JXL", use_container=True)
        small = struct.pack(">I4s", 12, b"Exif") + b"\xff\x0a\x01\0"
        disguised = container[:12] + small + container[12:]
        for data in (plain, container, disguised):
            assert find_bomb_in_header(data, 1) == (
                f"{width} x {height} pixels, more than --max-pixels 1"
            )
        assert find_bomb_in_header(plain, width * height) == ""

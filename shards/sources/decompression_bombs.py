"""Detect images that take far more memory or time than their file size suggests.

The check runs before any pixel is decoded.
"""

from __future__ import annotations

import re
from typing import Literal

from PIL import Image, JpegImagePlugin, TiffImagePlugin

from shards.sources.boxes import iterate_boxes
from shards.sources.image_formats import JXL_SIGNATURES

# Encoders write about ten scans, optimisers up to a hundred; each covers all pixels.
MAX_SCANS = 200
# All JPEG markers except stuffed bytes and restart markers, at which libjpeg does not
# stop. Data after the end marker is not part of the image.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xef\xfe])")
_SCAN, _END = b"\xda", b"\xd9"
_CODESTREAM, _CONTAINER = JXL_SIGNATURES
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width : height
_TILE = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)


def find_bomb_in_header(data: bytes, max_pixels: int) -> str:
    """Return a message if an image has too many pixels to be opened at all, else ""."""
    # Pillow's plugin for JPEG XL decodes all pixels when it opens a file.
    size = _jxl_size(data)
    return _too_large(*size, max_pixels) if size else ""


def _too_large(width: int, height: int, max_pixels: int) -> str:
    """Return a message if an image of this size has too many pixels, else ""."""
    if width * height <= max_pixels:
        return ""
    return f"{width} x {height} pixels, more than --max-pixels {max_pixels}"


def _jxl_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height in a JPEG XL file's header, None for other files."""
    codestream = data if data.startswith(_CODESTREAM) else _jxl_codestream(data)
    if not codestream.startswith(_CODESTREAM):
        return None
    # SizeHeader, ISO 18181-1, section D.2. The bits of each byte are read from the
    # lowest to the highest.
    bits = int.from_bytes(codestream[2:14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    height, ratio = side(), take(3)
    if not ratio:
        return side(), height
    above, below = _JXL_RATIOS[ratio - 1]
    return height * above // below, height


def _jxl_codestream(data: bytes) -> bytes:
    """Return the first bytes of the image data in a JPEG XL container, b"" if none."""
    if not data.startswith(_CONTAINER):
        return b""
    for name, start, _ in iterate_boxes(data):
        if name in (b"jxlc", b"jxlp"):
            start += 4 * (name == b"jxlp")  # which begins with a 4-byte number
            return data[start : start + 14]
    return b""


def find_bomb(image: Image.Image, data: bytes, max_pixels: int) -> str:
    """Return a message if decoding an image takes too much memory or time, else "".

    `data` are the encoded bytes from which the image was opened.
    """
    if problem := _too_large(image.width, image.height, max_pixels):
        return problem
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return f"more than {MAX_SCANS} scans" if _num_scans(data) > MAX_SCANS else ""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _check_tiles(image, data, max_pixels)
    return ""


def _num_scans(data: bytes) -> int:
    """Return the number of scans of a JPEG; counting stops at MAX_SCANS + 1."""
    scans, position = 0, 2
    while scans <= MAX_SCANS and (match := _MARKER.search(data, position)) and match[1] != _END:
        scans += match[1] == _SCAN
        # Skip the segment, because metadata may contain scan markers.
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return scans


def _check_tiles(image: TiffImagePlugin.TiffImageFile, data: bytes, max_pixels: int) -> str:
    """Return a message if a TIFF's tiles take too much memory or time, else ""."""
    num_tags = _num_tile_tags(data)
    tile = [image.tag_v2.get(tag) for tag in _TILE]
    if not num_tags:
        return ""
    if num_tags != len(tile) or not all(isinstance(side, int) and side > 0 for side in tile):
        return "tiles of ambiguous size"
    # libtiff decodes whole tiles, however small the visible part of them is.
    stored = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    width, height = (-(-side // each) * each for side, each in zip(stored, tile, strict=True))
    if width * height > max_pixels:
        return f"{width} x {height} pixels in tiles, more than --max-pixels {max_pixels}"
    return ""


def _num_tile_tags(data: bytes) -> int:
    """Return the number of TileWidth and TileLength entries in a TIFF's first IFD."""
    # Pillow silently skips malformed and repeated entries that libtiff uses, so Pillow
    # and libtiff may disagree about the size of the tiles.
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    offset, head, step = (8, 8, 20) if data[2] == 43 else (4, 2, 12)  # BigTIFF or not
    start = int.from_bytes(data[offset : 2 * offset], order)
    end = start + head + step * int.from_bytes(data[start : start + head], order)
    entries = range(start + head, min(end, len(data)), step)
    return sum(int.from_bytes(data[entry : entry + 2], order) in _TILE for entry in entries)

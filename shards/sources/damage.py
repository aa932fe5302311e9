"""Find damage in image files that Pillow ignores, or reports without a file name."""

from __future__ import annotations

import os
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from PIL import Image, TiffImagePlugin

_DEFLATE = (8, 32946)  # values of the tag Compression
_PIECES = (  # tags of the offsets and sizes of strips, and of tiles
    (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
    (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
)
_CHUNK = 1 << 20  # bytes that are inflated at a time
_PNG = b"\x89PNG\r\n\x1a\n"
# how libtiff ("module: message."), old versions of dav1d and libde265 print errors
_MESSAGE = re.compile(r"^([\w./-]+[:,] .*\.|Error parsing OBU data|[SPV]PS error: .*)$")
_redirected = Lock()


def find_png_damage(data: bytes) -> str:
    """Return a message about the first damaged chunk of a PNG, "" if there is none."""
    if not data.startswith(_PNG):
        return ""
    # Each chunk has a checksum (PNG specification, section 5.3). Pillow does not check
    # the checksums of chunks with pixels.
    position, view = len(_PNG), memoryview(data)
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", view[position : position + 4])
        end = position + 8 + length
        name = bytes(view[position + 4 : position + 8])
        if end + 4 > len(data):
            break
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return f"wrong checksum of the PNG chunk {name!r}"
        if name == b"IEND":
            return ""
        position = end + 4
    return "the PNG file is cut short"


def find_tiff_damage(image: Image.Image, data: bytes) -> str:
    """Return a message if the pixels of a deflated TIFF are damaged, else ""."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return ""
    tags = image.tag_v2
    if tags.get(TiffImagePlugin.COMPRESSION) not in _DEFLATE:
        return ""
    # Each strip or tile ends with a checksum. libtiff mostly does not read it, because
    # it stops as soon as it has all pixels.
    for offsets, sizes in _PIECES:
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            if not _is_whole_zlib(memoryview(data)[offset : offset + size]):
                return "damaged pixels (the checksum of a strip or tile does not match)"
    return ""


def _is_whole_zlib(stream: memoryview) -> bool:
    """Return whether a zlib stream is complete and its checksum matches."""
    inflater = zlib.decompressobj()
    pending: bytes | memoryview = stream
    try:
        while pending and not inflater.eof:
            inflater.decompress(pending, _CHUNK)
            pending = inflater.unconsumed_tail
    except zlib.error:
        return False
    return inflater.eof


@contextmanager
def captured_messages() -> Iterator[list[str]]:
    """Yield a list that receives what decoders print during the `with` block."""
    # They write to standard error, and their lines do not name the file. Lines that
    # other threads write there meanwhile are passed on afterwards.
    messages: list[str] = []
    with _redirected, tempfile.TemporaryFile() as file:
        try:
            original = os.dup(2)
        except OSError:  # standard error is closed
            yield messages
            return
        try:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(file.fileno(), 2)
            yield messages
        finally:
            os.dup2(original, 2)
            os.close(original)
            file.seek(0)
            _sort_lines(file.read().decode("utf-8", "replace"), messages)


def _sort_lines(text: str, messages: list[str]) -> None:
    for line in text.splitlines():
        if _MESSAGE.match(line):
            messages.append(line)
        else:
            print(line, file=sys.stderr)

"""The image formats that can be decoded, and descriptions of files that cannot."""

from __future__ import annotations

import io
import logging
import re
import struct
from importlib import import_module

from PIL import Image, TiffImagePlugin

Image.init()
# Pillow logs a few errors, which Python would print without the name of the file.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# HEIC and JPEG XL need packages that are optional: extras `heic` and `jxl`.
for _package, _register in (("pillow_heif", "register_heif_opener"), ("pillow_jxl", "")):
    try:
        _plugin = import_module(_package)
    except ImportError:
        continue
    if _register:
        getattr(_plugin, _register)()
# Only formats that are decoded in this process: Pillow would also open EPS, which
# starts Ghostscript. JPEG includes MPO. A new format also needs its file suffixes in
# `listing.SUFFIXES`, or folders are searched without it.
_SUPPORTED = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF"),
    *("HEIF", "JXL"),
)
JXL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL ")  # a codestream, a container
FORMATS: list[str] = [name for name in _SUPPORTED if name in Image.OPEN]

_INSTALL = "to decode it, pip install 'colortrain[{}]'"
_SIGNATURES = (  # (bytes at the start, what the file is)
    (rb"\s*$", "an empty file"),
    (rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", f"a HEIC image: {_INSTALL.format('heic')}"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", f"a JPEG XL image: {_INSTALL.format('jxl')}"),
    (rb"....ftypavi[fs]", "an AVIF image, which needs Pillow with AVIF"),
    (rb"....ftypcrx |FUJIFILMCCD|II\x2a\0....CR|IIRO|IIU\0", "a camera raw file"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%!PS|\xc5\xd0\xd3\xc6|%PDF", "a PostScript or PDF file"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg", "an SVG drawing"),
    (rb"(?i)\s*<(!doctype )?html", "an HTML page, as after a failed download"),
    (rb"version https://git-lfs", "a Git LFS pointer: fetch the file with git lfs pull"),
    (rb"v/1\x01|#\?RADIANCE", "an HDR image (OpenEXR or Radiance)"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"\0\0[\1\2]\0", "an icon"),
)
_SOF = {  # processes of JPEG that libjpeg does not decode (ITU-T T.81, table B.1)
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "lossless JPEG",
}
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)
_SEGMENT = re.compile(rb"\xff+([\xc0-\xfe])(..)", re.DOTALL)
_TIFF = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")
_SAMPLE_FORMATS = {2: "signed integer", 3: "floating-point", 5: "complex", 6: "complex"}


def name_unsupported(data: bytes) -> str:
    """Return a phrase for a file that is no known image, such as "a camera raw file".

    `data` is the content of the file.
    """
    head = data[:512]
    for pattern, name in _SIGNATURES:
        if re.match(pattern, head, re.DOTALL):
            return name
    if head.startswith(b"\xff\xd8"):
        return find_unsupported_jpeg(data) or "a damaged JPEG"
    if head[:4] in _TIFF:
        return _name_tiff(data)
    return "no image of a known format"


def find_unsupported_jpeg(data: bytes) -> str:
    """Return a message if libjpeg cannot decode this kind of JPEG, else ""."""
    position = 2
    while match := _SEGMENT.match(data, position):
        marker = match[1][0]
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            bits = data[match.end() : match.end() + 1]
            if bits and bits != b"\x08":
                return f"a JPEG with {bits[0]} bits per channel, which is not supported"
            return f"a {_SOF[marker]}, which is not supported" if marker in _SOF else ""
        position = match.start(2) + int.from_bytes(match[2], "big")
    return ""


def _name_tiff(data: bytes) -> str:
    """Return a phrase for the pixel format of a TIFF that cannot be decoded."""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(
            data[: 16 if data[2:4] in (b"\0+", b"+\0") else 8]
        )
        stream = io.BytesIO(data)
        stream.seek(directory.next)
        directory.load(stream)
        bits = directory.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        kind = directory.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]
        photometric = directory.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    except (SyntaxError, struct.error, OSError, ValueError, TypeError, KeyError, IndexError):
        return "a damaged TIFF"
    if photometric in (32803, 34892):
        return "a camera raw file"
    layout = " + ".join(map(str, bits))
    kinds = f", {_SAMPLE_FORMATS[kind]}" if kind in _SAMPLE_FORMATS else ""
    return f"a TIFF with {layout} bits per pixel{kinds}, which is not supported"

"""Convert decoded pixels to sRGB, from the colour space that their file declares.

A file declares it by an ICC profile, by CICP code points (ITU-T H.273), or by the gAMA
and cHRM chunks of PNG.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from shards.sources.boxes import find_boxes

# Code points and chunks become a small ICC profile, so that Little CMS does every
# conversion.
_SRGB = ImageCms.createProfile("sRGB")
Transform = ImageCms.ImageCmsTransform
# x and y of the white point, red, green and blue
Chromaticities = tuple[float, ...]
# gamma, a, b, c, d: y = (a x + b) ** gamma where x >= d, else c x (ICC.1 section 10.18)
Curve = tuple[float, ...]

_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
_BT709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {  # H.273 table 2
    1: _BT709,
    2: _BT709,  # unspecified
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES: dict[int, Curve] = {  # H.273 table 3
    # The camera curve of video (1, 6, 14, 15) is read as sRGB's, as in browsers:
    # encoders write these codes for images that are sRGB.
    **dict.fromkeys((1, 2, 6, 13, 14, 15), _SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
_HDR = {16: "PQ", 18: "HLG"}
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white point of ICC profiles


class ColorSpaceError(ValueError):
    """Raised if the declared colour space cannot be converted to sRGB."""


class Cicp(NamedTuple):
    """A colour space as CICP code points (ITU-T H.273): primaries, transfer curve."""

    primaries: int
    transfer: int


def declared_profile(image: Image.Image, cicp: Cicp | None = None) -> bytes | None:
    """Return an ICC profile for an opened image's pixels, None if they are sRGB.

    cicp: the CICP code points in the file, if any. Raises ColorSpaceError for HDR and
    for unknown code points.
    """
    # The order of precedence is that of the PNG specification (third edition, section
    # 4.3): cICP, ICC profile, sRGB, then gAMA and cHRM. In AVIF and HEIC an ICC profile
    # takes precedence over CICP (MIAF, section 7.3.6.4).
    icc = image.info.get("icc_profile")
    if cicp and (image.format == "PNG" or not icc):
        return cicp_profile(cicp, image.mode)
    if icc:
        return icc if isinstance(icc, bytes) else None
    return _png_profile(image) if image.format == "PNG" else None


def cicp_profile(cicp: Cicp, mode: str) -> bytes | None:
    """Return an ICC profile for CICP code points, None if they mean sRGB.

    mode: Pillow's mode of the pixels. Raises ColorSpaceError for HDR and for unknown
    code points.
    """
    if cicp.transfer in _HDR:
        raise ColorSpaceError(
            f"HDR ({_HDR[cicp.transfer]}) has no exact sRGB version: convert it to SDR first"
        )
    if cicp.primaries not in _PRIMARIES or cicp.transfer not in _CURVES:
        raise ColorSpaceError(
            f"unknown colour space (CICP primaries {cicp.primaries}, transfer {cicp.transfer})"
        )
    return _profile(_PRIMARIES[cicp.primaries], _CURVES[cicp.transfer], mode)


def _png_profile(image: Image.Image) -> bytes | None:
    """Return an ICC profile made from a PNG's gAMA and cHRM chunks, None for sRGB."""
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or not (gamma or points):
        return None
    primaries = tuple(points) if points else _BT709
    # As in libpng, a gamma near 1/2.2 with sRGB's primaries stands for sRGB's curve,
    # which writers of sRGB images state in this way.
    if gamma and abs(gamma * 2.2 - 1) < 0.02 and _is_bt709(primaries):
        return None
    return _profile(primaries, (1 / gamma,) if gamma else _SRGB_CURVE, image.mode)


def _is_bt709(primaries: Chromaticities) -> bool:
    return bool(np.allclose(primaries, _BT709, atol=0.002))


@lru_cache(maxsize=64)
def _profile(points: Chromaticities, curve: Curve, mode: str) -> bytes | None:
    """Return the ICC profile of a colour space, None if it is sRGB or impossible."""
    gray = mode in ("1", "L", "LA", "La", "I", "I;16")
    if curve == _SRGB_CURVE and (gray or _is_bt709(points)):
        return None
    try:
        return make_profile(points, curve, gray)
    except np.linalg.LinAlgError:  # for example, all primaries are on one line
        return None


def make_profile(points: Chromaticities, curve: Curve, gray: bool = False) -> bytes:
    """Return an ICC profile (version 4) with the given primaries and transfer curve.

    Raises LinAlgError if the primaries or the white point are degenerate.
    """
    kind = 0 if len(curve) == 1 else 3
    tone = b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(curve)
    if gray:
        tags = {b"kTRC": tone}
    else:
        colorants = _colorants(points)
        tags = {
            name + suffix: data
            for name, xyz in zip((b"r", b"g", b"b"), colorants.T, strict=True)
            for suffix, data in ((b"XYZ", _xyz(xyz)), (b"TRC", tone))
        }
    return _pack_profile({**tags, b"wtpt": _xyz(_D50)}, b"GRAY" if gray else b"RGB ")


def _colorants(points: Chromaticities) -> np.ndarray:
    """Return a matrix with the XYZ values of red, green and blue as its columns.

    Raises LinAlgError for degenerate chromaticities.
    """
    xy = np.array(points, np.float64).reshape(4, 2)
    if not (np.isfinite(xy).all() and (xy[:, 1] > 1e-4).all()):
        raise np.linalg.LinAlgError
    white, *primaries = np.column_stack([xy[:, 0], xy[:, 1], 1 - xy.sum(1)]) / xy[:, 1:]
    columns = np.array(primaries).T
    if abs(np.linalg.det(columns)) < 1e-3:
        raise np.linalg.LinAlgError
    # Adapt the primaries to the white point D50 by the Bradford method.
    unadapted = columns * np.linalg.solve(columns, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ (scale[:, None] * (_BRADFORD @ unadapted))


def _fixed(values: Sequence[float]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed([float(value) for value in values])


def _pack_profile(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """Return the bytes of an ICC display profile (ICC.1:2022, section 7)."""
    header = struct.pack(
        ">I4sI4s4s4s12s4s28s12s48s",
        *(0, b"", 0x04300000, b"mntr", space, b"XYZ ", bytes(12), b"acsp", bytes(28)),
        *(_fixed([float(value) for value in _D50]), bytes(48)),
    )
    table, body = struct.pack(">I", len(tags)), b""
    start = len(header) + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    profile = header + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


def find_cicp(head: bytes) -> Cicp | None:
    """Return the CICP code points in the first bytes of an image file, or None."""
    if head.startswith(b"\x89PNG"):
        return next(
            (Cicp(*body[:2]) for body in _png_chunks(head, b"cICP") if len(body) == 4), None
        )
    # In AVIF and HEIC they are in the first `colr` box of type `nclx` (ISO 14496-12,
    # section 12.1.5). Boxes of the AV1 stream itself are not read.
    for body in find_boxes(head, (b"meta", b"iprp", b"ipco", b"colr")):
        if body.startswith(b"nclx") and len(body) >= 8:
            return Cicp(*struct.unpack(">HH", body[4:8]))
    return None


def _png_chunks(data: bytes, wanted: bytes) -> Iterator[bytes]:
    """Yield the bodies of a PNG's chunks of one type that come before its pixels."""
    position = 8
    while position + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        if name == b"IDAT":
            return
        if name == wanted:
            yield data[position + 8 : position + 8 + length]
        position += length + 12


def to_srgb(pixels: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert 8-bit pixels without transparency to sRGB, mode RGB.

    A damaged `profile`, or one for another kind of pixels, is ignored.
    """
    if pixels.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        return ImageCms.applyTransform(pixels, transform) or pixels
    # As in browsers, for example a CMYK profile in an RGB image is ignored.
    gray, cmyk, rgb = _transforms(profile) if profile else (None, None, None)
    if pixels.mode == "CMYK" and cmyk:
        return ImageCms.applyTransform(pixels, cmyk) or pixels
    if pixels.mode == "L" and gray:
        return ImageCms.applyTransform(pixels, gray) or pixels
    if pixels.mode != "RGB":  # `convert` would copy an image that is RGB already
        pixels = pixels.convert("RGB")
    return ImageCms.applyTransform(pixels, rgb) or pixels if rgb else pixels


@lru_cache(maxsize=64)
def _transforms(profile: bytes) -> tuple[Transform | None, Transform | None, Transform | None]:
    """Return the transforms to sRGB for gray, CMYK and RGB; each may be None."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        # Only the transform for the profile's colour space is set.
        modes = [
            mode if space == name else None
            for mode, name in (("L", "GRAY"), ("CMYK", "CMYK"), ("RGB", "RGB"))
        ]
        gray, cmyk, rgb = (
            mode and ImageCms.buildTransform(opened, _SRGB, mode, "RGB") for mode in modes
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None, None, None  # a damaged profile: treat the pixels as sRGB, as browsers do
    return gray or None, cmyk or None, rgb if rgb and not _is_identity(rgb) else None


def _is_identity(transform: Transform) -> bool:
    """Return whether a transform changes no channel, from 0 to 255, by more than 2."""
    # The profile is then sRGB itself. A grid of colours is tested.
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return bool(np.abs(after.astype(int) - grid).max() <= 2)

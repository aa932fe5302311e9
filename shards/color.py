"""Convert between sRGB and CIELAB in float32 NumPy, and to and from the stored format.

The white point is D65 with the 2 degree observer. CIELAB follows CIE 15:2004 section
8.2.1, sRGB follows IEC 61966-2-1.
"""

from __future__ import annotations

import numpy as np

_XYZ_OF_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, as in scikit-image, the tests' reference
_TO_XYZ = (_XYZ_OF_RGB / _WHITE[:, None]).astype(np.float32)  # white maps to 1, 1, 1
_FROM_XYZ = np.linalg.inv(_XYZ_OF_RGB / _WHITE[:, None]).astype(np.float32)
_LINEAR = np.where(
    np.arange(256) / 255 > 0.04045,
    ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4,
    np.arange(256) / 255 / 12.92,
).astype(np.float32)
# Pixels per chunk. The temporary arrays fit in the L2 cache: 0.7 instead of 2.0 ms at
# 256 px.
_CHUNK = 8192
_GAMUT_TOLERANCE = 1e-5  # of linear RGB in [0, 1]: more than the rounding of float32
_LARGEST_CHROMA = 140.0  # more than any sRGB colour has; blue has 133.8
_BISECTIONS = 9  # to 140 / 2**9 = 0.27 units of chroma
_SCALE = np.array([2.55, 1, 1], np.float32)[:, None, None]  # of the stored uint8 format
_OFFSET = np.array([0, 128, 128], np.float32)[:, None, None]


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert an 8-bit image from sRGB to CIELAB.

    rgb: (H, W, 3) uint8, sRGB. Returns (3, H, W) float32, CIELAB: L in [0, 100], a and
    b in about [-110, 110].
    """
    pixels = rgb.reshape(-1, 3)
    lab = np.empty((3, len(pixels)), np.float32)
    for start in range(0, len(pixels), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _xyz_to_lab(_TO_XYZ @ _LINEAR.take(pixels[chunk]).T, lab[:, chunk])
    return lab.reshape(3, *rgb.shape[:2])


def _xyz_to_lab(xyz: np.ndarray, lab: np.ndarray) -> None:
    """Convert XYZ, divided by the white point, to CIELAB in `lab`: both (3, pixels)."""
    f = np.cbrt(xyz)
    np.copyto(f, 7.787 * xyz + 16 / 116, where=xyz <= 0.008856)
    lab[0] = 116 * f[1] - 16
    lab[1] = 500 * (f[0] - f[1])
    lab[2] = 200 * (f[1] - f[2])


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB values to an 8-bit sRGB image; colours outside sRGB are clipped.

    lab: (3, H, W), CIELAB. Returns (H, W, 3) uint8, sRGB.
    """
    # Clipping the channels changes the lightness; `gamut_mapped_rgb` keeps it.
    pixels = lab.astype(np.float32).reshape(3, -1)
    return _to_eight_bits(_lab_to_linear(*pixels)).T.reshape(*lab.shape[1:], 3)


def _lab_to_linear(L: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Convert CIELAB, (pixels,) each, to linear RGB without clipping: (3, pixels)."""
    y = (L + 16) / 116
    f = np.stack([y + a / 500, y, np.maximum(y - b / 200, 0)])  # like scikit-image: no negative Z
    xyz = np.where(f > 0.2068966, f * f * f, (f - 16 / 116) / 7.787)
    return _FROM_XYZ @ xyz


def _to_eight_bits(linear: np.ndarray) -> np.ndarray:
    """Encode linear RGB as 8-bit sRGB, clipped: (3, pixels) float32 to uint8."""
    linear = np.clip(linear, 0, 1)
    rgb = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def gamut_mapped_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB values to an 8-bit sRGB image of the same lightness and hue.

    A colour outside sRGB gets the largest chroma that sRGB has at its L and hue. lab:
    (3, H, W), CIELAB, with L in [0, 100]. Returns (H, W, 3) uint8, sRGB.
    """
    pixels = lab.reshape(3, -1)
    rgb = np.empty((pixels.shape[1], 3), np.uint8)
    for start in range(0, len(rgb), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        part = pixels[:, chunk].astype(np.float32)
        linear = _lab_to_linear(*part)
        outside = np.flatnonzero(_is_outside(linear))
        if len(outside):
            linear[:, outside] = _with_reduced_chroma(*part[:, outside])
        rgb[chunk] = _to_eight_bits(linear).T  # changes L by at most 0.3
    return rgb.reshape(*lab.shape[1:], 3)


def _is_outside(linear: np.ndarray) -> np.ndarray:
    """Return which linear RGB colours, (3, N), are outside sRGB: (N,) bool."""
    # By more than rounding.
    return (linear.min(0) < -_GAMUT_TOLERANCE) | (linear.max(0) > 1 + _GAMUT_TOLERANCE)


def _with_reduced_chroma(L: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Reduce the chroma of colours outside sRGB to its boundary; return linear RGB.

    L, a, b: (pixels,), CIELAB. Returns (3, pixels).
    """
    high = _LARGEST_CHROMA / np.maximum(np.hypot(a, b), _LARGEST_CHROMA)
    low = np.zeros_like(high)
    # Find the factor of the chroma by bisection. L and the hue stay constant.
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        outside = _is_outside(_lab_to_linear(L, a * middle, b * middle))
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return _lab_to_linear(L, a * low, b * low)


def pack(lab: np.ndarray, dtype: str = "uint8") -> np.ndarray:
    """Convert CIELAB values to the stored format.

    lab: (3, H, W) float32, CIELAB. Returns (3, H, W), either uint8 (L * 2.55, a + 128,
    b + 128, rounded) or float16 (the values unchanged).
    """
    if dtype == "float16":
        return lab.astype(np.float16)
    # The error is at most 0.5 / 2.55 = 0.196 in L and 0.5 in a and b; all sRGB colours
    # are within the range.
    scaled = lab * _SCALE
    scaled += _OFFSET
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def unpack(stored: np.ndarray) -> np.ndarray:
    """Convert the stored format to CIELAB values.

    stored: (..., 3, H, W), uint8 or float16. Returns (..., 3, H, W) float32, CIELAB.
    """
    if stored.dtype == np.uint8:
        return (stored - _OFFSET) / _SCALE
    return stored.astype(np.float32)

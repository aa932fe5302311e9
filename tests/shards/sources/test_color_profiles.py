"""Tests of color_profiles: declared colour spaces become sRGB, by closed forms."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from shards.sources.color_profiles import find_cicp
from shards.sources.decode import UndecodableError, decode_image
from shards.sources.image_formats import FORMATS
from tests.support.photographs import encode, photograph

RGB = photograph("coffee")[:48, :64]
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))
D65 = (0.3127, 0.3290)
BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))

needs_avif = pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow has no AVIF decoder")


def to_linear(levels: np.ndarray) -> np.ndarray:
    """Return linear light in [0, 1] of sRGB levels (IEC 61966-2-1)."""
    v = levels / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def to_levels(linear: np.ndarray) -> np.ndarray:
    """Return sRGB levels of linear light, as floats."""
    v = linear.clip(0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Return the matrix from linear RGB with these primaries and D65 to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    return columns * np.linalg.solve(columns, white)


def from_primaries(linear: np.ndarray, primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Return the sRGB levels of linear light in other primaries."""
    return to_levels(linear @ (np.linalg.inv(to_xyz(BT709)) @ to_xyz(primaries)).T)


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """Return a PNG with a chunk inserted after its header."""
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return png[:33] + struct.pack(">I", len(body)) + name + body + checksum + png[33:]


def gamma_chunk(png: bytes, gamma: float) -> bytes:
    return with_chunk(png, b"gAMA", struct.pack(">I", round(100_000 * gamma)))


def primaries_chunk(png: bytes, primaries: tuple[tuple[float, float], ...]) -> bytes:
    numbers = [round(100_000 * value) for point in (D65, *primaries) for value in point]
    return with_chunk(png, b"cHRM", struct.pack(">8I", *numbers))


def avif(primaries: int, transfer: int) -> bytes:
    """Return an AVIF that declares these CICP code points."""
    data = bytearray(encode(RGB, "AVIF", quality=100, subsampling="4:4:4"))
    place = data.index(b"colrnclx") + 8
    data[place : place + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


def error(data: bytes, expected: np.ndarray) -> float:
    """Return the largest difference of a decoded file from sRGB levels (H, W, 3)."""
    return float(np.abs(np.asarray(decode_image(data)) - expected).max())


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8])
def test_gamma_of_a_png_is_applied(gamma: float) -> None:
    expected = to_levels((RGB / 255) ** (1 / gamma))
    assert error(gamma_chunk(encode(RGB), gamma), expected) <= 1.1
    gray = to_levels((GRAY / 255) ** (1 / gamma))[..., None].repeat(3, -1)
    assert error(gamma_chunk(encode(GRAY), gamma), gray) <= 1.1


def test_gamma_of_srgb_changes_nothing() -> None:
    assert error(gamma_chunk(encode(RGB), 0.45455), RGB) == 0
    assert error(gamma_chunk(with_chunk(encode(RGB), b"sRGB", b"\0"), 1.0), RGB) == 0


def test_primaries_of_a_png_are_applied() -> None:
    data = primaries_chunk(encode(RGB), BT2020)
    assert error(data, from_primaries(to_linear(RGB), BT2020)) <= 1.1
    pure = from_primaries((RGB / 255) ** 2.2, BT2020)  # as in Adobe RGB
    assert error(gamma_chunk(data, 0.45455), pure) <= 1.1


@pytest.mark.parametrize("body", [bytes(32), struct.pack(">8I", *[30_000] * 8)])
def test_impossible_primaries_are_ignored(body: bytes) -> None:
    assert error(with_chunk(encode(RGB), b"cHRM", body), RGB) == 0
    assert error(gamma_chunk(encode(RGB), 0.0), RGB) == 0


def test_code_points_of_a_png_are_applied() -> None:
    data = gamma_chunk(with_chunk(encode(RGB), b"cICP", bytes([12, 13, 0, 1])), 1.0)
    assert error(data, from_primaries(to_linear(RGB), P3)) <= 1.1


@needs_avif
@pytest.mark.parametrize(
    ("primaries", "matrix"), [(9, BT2020), (12, P3), (1, BT709), (2, BT709)], ids=str
)
@pytest.mark.parametrize("transfer", [1, 13, 14])
def test_code_points_of_an_avif_are_applied(
    primaries: int, matrix: tuple[tuple[float, float], ...], transfer: int
) -> None:
    plain = np.asarray(decode_image(avif(1, 13)))
    expected = from_primaries(to_linear(plain), matrix)
    assert error(avif(primaries, transfer), expected) <= 1.1


@needs_avif
def test_linear_avif_is_converted() -> None:
    plain = np.asarray(decode_image(avif(1, 13)))
    assert error(avif(1, 8), to_levels(plain / 255)) <= 1.1


@needs_avif
@pytest.mark.parametrize(
    ("transfer", "reason"),
    [
        (16, r"HDR \(PQ\).*convert it to SDR"),
        (18, r"HDR \(HLG\).*convert it to SDR"),
        (11, "unknown colour space .CICP primaries 9, transfer 11"),
    ],
)
def test_hdr_and_unknown_code_points_are_refused(transfer: int, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decode_image(avif(9, transfer))


@needs_avif
def test_code_points_are_found_by_the_structure_of_the_file() -> None:
    data = avif(9, 14)
    assert find_cicp(data) == (9, 14)
    assert find_cicp(data[:20]) is None
    assert find_cicp(b"colrnclx" + bytes(8)) is None
    assert find_cicp(encode(RGB, "JPEG")) is None


def test_icc_profile_of_gray_with_alpha_is_applied() -> None:
    from shards.sources.color_profiles import make_profile

    profile = make_profile((*D65, *BT709[0], *BT709[1], *BT709[2]), (1.0,), gray=True)
    opaque = np.full_like(GRAY, 255)
    opaque[:10] = 0
    image = Image.merge("LA", (Image.fromarray(GRAY), Image.fromarray(opaque)))
    expected = to_levels(GRAY / 255)[..., None].repeat(3, -1)
    expected[:10] = 255
    assert error(encode(image, icc_profile=profile), expected) <= 1.1
    assert error(encode(image, "TIFF", icc_profile=profile), expected) <= 1.1


def test_littlecms_is_available() -> None:
    assert features.check("littlecms2")

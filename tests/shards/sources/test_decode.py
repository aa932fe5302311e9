"""Tests of decode: every mode, orientation and profile gives upright sRGB."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from shards.sources.decode import (
    FITS,
    UndecodableError,
    decode_image,
    fit_image,
    open_image,
    reduce_jpeg,
    to_rgb,
    upright_size,
)
from tests.support.photographs import encode, photograph

RGB = photograph("coffee")[:120, :160]
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_lossless_formats_are_exact(kind: str) -> None:
    image = RGB if kind != "GIF" else np.asarray(Image.fromarray(RGB).quantize(200).convert("RGB"))
    assert np.array_equal(decoded(encode(image, kind)), image)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})]
)
def test_lossy_formats_are_close(kind: str, options: dict[str, int]) -> None:
    assert np.abs(decoded(encode(RGB, kind, **options)).astype(int) - RGB).mean() < 4


def test_lossless_webp_is_exact() -> None:
    assert np.array_equal(decoded(encode(RGB, "WEBP", lossless=True)), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_modes_with_few_bits(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    assert np.array_equal(decoded(encode(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grayscale_is_scaled_not_clipped(kind: str) -> None:
    deep = GRAY.astype(np.uint16) * 257
    deep[0, :2] = 0, 65535
    expected = np.rint(deep / 257)[..., None].repeat(3, -1)
    assert np.array_equal(decoded(encode(deep, kind)), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_min_is_white_tiff_is_not_inverted(kind: type) -> None:
    import tifffile

    stream = io.BytesIO()
    negative: np.ndarray = (255 - GRAY).astype(kind) * (257 if kind is np.uint16 else 1)
    tifffile.imwrite(stream, negative, photometric="miniswhite")
    assert np.array_equal(decoded(stream.getvalue()), GRAY[..., None].repeat(3, -1))


def test_transparent_16_bit_gray_level_becomes_white() -> None:
    deep = GRAY.astype(np.uint16) * 257
    deep[:5, :7], deep[5:9, :7] = 1000, 1001  # equal after scaling to 8 bits
    image = Image.fromarray(deep)
    pixels = decoded(encode(image, transparency=1000))
    assert (pixels[:5, :7] == 255).all()
    assert (pixels[5:9, :7] == 4).all()
    assert np.array_equal(pixels[9:], GRAY[9:, :, None].repeat(3, -1))


def test_png_with_megabytes_of_metadata_is_read() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("history", "edited " * 600_000, zip=True)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(
        decoded(encode(RGB, pnginfo=text, icc_profile=srgb + bytes(3 << 20))), RGB
    )


def png_of_16_bits(deep: np.ndarray) -> bytes:
    """Return a colour PNG with 16 bits per channel, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", deep.shape[1], deep.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_16_bit_colour_is_within_a_level() -> None:
    import tifffile  # a dependency of scikit-image

    deep = np.random.default_rng(0).integers(0, 65536, RGB.shape, dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    stream = io.BytesIO()
    tifffile.imwrite(stream, deep, photometric="rgb")
    for data in (png_of_16_bits(deep), stream.getvalue()):
        assert np.abs(decoded(data) - deep / 257).max() < 1


def test_cmyk_without_a_profile() -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    assert np.abs(decoded(encode(image, "TIFF")).astype(int) - RGB).max() <= 1
    assert np.abs(decoded(encode(image, "JPEG", quality=95)).astype(int) - RGB).mean() < 5


def test_transparent_image_is_composited_on_white() -> None:
    alpha = np.linspace(0, 255, GRAY.size).reshape(GRAY.shape).astype(np.uint8)
    expected = RGB * (alpha / 255)[..., None] + 255 - alpha[..., None]
    assert np.abs(decoded(encode(np.dstack([RGB, alpha]))) - expected).max() <= 1
    expected = (GRAY * (alpha / 255) + 255 - alpha)[..., None]
    image = Image.merge("LA", [Image.fromarray(x) for x in (GRAY, alpha)])
    assert np.abs(decoded(encode(image)) - expected).max() <= 1


def test_transparent_palette_colour_becomes_white() -> None:
    image = Image.fromarray(RGB).quantize(16)
    data = encode(image, transparency=3)
    mask = np.asarray(image) == 3
    assert mask.any()
    assert np.array_equal(decoded(data)[mask], np.full((mask.sum(), 3), 255))
    assert np.array_equal(decoded(data)[~mask], np.asarray(image.convert("RGB"))[~mask])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    transforms = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),  # must be rotated by 90 degrees clockwise
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options: dict[str, dict[str, int]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    data = encode(RGB, kind, exif=exif, **options.get(kind, {}))
    upright = transforms[orientation](RGB)
    assert np.abs(decoded(data).astype(int) - upright).max() <= 6
    assert upright_size(open_image(data)) == (upright.shape[1], upright.shape[0])


def swapped_profile() -> bytes:
    """Return sRGB's profile with red and green swapped, by renaming two tags."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def test_icc_profile_is_applied() -> None:
    data = encode(RGB, icc_profile=swapped_profile())
    assert np.abs(decoded(data).astype(int) - RGB[..., [1, 0, 2]]).max() <= 2


def test_profile_that_is_srgb_or_damaged_or_for_another_mode_has_no_effect() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray = Image.fromarray(GRAY)
    assert np.array_equal(decoded(encode(RGB, icc_profile=srgb)), RGB)
    assert np.array_equal(decoded(encode(RGB, icc_profile=b"no profile")), RGB)
    assert np.array_equal(decoded(encode(gray, icc_profile=srgb)), GRAY[..., None].repeat(3, -1))


def test_lab_tiff_is_converted_to_srgb() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    image = ImageCms.applyTransform(Image.fromarray(RGB), to_lab)
    assert image
    assert np.abs(decoded(encode(image, "TIFF")).astype(int) - RGB).mean() < 3


def test_decompression_bomb_is_rejected_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("1", (4000, 4000)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(
        UndecodableError, match="decompression bomb: 4000 x 4000 pixels, more than 1000000"
    ):
        decode_image(data, max_pixels=1_000_000)


def test_limit_can_exceed_pillows_own() -> None:
    wide = encode(Image.new("1", (20_000, 9_500)))  # 190 million pixels, at which Pillow raises
    assert open_image(wide, max_pixels=200_000_000).size == (20_000, 9_500)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_truncated_file_is_unreadable(kind: str) -> None:
    data = encode(RGB, kind)
    with pytest.raises(UndecodableError) as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.reason == "unreadable"
    assert "0x" not in caught.value.detail


@pytest.mark.parametrize(
    "data", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_other_data_is_unreadable(data: bytes) -> None:
    with pytest.raises(UndecodableError, match="unreadable: no image of a known format"):
        decode_image(data)


def test_floating_point_pixels_are_rejected() -> None:
    with pytest.raises(UndecodableError, match="no defined range"):
        decode_image(encode(GRAY.astype(np.float32), "TIFF"))


def test_reduced_jpeg_has_twice_the_target_size_and_similar_pixels() -> None:
    data = encode(photograph("astronaut"), "JPEG", quality=95)  # 512 x 512
    reduced = open_image(data)
    reduce_jpeg(reduced, 64)
    small = to_rgb(reduced)
    assert small.size == (128, 128)
    error = np.asarray(fit_image(small, 64)).astype(int) - np.asarray(
        fit_image(decode_image(data), 64)
    )
    assert np.abs(error).mean() < 1.5


@pytest.mark.parametrize("fit", FITS)
def test_fit_modes_match_their_definitions(fit: str) -> None:
    image = Image.fromarray(RGB)  # 160 wide, 120 high
    square = np.asarray(fit_image(image, 40, fit))
    assert square.shape == (40, 40, 3)
    bicubic = Image.Resampling.BICUBIC
    if fit == "crop":
        expected = np.asarray(image.crop((20, 0, 140, 120)).resize((40, 40), bicubic))
    elif fit == "squash":
        expected = np.asarray(image.resize((40, 40), bicubic))
    else:
        expected = np.pad(np.asarray(image.resize((40, 30), bicubic)), ((5, 5), (0, 0), (0, 0)))
    assert np.abs(square.astype(int) - expected).max() <= 12
    assert np.abs(square.astype(int) - expected).mean() < 0.2


def test_crop_without_scaling_keeps_the_pixels() -> None:
    image = Image.fromarray(RGB[:, :131])  # odd margin: an offset of half a pixel would blur
    assert np.array_equal(np.asarray(fit_image(image, 120)), RGB[:, 5:125])

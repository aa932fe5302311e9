"""Every mode, orientation and profile comes out as the upright sRGB picture a person would see."""

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
GREY = np.asarray(Image.fromarray(RGB).convert("L"))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_lossless_formats_come_out_exact(kind: str) -> None:
    picture = (
        RGB if kind != "GIF" else np.asarray(Image.fromarray(RGB).quantize(200).convert("RGB"))
    )
    assert np.array_equal(decoded(encode(picture, kind)), picture)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})]
)
def test_lossy_formats_come_out_close(kind: str, options: dict[str, int]) -> None:
    assert np.abs(decoded(encode(RGB, kind, **options)).astype(int) - RGB).mean() < 4


def test_lossless_webp_is_exact() -> None:
    assert np.array_equal(decoded(encode(RGB, "WEBP", lossless=True)), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_modes_of_few_bits(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    assert np.array_equal(decoded(encode(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    deep = GREY.astype(np.uint16) * 257
    deep[0, :2] = 0, 65535
    expected = np.rint(deep / 257)[..., None].repeat(3, -1)
    assert np.array_equal(decoded(encode(deep, kind)), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_whose_0_is_white_is_not_a_negative(kind: type) -> None:
    import tifffile

    stream = io.BytesIO()
    negative: np.ndarray = (255 - GREY).astype(kind) * (257 if kind is np.uint16 else 1)
    tifffile.imwrite(stream, negative, photometric="miniswhite")
    assert np.array_equal(decoded(stream.getvalue()), GREY[..., None].repeat(3, -1))


def test_one_transparent_grey_of_65536_becomes_white() -> None:
    deep = GREY.astype(np.uint16) * 257
    deep[:5, :7], deep[5:9, :7] = 1000, 1001  # the same of 256 greys
    image = Image.fromarray(deep)
    pixels = decoded(encode(image, transparency=1000))
    assert (pixels[:5, :7] == 255).all()
    assert (pixels[5:9, :7] == 4).all()
    assert np.array_equal(pixels[9:], GREY[9:, :, None].repeat(3, -1))


def test_a_png_with_megabytes_beside_its_pixels_is_read() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("history", "edited " * 600_000, zip=True)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(
        decoded(encode(RGB, pnginfo=text, icc_profile=srgb + bytes(3 << 20))), RGB
    )


def png_of_16_bits(deep: np.ndarray) -> bytes:
    """A colour PNG of 16 bits a channel, which Pillow cannot write."""
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


def test_alpha_is_laid_on_white() -> None:
    alpha = np.linspace(0, 255, GREY.size).reshape(GREY.shape).astype(np.uint8)
    expected = RGB * (alpha / 255)[..., None] + 255 - alpha[..., None]
    assert np.abs(decoded(encode(np.dstack([RGB, alpha]))) - expected).max() <= 1
    expected = (GREY * (alpha / 255) + 255 - alpha)[..., None]
    assert (
        np.abs(
            decoded(encode(Image.merge("LA", [Image.fromarray(x) for x in (GREY, alpha)])))
            - expected
        ).max()
        <= 1
    )


def test_a_palettes_transparent_colour_becomes_white() -> None:
    image = Image.fromarray(RGB).quantize(16)
    data = encode(image, transparency=3)
    places = np.asarray(image) == 3
    assert places.any()
    assert np.array_equal(decoded(data)[places], np.full((places.sum(), 3), 255))
    assert np.array_equal(decoded(data)[~places], np.asarray(image.convert("RGB"))[~places])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),  # "rotate 90 clockwise to see it upright"
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
    upright = turns[orientation](RGB)
    assert np.abs(decoded(data).astype(int) - upright).max() <= 6
    assert upright_size(open_image(data)) == (upright.shape[1], upright.shape[0])


def swapped_profile() -> bytes:
    """An RGB profile whose red and green primaries are exchanged: sRGB's bytes with two tags renamed."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def test_an_icc_profile_changes_the_colours() -> None:
    data = encode(RGB, icc_profile=swapped_profile())
    assert np.abs(decoded(data).astype(int) - RGB[..., [1, 0, 2]]).max() <= 2


def test_a_profile_that_is_srgb_or_damaged_or_for_other_pixels_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.fromarray(GREY)
    assert np.array_equal(decoded(encode(RGB, icc_profile=srgb)), RGB)
    assert np.array_equal(decoded(encode(RGB, icc_profile=b"no profile")), RGB)
    assert np.array_equal(decoded(encode(grey, icc_profile=srgb)), GREY[..., None].repeat(3, -1))


def test_a_lab_tiff_is_shown_in_its_colours() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    image = ImageCms.applyTransform(Image.fromarray(RGB), to_lab)
    assert image
    assert np.abs(decoded(encode(image, "TIFF")).astype(int) - RGB).mean() < 3


def test_a_bomb_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("1", (4000, 4000)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(
        UndecodableError, match="decompression bomb: 4000 x 4000 pixels, more than 1000000"
    ):
        decode_image(data, max_pixels=1_000_000)


def test_the_limit_may_be_raised_above_pillows() -> None:
    wide = encode(Image.new("1", (20_000, 9_500)))  # 190 million, where Pillow itself raises
    assert open_image(wide, max_pixels=200_000_000).size == (20_000, 9_500)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_file_is_unreadable(kind: str) -> None:
    data = encode(RGB, kind)
    with pytest.raises(UndecodableError) as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.reason == "unreadable"
    assert "0x" not in caught.value.detail


@pytest.mark.parametrize(
    "data", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(UndecodableError, match="unreadable: no image of a known format"):
        decode_image(data)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(UndecodableError, match="no defined range"):
        decode_image(encode(GREY.astype(np.float32), "TIFF"))


def test_reduced_jpegs_stay_at_twice_the_target_and_look_the_same() -> None:
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
def test_fits_show_what_they_say(fit: str) -> None:
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


def test_cropping_without_scaling_keeps_the_pixels() -> None:
    image = Image.fromarray(RGB[:, :131])  # an odd margin: half a pixel would blur
    assert np.array_equal(np.asarray(fit_image(image, 120)), RGB[:, 5:125])

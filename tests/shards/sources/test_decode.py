"""Tests of decode: every mode, orientation and profile gives upright sRGB."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from shards.sources.decode import (
    FITS,
    UndecodableError,
    decode_image,
    decode_reduced,
    fit_image,
    open_image,
    to_rgb,
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


def test_12_bit_grayscale_tiff_is_scaled_by_its_own_white() -> None:
    deep = (GRAY.astype(np.uint16) * 4095 + 127) // 255
    deep[0, :2] = 0, 4095
    first, second = deep.reshape(-1, 2).T  # two pixels are stored in three bytes
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    width, height = deep.shape[::-1]
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, 12), (259, 3, 1), (262, 3, 1)),
        *((273, 4, 200), (277, 3, 1), (278, 4, height), (279, 4, packed.size)),
    ]
    entries = b"".join(
        struct.pack("<HHIHH" if t == 3 else "<HHII", n, t, 1, *((v, 0) if t == 3 else (v,)))
        for n, t, v in tags
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    data = head.ljust(200, b"\0") + packed.astype(np.uint8).tobytes()
    assert np.array_equal(decoded(data), np.rint(deep / 4095 * 255)[..., None].repeat(3, -1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_layouts_of_tiffs_have_equal_pixels(
    kind: type, planes: str, tile: tuple[int, int] | None, compression: str | None, order: str
) -> None:
    import tifffile

    levels = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, RGB.shape)
    deep: np.ndarray = levels.astype(kind)
    stored = np.ascontiguousarray(np.moveaxis(deep, -1, 0)) if planes == "separate" else deep
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        stored,
        photometric="rgb",
        byteorder="<" if order == "<" else ">",
        planarconfig=planes,
        tile=tile,
        compression=compression,
    )
    scale = np.iinfo(kind).max / 255
    assert np.abs(decoded(stream.getvalue()) - deep / scale).max() < 1


def test_preview_in_a_camera_raw_file_is_not_taken_for_the_photograph() -> None:
    data = encode(RGB, "TIFF", tiffinfo={254: 1})
    with pytest.raises(UndecodableError, match="preview"):
        decode_image(data)


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
    assert decode_reduced(open_image(data), 16).size == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoded_image_is_not_turned_or_converted_again(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = decode_image(encode(RGB, kind, exif=exif, icc_profile=swapped_profile()))
    again = to_rgb(to_rgb(image))
    assert np.array_equal(np.asarray(again), np.asarray(image))
    assert image.info == {}
    assert not image.getexif()


def test_decoding_leaves_the_metadata_of_an_opened_image() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    opened = Image.open(io.BytesIO(encode(RGB, exif=exif, dpi=(300, 300))))
    assert to_rgb(opened).size == (120, 160)
    assert opened.getexif()[ExifTags.Base.Orientation] == 6
    assert "dpi" in opened.info


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_in_xmp_alone_has_no_effect(kind: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/>'
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        data = encode(RGB, kind, pnginfo=text)
    elif kind == "TIFF":
        data = encode(RGB, kind, tiffinfo={700: xmp})
    else:
        data = encode(RGB, kind, xmp=xmp)
    assert decode_image(data).size == (160, 120)
    assert decode_reduced(open_image(data), 16).size == (160, 120)


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
        UndecodableError,
        match="decompression bomb: 4000 x 4000 pixels, more than --max-pixels 1000000",
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
    ("data", "detail"),
    [
        (b"", "an empty file"),
        (b"no image", "no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript or PDF file"),
    ],
)
def test_other_data_is_unreadable(data: bytes, detail: str) -> None:
    with pytest.raises(UndecodableError, match=f"unreadable: {detail}"):
        decode_image(data)


def test_floating_point_pixels_are_rejected() -> None:
    with pytest.raises(UndecodableError, match="no defined range"):
        decode_image(encode(GRAY.astype(np.float32), "TIFF"))


def test_reduced_jpeg_has_twice_the_target_size_and_similar_pixels() -> None:
    data = encode(photograph("astronaut"), "JPEG", quality=95)  # 512 x 512
    small = decode_reduced(open_image(data), 64)
    assert small.rgb.size == (128, 128)
    error = np.asarray(fit_image(small, 64)).astype(int) - np.asarray(
        fit_image(decode_image(data), 64)
    )
    assert np.abs(error).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
def test_reduced_jpeg_of_any_size_is_not_stretched(fit: str, orientation: int) -> None:
    odd = photograph("astronaut")[:449, :505]  # 449 = 8 x 56 + 1, 505 = 8 x 63 + 1
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(odd, "JPEG", quality=95, subsampling=0, exif=exif)
    reduced = decode_reduced(open_image(data), 24)
    assert reduced.reduction == 8
    small = np.asarray(fit_image(reduced, 24, fit)).astype(int)
    full = np.asarray(fit_image(decode_image(data), 24, fit))
    assert np.abs(small - full).mean() < 1.5  # 7.7 and more if the 64 x 57 pixels are the image


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

"""Encoded bytes to an upright 8-bit sRGB picture, whatever the file's mode, profile or orientation, and its square.

Lossy choices, all small: a JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 by libjpeg's own DCT scaling
while both sides stay at least twice the target (the bicubic filter then removes the rest); 16 bits become 8.
"""

from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageChops,
    ImageCms,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from shards.sources.decompression_bombs import excess

MAX_PIXELS = 100_000_000
FITS = ("crop", "squash", "pad")
UNREADABLE, BOMB = "unreadable", "decompression bomb"
Image.init()
# Pillow could also open EPS, which starts Ghostscript; these are decoded in this process alone. (JPEG includes MPO.)
_WANTED = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
FORMATS: list[str] = [name for name in _WANTED if name in Image.OPEN]
Image.MAX_IMAGE_PIXELS = None  # `open_image` has its own check, whose limit the user can set
# Pillow gives up on a PNG with more than 1 MB of a profile or of text; printers and editing histories need more.
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26
PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
_SRGB = ImageCms.createProfile("sRGB")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndecodableError(Exception):
    """An image that cannot be used; `reason` is one of a few words, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The upright sRGB picture of encoded bytes, mode RGB, at full resolution; raises `UndecodableError`."""
    return to_rgb(open_image(data, max_pixels))


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open without decoding pixels; raises `UndecodableError` for no image, or one whose decoding takes too much."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata is no news here
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            too_much = excess(image, data, max_pixels)
    except Exception as error:  # Pillow's parsers raise anything on damaged files
        raise _undecodable_error(error) from None
    if too_much:
        raise UndecodableError(BOMB, too_much)
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened image once it is turned upright."""
    width, height = image.size
    if isinstance(
        image, TiffImagePlugin.TiffImageFile
    ):  # whose `size` is upright already in newer Pillows
        width, height = (
            image.tag_v2[TiffImagePlugin.IMAGEWIDTH],
            image.tag_v2[TiffImagePlugin.IMAGELENGTH],
        )
    return (height, width) if _orientation(image) >= 5 else (width, height)


def reduce_jpeg(image: Image.Image, target: int) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8, while both sides stay at least `2 * target` pixels."""
    image.draft(None, (2 * target, 2 * target))  # does nothing but for JPEG


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image: upright, in sRGB, 8 bits, transparent parts on white; raises `UndecodableError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            turn = _TURNS.get(_orientation(image))  # after load: Pillow turns TIFFs itself
            rgb = _flatten(image)
            return rgb if turn is None else rgb.transpose(turn)
    except (MemoryError, UndecodableError):
        raise
    except Exception as error:
        raise _undecodable_error(error) from None


def fit_image(image: Image.Image, size: int, fit: str = "crop") -> Image.Image:
    """The `size` x `size` picture, antialiased.

    crop: the centred square, scaled; squash: all of it, out of proportion; pad: all of it, on black.
    """
    if fit == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.resize(
            (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGB", (size, size))
    canvas.paste(
        image.resize((width, height), Image.Resampling.BICUBIC),
        ((size - width) // 2, (size - height) // 2),
    )
    return canvas


def _undecodable_error(error: Exception) -> UndecodableError:
    if isinstance(error, UnidentifiedImageError):
        return UndecodableError(UNREADABLE, "no image of a known format")
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # addresses would make two builds differ
    return UndecodableError(UNREADABLE, text or type(error).__name__)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the picture itself may well be whole
        return 1
    return value if value in _TURNS else 1


def _flatten(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    pixels = _eight_bits(image)
    alpha = None
    if pixels.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in pixels.info:
        pixels = pixels.convert("RGBA")
        alpha = pixels.getchannel("A")
    rgb = _to_srgb(pixels, profile)
    return (
        rgb if alpha is None else Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled, not clipped as Pillow's `convert` does (16-bit colour it scales itself, within one level)."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)
        grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        if _is_min_white(image):
            return ImageChops.invert(grey)
        if (
            "transparency" in image.info
        ):  # one of the 65536 greys, to be found before they become 256
            alpha = Image.fromarray(
                np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
            )
            return Image.merge("LA", (grey, alpha))
        return grey
    if image.mode in ("I", "F"):
        raise UndecodableError(UNREADABLE, f"pixels of mode {image.mode!r} have no defined range")
    return image


def _is_min_white(image: Image.Image) -> bool:
    """Whether 0 is white, which Pillow sees to for 8 bits alone."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)


def _to_srgb(pixels: Image.Image, profile: bytes | None) -> Image.Image:
    if pixels.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        return ImageCms.applyTransform(pixels, transform) or pixels
    grey, cmyk, rgb = _transforms(profile) if profile else (None, None, None)
    if pixels.mode == "CMYK" and cmyk:
        return ImageCms.applyTransform(pixels, cmyk) or pixels
    if pixels.mode == "L" and grey:
        return ImageCms.applyTransform(pixels, grey) or pixels
    pixels = (
        pixels if pixels.mode == "RGB" else pixels.convert("RGB")
    )  # convert copies what is RGB already
    return ImageCms.applyTransform(pixels, rgb) or pixels if rgb else pixels


Transform = ImageCms.ImageCmsTransform


@lru_cache(maxsize=64)
def _transforms(profile: bytes) -> tuple[Transform | None, Transform | None, Transform | None]:
    """From the profile's colours to sRGB, for grey, CMYK and RGB pixels: the one it is for, None for the others."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        modes = [
            mode if space == name else None
            for mode, name in (("L", "GRAY"), ("CMYK", "CMYK"), ("RGB", "RGB"))
        ]
        grey, cmyk, rgb = (
            mode and ImageCms.buildTransform(opened, _SRGB, mode, "RGB") for mode in modes
        )
    except (
        ImageCms.PyCMSError,
        OSError,
        ValueError,
    ):  # a damaged profile: take the numbers as sRGB, as browsers do
        return None, None, None
    return grey or None, cmyk or None, rgb if rgb and not _changes_nothing(rgb) else None


def _changes_nothing(transform: Transform) -> bool:
    """Whether a transform leaves a grid of colours as it is, to two levels: a profile that is sRGB by another name."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return bool(np.abs(after.astype(int) - grid).max() <= 2)

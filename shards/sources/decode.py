"""Decode image files to upright 8-bit sRGB, and resize them to squares.

Any mode, colour profile and orientation is supported. Two steps lose a little
precision: a JPEG much larger than needed is decoded at 1/2, 1/4 or 1/8 by libjpeg's DCT
scaling, as long as both sides stay at least twice the target (a bicubic filter does the
rest), and 16-bit images become 8-bit.
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

from shards.sources.decompression_bombs import find_bomb

MAX_PIXELS = 100_000_000
FITS = ("crop", "squash", "pad")
UNREADABLE, BOMB = "unreadable", "decompression bomb"
Image.init()
# Only formats that are decoded in this process: Pillow would also open EPS, which
# starts Ghostscript. JPEG includes MPO. A new format also needs its file suffixes in
# `listing.SUFFIXES`, or folders are searched without it.
_SUPPORTED = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
FORMATS: list[str] = [name for name in _SUPPORTED if name in Image.OPEN]
Image.MAX_IMAGE_PIXELS = None  # `open_image` has its own check with a configurable limit
# By default Pillow rejects a PNG with more than 1 MB of profile or text; profiles of
# printers and editing histories can be larger.
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26
PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
_SRGB = ImageCms.createProfile("sRGB")
_TRANSPOSES = {  # by Exif orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndecodableError(Exception):
    """An image cannot be used.

    `reason` is one of a few fixed strings, `detail` is free text.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to an upright sRGB image, mode RGB, at full resolution.

    Raises UndecodableError if the bytes are not an image, or if decoding it would take
    too much memory or time.
    """
    return to_rgb(open_image(data, max_pixels))


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image without decoding its pixels.

    Raises UndecodableError if the bytes are not an image, or if decoding it would take
    too much memory or time.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, which is common
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            problem = find_bomb(image, data, max_pixels)
    except Exception as error:  # Pillow's parsers raise many types of errors on damaged files
        raise _undecodable_error(error) from None
    if problem:
        raise UndecodableError(BOMB, problem)
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of an opened image after it is turned upright."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # In newer versions of Pillow, `size` is already that of the upright image.
        width, height = (
            image.tag_v2[TiffImagePlugin.IMAGEWIDTH],
            image.tag_v2[TiffImagePlugin.IMAGELENGTH],
        )
    return (height, width) if _orientation(image) >= 5 else (width, height)


def reduce_jpeg(image: Image.Image, target: int) -> None:
    """Make libjpeg decode a JPEG at 1/2, 1/4 or 1/8 of its size where possible.

    Both sides of the decoded image have at least `2 * target` pixels.
    """
    image.draft(None, (2 * target, 2 * target))  # has no effect on other formats than JPEG


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image to upright 8-bit sRGB, mode RGB, on a white background.

    Raises UndecodableError if the image is damaged or its pixel format is not
    supported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            # After load, because Pillow turns TIFF images itself.
            transpose = _TRANSPOSES.get(_orientation(image))
            rgb = _flatten(image)
            return rgb if transpose is None else rgb.transpose(transpose)
    except (MemoryError, UndecodableError):
        raise
    except Exception as error:
        raise _undecodable_error(error) from None


def fit_image(image: Image.Image, size: int, fit: str = "crop") -> Image.Image:
    """Resize an image to `size` x `size` pixels with antialiasing.

    fit: "crop" scales the centre square; "squash" scales the image without keeping its
    aspect ratio; "pad" keeps the aspect ratio and fills the rest with black.
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
    # Without memory addresses, which would make the output of two builds differ.
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error))
    return UndecodableError(UNREADABLE, text or type(error).__name__)


def _orientation(image: Image.Image) -> int:
    """Return the Exif orientation, 1 (upright) where it is missing or invalid."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged Exif data: the pixels may still be intact
        return 1
    return value if value in _TRANSPOSES else 1


def _flatten(image: Image.Image) -> Image.Image:
    """Convert a loaded image to sRGB and composite transparent parts over white."""
    profile = image.info.get("icc_profile")
    pixels = _eight_bits(image)
    alpha = None
    if pixels.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in pixels.info:
        pixels = pixels.convert("RGBA")
        alpha = pixels.getchannel("A")
    rgb = _to_srgb(pixels, profile)
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits per channel.

    16-bit grayscale is scaled here because Pillow's `convert` clips it. 16-bit colour
    is already scaled by Pillow, to within one level. Raises UndecodableError if the
    range of the pixel values is not defined.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)
        gray = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        if _is_min_white(image):
            return ImageChops.invert(gray)
        if "transparency" in image.info:  # a level from 0 to 65535, compared before scaling
            opaque = np.where(values == image.info["transparency"], 0, 255)
            return Image.merge("LA", (gray, Image.fromarray(opaque.astype(np.uint8))))
        return gray
    if image.mode in ("I", "F"):
        raise UndecodableError(UNREADABLE, f"pixels of mode {image.mode!r} have no defined range")
    return image


def _is_min_white(image: Image.Image) -> bool:
    """Return whether 0 is white in this TIFF; Pillow inverts only 8-bit images."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)


def _to_srgb(pixels: Image.Image, profile: bytes | None) -> Image.Image:
    if pixels.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        return ImageCms.applyTransform(pixels, transform) or pixels
    gray, cmyk, rgb = _transforms(profile) if profile else (None, None, None)
    if pixels.mode == "CMYK" and cmyk:
        return ImageCms.applyTransform(pixels, cmyk) or pixels
    if pixels.mode == "L" and gray:
        return ImageCms.applyTransform(pixels, gray) or pixels
    if pixels.mode != "RGB":  # `convert` would copy an image that is RGB already
        pixels = pixels.convert("RGB")
    return ImageCms.applyTransform(pixels, rgb) or pixels if rgb else pixels


Transform = ImageCms.ImageCmsTransform


@lru_cache(maxsize=64)
def _transforms(profile: bytes) -> tuple[Transform | None, Transform | None, Transform | None]:
    """Return transforms from a profile to sRGB for grayscale, CMYK and RGB pixels.

    Only the transform for the profile's colour space is set; the others are None. All
    are None if the profile is damaged or is sRGB itself.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
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
    """Return whether a transform changes a grid of colours by at most two levels.

    If so, its profile is equivalent to sRGB.
    """
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    after = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return bool(np.abs(after.astype(int) - grid).max() <= 2)

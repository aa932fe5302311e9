"""Decode image files to upright 8-bit sRGB, and resize them to squares.

Any mode, colour profile and orientation is supported.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageChops,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from shards.sources.color_profiles import Cicp, declared_profile, find_cicp, to_srgb
from shards.sources.damage import captured_messages, find_png_damage, find_tiff_damage
from shards.sources.decompression_bombs import find_bomb, find_bomb_in_header
from shards.sources.image_formats import FORMATS, find_unsupported_jpeg, name_unsupported

MAX_PIXELS = 100_000_000
FITS = ("crop", "squash", "pad")
UNREADABLE, BOMB = "unreadable", "decompression bomb"
Image.MAX_IMAGE_PIXELS = None  # `open_image` has its own check with a configurable limit
# By default Pillow rejects a PNG with more than 1 MB of profile or text; profiles of
# printers and editing histories can be larger.
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26
PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
# Pillow's own decoder of uncompressed TIFFs reads planes of 16 bits as planes of 8.
TiffImagePlugin.READ_LIBTIFF = True
_NEW_SUBFILE_TYPE = 254  # of TIFF; bit 0: a reduced version of another image in the file
_PRINTING = ("TIFF", "AVIF", "HEIF")  # formats whose decoders print their errors
_XMP = ("xmp", "XML:com.adobe.xmp")
_HEAD = 1 << 20  # bytes of a file in which its CICP code points are searched
_TRANSPOSES = {  # by Exif orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations that make the stored right or bottom edge the left edge, the top edge
_LEFT_FROM_END, _TOP_FROM_END = (2, 3, 6, 7), (3, 4, 7, 8)


class UndecodableError(Exception):
    """Raised if an image cannot be used, with a fixed `reason` and a free `detail`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class ReducedImage:
    """An upright sRGB image that may have been decoded at a reduced size."""

    rgb: Image.Image  # the decoded pixels, mode RGB
    size: tuple[int, int]  # width and height of the full image
    reduction: int = 1  # 1, 2, 4 or 8, by which libjpeg divided both sides
    # The point (x, y) of `rgb`, in its pixels, where the top left corner of the full
    # image lies. libjpeg rounds the sides of `rgb` up, so its last row and column may
    # extend beyond the full image. If turning the image upright moves them to the top
    # or the left, `origin` is not (0, 0).
    origin: tuple[float, float] = (0.0, 0.0)

    def resized(
        self, size: tuple[int, int], left: int, top: int, right: int, bottom: int
    ) -> Image.Image:
        """Return a rectangle of the image, resized to `size` (width, height).

        The rectangle's edges are given in pixels of the full image.
        """
        box = (
            self.origin[0] + left / self.reduction,
            self.origin[1] + top / self.reduction,
            self.origin[0] + right / self.reduction,
            self.origin[1] + bottom / self.reduction,
        )
        return self.rgb.resize(size, Image.Resampling.BICUBIC, box=box)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to an upright sRGB image, mode RGB, at full resolution.

    Raises UndecodableError if the bytes are not an image, or if decoding it would take
    too much memory or time.
    """
    return to_rgb(open_image(data, max_pixels))


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image without decoding its pixels.

    Raises UndecodableError if the bytes are not an image, are damaged according to
    their checksums, or would take too much memory or time to decode.
    """
    with _as_undecodable(data):
        if damage := find_png_damage(data):
            raise UndecodableError(UNREADABLE, damage)
        if problem := find_bomb_in_header(data, max_pixels):
            raise UndecodableError(BOMB, problem)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if problem := find_bomb(image, data, max_pixels):
            raise UndecodableError(BOMB, problem)
        if problem := _find_unsupported(image, data) or find_tiff_damage(image, data):
            raise UndecodableError(UNREADABLE, problem)
    return image


def decode_reduced(image: Image.Image, target: int) -> ReducedImage:
    """Decode an opened image to upright 8-bit sRGB, a large JPEG at a reduced size.

    A reduced image has at least `2 * target` pixels on both sides. Raises
    UndecodableError if the image is damaged or its pixel format is not supported.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        rgb, _ = _decode_upright(image)
        return ReducedImage(rgb, rgb.size)
    width, height = image.size
    # libjpeg's DCT scaling decodes at 1/2, 1/4 or 1/8, and a bicubic filter does the
    # rest. This loses a little precision.
    drafted = image.draft(None, (2 * target, 2 * target))
    reduction = round(width / drafted[1][2]) if drafted else 1
    rgb, orientation = _decode_upright(image)
    if orientation >= 5:
        width, height = height, width
    origin = (
        rgb.width - width / reduction if orientation in _LEFT_FROM_END else 0.0,
        rgb.height - height / reduction if orientation in _TOP_FROM_END else 0.0,
    )
    return ReducedImage(rgb, (width, height), reduction, origin)


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image to upright 8-bit sRGB, mode RGB, on a white background.

    Raises UndecodableError if the image is damaged or its pixel format is not
    supported.
    """
    return _decode_upright(image)[0]


def fit_image(image: Image.Image | ReducedImage, size: int, fit: str = "crop") -> Image.Image:
    """Resize an image to `size` x `size` pixels with antialiasing.

    image: in RGB, or one channel of CIELAB in mode F. fit: "crop" scales the centre
    square; "squash" scales the image without keeping its aspect ratio; "pad" keeps the
    aspect ratio and fills the rest with black.
    """
    full = image if isinstance(image, ReducedImage) else ReducedImage(image, image.size)
    width, height = full.size
    if fit == "squash":
        return full.resized((size, size), 0, 0, width, height)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return full.resized((size, size), left, top, left + side, top + side)
    inner = tuple(max(1, round(side * size / max(width, height))) for side in (width, height))
    canvas = Image.new(full.rgb.mode, (size, size))
    canvas.paste(
        full.resized((inner[0], inner[1]), 0, 0, width, height),
        ((size - inner[0]) // 2, (size - inner[1]) // 2),
    )
    return canvas


@contextmanager
def _as_undecodable(data: bytes = b"") -> Iterator[None]:
    """Within the `with` block, turn Pillow's errors into UndecodableError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, and without the file's name
        try:
            yield
        except (MemoryError, UndecodableError):
            raise
        except UnidentifiedImageError:
            raise UndecodableError(UNREADABLE, name_unsupported(data)) from None
        except Exception as error:  # Pillow raises many types on damaged files
            # without memory addresses, which would make the output of two builds differ
            text = re.sub(r" at 0x[0-9a-f]+", "", str(error))
            raise UndecodableError(UNREADABLE, text or type(error).__name__) from None


def _decode_upright(image: Image.Image) -> tuple[Image.Image, int]:
    """Return the upright sRGB image without metadata, and its Exif orientation."""
    with _as_undecodable():
        cicp = _read_cicp(image)
        _load(image)
        # After loading, because Pillow turns TIFF images itself.
        orientation = _orientation(image)
        rgb = _flatten(image, declared_profile(image, cicp))
        if orientation in _TRANSPOSES:
            rgb = rgb.transpose(_TRANSPOSES[orientation])
        upright = rgb._new(rgb.im)  # shares the pixels; `image` keeps its own metadata
        upright.info = {}  # so that it is never turned or converted again
        return upright, orientation


def _read_cicp(image: Image.Image) -> Cicp | None:
    """Return the CICP code points of an opened image, None if it has none."""
    stream = getattr(image, "fp", None)
    if image.format not in ("AVIF", "HEIF", "PNG") or stream is None or not stream.seekable():
        return None
    # Read from the file, because Pillow does not report them.
    position = stream.tell()
    stream.seek(0)
    head = stream.read(_HEAD)
    stream.seek(position)
    return find_cicp(head)


def _load(image: Image.Image) -> None:
    """Decode an opened image; if libtiff fails, raise OSError with its own message."""
    with _without_xmp(image):
        if image.format not in _PRINTING:
            image.load()
            return
        messages: list[str] = []
        try:
            with captured_messages() as messages:
                image.load()
        except OSError as error:
            raise OSError(messages[0].rstrip(".") if messages else str(error)) from None


@contextmanager
def _without_xmp(image: Image.Image) -> Iterator[None]:
    """Hide an image's XMP metadata from Pillow during the `with` block."""
    # If Exif has no orientation, Pillow would take the one in XMP. But only Exif says
    # how to turn an image upright; browsers ignore XMP.
    hidden = {name: image.info.pop(name) for name in _XMP if name in image.info}
    try:
        yield
    finally:
        image.info.update(hidden)


def _orientation(image: Image.Image) -> int:
    """Return a decoded image's Exif orientation, 1 if it is missing or invalid."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # libjxl turns images itself and leaves Exif as it was
    try:
        with _without_xmp(image):
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged Exif data: the pixels are intact, because they were decoded
        return 1
    return value if value in _TRANSPOSES else 1


def _find_unsupported(image: Image.Image, data: bytes) -> str:
    """Return a message if Pillow cannot decode the photograph in an image, else ""."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return find_unsupported_jpeg(data)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        kind = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)
        if isinstance(kind, int) and kind & 1:  # Pillow would decode only the preview
            return "its first image is a preview, as in camera raw files"
    return ""


def _flatten(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a decoded image to sRGB and composite transparent parts over white."""
    pixels, alpha = _split_alpha(_eight_bits(image))
    rgb = to_srgb(pixels, profile)
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _split_alpha(pixels: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Split 8-bit pixels into colours or gray levels, and opacity (None if opaque)."""
    if pixels.mode in ("La", "RGBa"):  # colours that are multiplied by the opacity
        pixels = pixels.convert(pixels.mode.upper())
    has_level = "transparency" in pixels.info
    if pixels.mode == "LA" or (pixels.mode == "L" and has_level):
        pixels = pixels.convert("LA")
        return pixels.getchannel("L"), pixels.getchannel("A")
    if pixels.mode in ("PA", "RGBA") or has_level:
        pixels = pixels.convert("RGBA")
        return pixels.convert("RGB"), pixels.getchannel("A")
    return pixels, None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits per channel.

    Raises UndecodableError if the range of the pixel values is not defined.
    """
    # Pillow's `convert` clips grayscale of more than 8 bits. It has already scaled
    # 16-bit colour, with an error of at most 1 of 255.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)
        white = _white_level(image)
        gray = Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
        if _is_min_white(image):  # Pillow inverts such images only if they have 8 bits
            return ImageChops.invert(gray)
        if "transparency" in image.info:  # a level from 0 to 65535, compared before scaling
            opaque = np.where(values == image.info["transparency"], 0, 255)
            return Image.merge("LA", (gray, Image.fromarray(opaque.astype(np.uint8))))
        return gray
    if image.mode in ("I", "F"):
        raise UndecodableError(UNREADABLE, f"pixels of mode {image.mode!r} have no defined range")
    return image


def _white_level(image: Image.Image) -> int:
    """Return the pixel value that means white in grayscale of more than 8 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 65535
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    return (1 << bits[0]) - 1  # 4095 in a TIFF of 12 bits


def _is_min_white(image: Image.Image) -> bool:
    """Return whether the image is a TIFF in which the pixel value 0 means white."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return bool(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)

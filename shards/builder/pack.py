"""Pack one block of source images into shards and write its record file.

This code runs in worker processes.
"""

from __future__ import annotations

import errno
import hashlib
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from shards.builder.plan import Block, Parameters, Plan, split_of
from shards.builder.records import GREY, TOO_SMALL, Record, SourceEntry, save_record
from shards.color import lab_to_rgb, pack, rgb_to_lab
from shards.errors import UserError
from shards.format.manifest import shard_path
from shards.format.tar_layout import TarOfSamples
from shards.sources import cifar10, mirflickr_lab
from shards.sources.decode import (
    UNREADABLE,
    ReducedImage,
    UndecodableError,
    decode_reduced,
    fit_image,
    open_image,
)
from shards.sources.listing import CIFAR_BINARY, CIFAR_PYTHON, LAB, ImageSource, read_bytes

# An image is grayscale if its R, G and B differ by at most this in every pixel, as they
# do after JPEG compression of a grayscale image.
GREY_LEVELS = 2
# Errors of the machine and not of the image: the build fails, and the next attempt
# reads the image again.
_MACHINE_ERRORS = (
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
)
Report = Callable[[int], None]


def pack_block(root: Path, plan: Plan, block: Block, report: Report) -> Record:
    """Pack a block of images into one shard per split, then write its record file.

    `report` is called after each image with the number of images done. Returns the
    record.
    """
    entries, tars = [], {}
    with ExitStack() as stack:
        for done, source in enumerate(block.sources, 1):
            entry, pixels = pack_image(source, block.first_key + done - 1, plan.parameters)
            entries.append(entry)
            if not entry.reason:
                if entry.split not in tars:
                    tars[entry.split] = stack.enter_context(
                        _open_tar(root, plan, entry.split, block.number)
                    )
                tars[entry.split].add(entry.key, pixels)
            report(done)
    shards = {split: tar.shard for split, tar in tars.items() if tar.shard}
    record = Record(build=plan.identity, block=block.number, shards=shards, entries=tuple(entries))
    save_record(record, root)
    return record


def _open_tar(root: Path, plan: Plan, split: str, block: int) -> TarOfSamples:
    return TarOfSamples(root, shard_path(split, block), plan.parameters.size, plan.parameters.dtype)


def pack_image(source: ImageSource, key: int, parameters: Parameters) -> tuple[SourceEntry, bytes]:
    """Convert one image to Lab; return its record entry and its stored pixels.

    The pixels are the bytes of a (3, size, size) array, or b"" if the image is left
    out. Raises UserError if there is not enough memory, and OSError for errors of the
    machine such as EIO.
    """
    entry = SourceEntry(key=key, source=source.name)
    try:
        data = _read(source, parameters.max_pixels)
        digest = hashlib.sha256(data).hexdigest()
        entry = replace(entry, sha256=digest, split=split_of(digest, source, parameters))
        to_lab = _lab_square if source.kind == LAB else _rgb_square_as_lab
        (width, height), lab = to_lab(source, data, parameters)
        entry = replace(entry, width=width, height=height)
    except UndecodableError as error:
        return replace(entry, reason=error.reason, detail=error.detail), b""
    except MemoryError:
        raise UserError(
            f"not enough memory for {source.name}: use fewer --workers or a lower --max-pixels"
        ) from None
    pixels = pack(lab, parameters.dtype).tobytes()
    return replace(
        entry, packed=hashlib.sha256(pixels).hexdigest(), crc32=zlib.crc32(pixels)
    ), pixels


def _read(source: ImageSource, max_pixels: int) -> bytes:
    try:
        return read_bytes(source, limit=max(1 << 26, 16 * max_pixels))
    except OSError as error:
        if error.errno in _MACHINE_ERRORS:
            error.filename = error.filename or source.path
            raise
        raise UndecodableError(UNREADABLE, error.strerror or str(error)) from None


def _rgb_square_as_lab(
    source: ImageSource, data: bytes, parameters: Parameters
) -> tuple[tuple[int, int], np.ndarray]:
    """Decode an image; return its width and height, and its pixels as a square.

    The pixels are (3, size, size) float32, CIELAB. Raises UndecodableError if the image
    is too small, cannot be decoded, or is grayscale and such images are left out.
    """
    if source.kind in (CIFAR_BINARY, CIFAR_PYTHON):
        _check_side(cifar10.SIDE, cifar10.SIDE, parameters)
        image = ReducedImage(cifar10.to_image(data), (cifar10.SIDE, cifar10.SIDE))
    else:
        opened = open_image(data, parameters.max_pixels)
        _check_side(*opened.size, parameters)
        image = decode_reduced(opened, parameters.size)
    rgb = np.asarray(fit_image(image, parameters.size, parameters.fit))
    if parameters.drop_grey:
        _check_colour(rgb)
    # The size before resizing, after rotation by Exif.
    return image.size, rgb_to_lab(rgb)


def _lab_square(
    source: ImageSource, data: bytes, parameters: Parameters
) -> tuple[tuple[int, int], np.ndarray]:
    """Return what `_rgb_square_as_lab` does, of an image that is stored as CIELAB."""
    lab = mirflickr_lab.to_lab(data)
    height, width = lab.shape[1:]
    _check_side(width, height, parameters)
    # Each channel is resized by itself, so that the values do not pass through 8-bit
    # sRGB, and an image of this size keeps its bytes.
    channels = [fit_image(Image.fromarray(each), parameters.size, parameters.fit) for each in lab]
    square = np.stack([np.asarray(each) for each in channels])
    square[0] = square[0].clip(0, 100)  # bicubic filters overshoot at edges
    if parameters.drop_grey:
        _check_colour(lab_to_rgb(square))
    return (width, height), square


def _check_colour(rgb: np.ndarray) -> None:
    """Raise UndecodableError if an image, (H, W, 3) uint8, sRGB, is grayscale."""
    if (rgb.max(-1) - rgb.min(-1)).max() <= GREY_LEVELS:
        raise UndecodableError(GREY, f"R, G and B differ by at most {GREY_LEVELS} levels")


def _check_side(width: int, height: int, parameters: Parameters) -> None:
    if min(width, height) < parameters.smallest_side:
        raise UndecodableError(
            TOO_SMALL, f"{width} x {height} pixels, less than {parameters.smallest_side}"
        )

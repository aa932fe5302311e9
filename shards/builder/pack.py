"""One block of sources to its shards and its record: what a worker process does, again and again."""

from __future__ import annotations

import errno
import hashlib
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from shards.builder.plan import Block, Parameters, Plan, split_of
from shards.builder.records import GREY, TOO_SMALL, Entry, Record, save_record
from shards.color import pack, rgb_to_lab
from shards.errors import UserError
from shards.format.manifest import split_folder
from shards.format.tar_layout import TarOfSamples
from shards.sources import cifar10
from shards.sources.decode import (
    UNREADABLE,
    UndecodableError,
    fit_image,
    open_image,
    reduce_jpeg,
    to_rgb,
    upright_size,
)
from shards.sources.listing import CIFAR_BINARY, CIFAR_PYTHON, Source, read_bytes

GREY_LEVELS = (
    2  # a picture whose R, G and B nowhere differ by more is grey: what JPEG makes of a grey one
)
# What ails the machine, not the image: the build ends, and takes the image when it is run again.
_PASSING = (
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
)
Report = Callable[[int], None]


def shard_path(split: str, block: int) -> str:
    """A shard's path relative to OUT."""
    return (split_folder(Path(), split) / f"{block:06d}.tar").as_posix()


def pack_block(root: Path, plan: Plan, block: Block, report: Report) -> Record:
    """Pack a block's images into its shards, then write its record; `report` hears how many images are done."""
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


def pack_image(source: Source, key: int, parameters: Parameters) -> tuple[Entry, bytes]:
    """One image's entry and its pixels as stored; b"" where the entry says why it is left out."""
    entry = Entry(key=key, source=source.name)
    try:
        data = _read(source, parameters.max_pixels)
        digest = hashlib.sha256(data).hexdigest()
        entry = replace(entry, sha256=digest, split=split_of(digest, source, parameters.splits))
        (width, height), rgb = _square(source, data, parameters)
        entry = replace(entry, width=width, height=height)
        if parameters.drop_grey and (rgb.max(-1) - rgb.min(-1)).max() <= GREY_LEVELS:
            raise UndecodableError(GREY, f"R, G and B differ by {GREY_LEVELS} levels at most")
    except UndecodableError as error:
        return replace(entry, reason=error.reason, detail=error.detail), b""
    except MemoryError:
        raise UserError(
            f"not enough memory for {source.name}: use fewer --workers or a lower --max-pixels"
        ) from None
    pixels = pack(rgb_to_lab(rgb), parameters.dtype).tobytes()
    return replace(
        entry, packed=hashlib.sha256(pixels).hexdigest(), crc32=zlib.crc32(pixels)
    ), pixels


def _read(source: Source, max_pixels: int) -> bytes:
    try:
        return read_bytes(source, limit=max(1 << 26, 16 * max_pixels))
    except OSError as error:
        if error.errno in _PASSING:
            error.filename = error.filename or source.path
            raise
        raise UndecodableError(UNREADABLE, error.strerror or str(error)) from None


def _square(
    source: Source, data: bytes, parameters: Parameters
) -> tuple[tuple[int, int], np.ndarray]:
    """The upright width and height of an image, and its square: (size, size, 3) uint8 sRGB."""
    if source.kind in (CIFAR_BINARY, CIFAR_PYTHON):
        image, width, height = cifar10.to_image(data), cifar10.SIDE, cifar10.SIDE
        _check_side(width, height, parameters)
    else:
        opened = open_image(data, parameters.max_pixels)
        width, height = upright_size(opened)
        _check_side(width, height, parameters)
        reduce_jpeg(opened, parameters.size)
        image = to_rgb(opened)
    return (width, height), np.asarray(fit_image(image, parameters.size, parameters.fit))


def _check_side(width: int, height: int, parameters: Parameters) -> None:
    if min(width, height) < parameters.smallest_side:
        raise UndecodableError(
            TOO_SMALL, f"{width} x {height} pixels, less than {parameters.smallest_side}"
        )

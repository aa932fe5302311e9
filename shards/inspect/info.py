"""Show the content of a shard set as a table and as a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from shards.color import lab_to_rgb, unpack
from shards.errors import UserError
from shards.files import open_atomic, path_below
from shards.format.manifest import Manifest
from shards.format.tar_layout import read_pixels

_COLUMNS = 8
_MAX_TILE = 128
_GAP = 4


def describe(root: Path, manifest: Manifest) -> str:
    """Return the text that `colortrain shards info` prints about a shard set."""
    rows = [("split", "shards", "samples", "bytes")]
    for split, shards in manifest.splits.items():
        size = sum(shard.bytes for shard in shards)
        rows.append((split, f"{len(shards):,}", f"{manifest.samples(split):,}", f"{size:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    left_out = (
        ", ".join(f"{count:,} {reason}" for reason, count in manifest.left_out.items()) or "none"
    )
    head = [
        f"{root}: dataset {manifest.dataset_id}",
        f"samples of {manifest.size} x {manifest.size} pixels, {manifest.dtype} Lab, "
        f"fit {manifest.fit}",
        f"images left out: {left_out}",
    ]
    return "\n".join([*head, "", *table])


def save_sheet(root: Path, manifest: Manifest, path: Path, count: int) -> None:
    """Write a PNG with the first `count` samples of a shard set as a grid of tiles.

    Raises UserError if `count` is less than 1 or there are no samples.
    """
    if count < 1:
        raise UserError(f"--count {count}: must be at least 1")
    tiles = list(islice(_images(root, manifest), count))
    if not tiles:
        raise UserError(f"{root} has no samples to show: build a shard set with images first")
    with open_atomic(path) as stream:
        _sheet(tiles).save(stream, "PNG")


def _images(root: Path, manifest: Manifest) -> Iterator[Image.Image]:
    for shard in (shard for shards in manifest.splits.values() for shard in shards):
        path = path_below(root, shard.path)
        for stored in read_pixels(path, shard.samples, manifest.size, manifest.dtype):
            yield Image.fromarray(lab_to_rgb(unpack(stored[0])))


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    side = min(tiles[0].width, _MAX_TILE)
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (side + _GAP) - _GAP, rows * (side + _GAP) - _GAP), "white")
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        small = tile.resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(small, (column * (side + _GAP), row * (side + _GAP)))
    return sheet

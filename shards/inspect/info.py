"""What a shard set holds, as a table and as a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from shards.color import lab_to_rgb, unpack
from shards.errors import UserError
from shards.files import open_atomic
from shards.format.manifest import Manifest
from shards.format.tar_layout import pixels_view

_COLUMNS = 8
_LARGEST_TILE = 128
_GAP = 4


def describe(root: Path, manifest: Manifest) -> str:
    """The table that `python -m shards info` prints."""
    rows = [("split", "shards", "samples", "bytes")]
    for split, shards in manifest.splits.items():
        rows.append(
            (
                split,
                f"{len(shards):,}",
                f"{manifest.samples(split):,}",
                f"{sum(s.bytes for s in shards):,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    left_out = (
        ", ".join(f"{count:,} {reason}" for reason, count in manifest.left_out.items()) or "none"
    )
    head = [
        f"{root}: dataset {manifest.dataset_id}",
        f"samples of {manifest.size} x {manifest.size} pixels, {manifest.dtype} Lab, fit {manifest.fit}",
        f"images left out: {left_out}",
    ]
    return "\n".join([*head, "", *table])


def save_sheet(root: Path, manifest: Manifest, path: Path, count: int) -> None:
    """Write the first `count` samples, split after split, as one PNG."""
    if count < 1:
        raise UserError(f"--count {count}: give 1 or more")
    tiles = list(islice(_pictures(root, manifest), count))
    if not tiles:
        raise UserError(f"{root} holds no samples to show")
    with open_atomic(path) as stream:
        _sheet(tiles).save(stream, "PNG")


def _pictures(root: Path, manifest: Manifest) -> Iterator[Image.Image]:
    for shards in manifest.splits.values():
        for shard in shards:
            for stored in pixels_view(
                root / shard.path, shard.samples, manifest.size, manifest.dtype
            ):
                yield Image.fromarray(lab_to_rgb(unpack(np.asarray(stored))))


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    side = min(tiles[0].width, _LARGEST_TILE)
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (side + _GAP) - _GAP, rows * (side + _GAP) - _GAP), "white")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        small = tile.resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(small, (column * (side + _GAP), row * (side + _GAP)))
    return sheet

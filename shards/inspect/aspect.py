"""Whether the source images of a shard set were square before they were resized."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from shards.builder.records import record_path
from shards.errors import UserError
from shards.files import open_regular
from shards.json_files import parse_json

_IMAGES = 1000  # that are looked at; the first ones are a random choice of the source's
_MAX_LINE = 1 << 16  # bytes


def only_squares(root: Path) -> bool:
    """Return whether the first packed images are known to have been square.

    If they were, it makes no difference how images are made square. `root` is the
    folder of a shard set. The result is False if its record files are missing or
    damaged.
    """
    try:
        entries = list(islice(_entries(root), _IMAGES))
        sizes = [(e["width"], e["height"]) for e in entries if not e.get("reason")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        return False
    return bool(sizes) and all(width == height for width, height in sizes)


def _entries(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the entry of each image from the record files, block after block."""
    for path in (record_path(root, block) for block in count()):
        if not path.exists():
            return
        with open_regular(path) as stream:
            stream.readline(_MAX_LINE)  # the first line is about the block
            yield from map(parse_json, iter(lambda: stream.readline(_MAX_LINE), b""))

"""THE contract of a shard set: what lies on disk, and what may be believed of it.

    OUT/manifest.json          written last; a folder without it is not a shard set
    OUT/train/000000.tar       samples: one member `<key>.lab.npy` each, C-order array (3, size, size)
    OUT/train/000000.idx       the same tar's index in DALI's text form
    OUT/train/index.npy        one binary table for the split: int64 (samples, 3) of key, member offset, CRC-32
    OUT/sources/000000.jsonl   what became of each source image of this block: packed, or left out and why

Without `--splits` there is one split, "all", and its tars lie in OUT itself. Block b of the (shuffled) source list
feeds shard b of every split, so a shard depends on nothing but its own sources: shards are built in any order, by any
number of processes or machines, with the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import UserError, unknown
from shards.files import write_atomic
from shards.format.shard_table import Shard, ShardTable, samples_of

_FORMATS = "colortrain-shards-"
FORMAT = f"{_FORMATS}2"
MEMBER = "lab.npy"
MANIFEST = "manifest.json"
ONE_SPLIT = "all"
HELD_OUT = ("val", "validation", "test")
DTYPES = ("uint8", "float16")
TAR_BLOCK = 512
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a shard set holds; everything a reader believes comes from here."""

    size: int  # height and width of every sample, in pixels
    fit: str  # crop, squash or pad
    dtype: str  # uint8 (L * 2.55, a + 128, b + 128, rounded) or float16 (L, a, b as they are)
    splits: dict[str, Sequence[Shard]]
    left_out: dict[str, int]  # reason -> how many source images
    format: str = FORMAT

    @cached_property
    def dataset_id(self) -> str:
        """Sixteen hexadecimal digits that name exactly these samples in exactly this order."""
        digest = hashlib.sha256()
        for piece in _pieces(self):
            digest.update(piece.encode())
        return digest.hexdigest()[:16]

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        return (3, self.size, self.size)

    def samples(self, split: str) -> int:
        """How many samples a split holds."""
        return int(samples_of(self.splits[split]).sum())

    def held_out(self) -> str | None:
        """The split to score on: "val", else "validation", else "test"; None where there is none of them."""
        return next((name for name in HELD_OUT if name in self.splits), None)

    def choose_split(self, wanted: str, where: str | Path) -> str:
        """`wanted` if there is such a split, else the only one; otherwise an error that lists them."""
        if wanted in self.splits:
            return wanted
        if len(self.splits) == 1:
            return next(iter(self.splits))
        raise UserError(f"{where}: {unknown('split', wanted, self.splits)}")


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split's tars: OUT/<split>, or OUT itself where there is only one."""
    return root if split == ONE_SPLIT else root / split


def is_split_name(name: str) -> bool:
    """Whether a split, and so its folder, can have this name."""
    return bool(_SPLIT_NAME.fullmatch(name))


@lru_cache(maxsize=16)
def member_header(size: int, dtype: str) -> bytes:
    """The bytes that stand before the pixels in every member: the .npy header of a C-order (3, size, size) array."""
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": (3, size, size)}
    )
    return stream.getvalue()


def member_bytes(size: int, dtype: str) -> int:
    """How many bytes a member's content has (header and pixels, without the tar's own header and padding)."""
    return len(member_header(size, dtype)) + 3 * size * size * np.dtype(dtype).itemsize


def key_name(key: int) -> str:
    """A sample's key in the tar: fixed width, because dots or varying widths confuse readers (`000000042`)."""
    return f"{key:09d}"


def index_text(keys: np.ndarray, offsets: np.ndarray, size: int, dtype: str) -> str:
    """A tar's index in the text form NVIDIA DALI reads (`wds2idx`, version 1.2)."""
    content = member_bytes(size, dtype)
    lines = [
        f"{MEMBER} {offset} {content} {key_name(key)}.{MEMBER}"
        for key, offset in zip(keys, offsets, strict=True)
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"


def save_manifest(manifest: Manifest, root: Path) -> None:
    """Write OUT/manifest.json, the last act of building."""
    splits = {name: [asdict(shard) for shard in shards] for name, shards in manifest.splits.items()}
    document = {"dataset_id": manifest.dataset_id, **_all_but_splits(manifest), "splits": splits}
    write_atomic(root / MANIFEST, json.dumps(document, indent=1).encode() + b"\n")


def load_manifest(root: str | Path) -> Manifest:
    """Read and check OUT/manifest.json.

    Raises `UserError` if the folder is missing, unfinished, of another version, or if the manifest was altered.
    """
    path = Path(root) / MANIFEST
    if not Path(root).is_dir():
        raise UserError(f"no folder {root}: give the folder that `python -m shards build` wrote")
    if not path.is_file():
        raise UserError(
            f"{root} has no {MANIFEST}: not a shard set, or not finished (run the same build again)"
        )
    try:
        document = json.loads(
            path.read_bytes(), object_hook=_shard_or_dict
        )  # each as soon as it is read
        _check_format(path, document.get("format"))
        return _parse_manifest(document)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is damaged ({error}): restore it, or build the shard set again"
        ) from None


def _check_format(path: Path, found: Any) -> None:
    if found == FORMAT:
        return
    if not str(found).startswith(_FORMATS):
        raise ValueError(f"format {found!r}, this version reads {FORMAT!r}")
    raise UserError(
        f"{path} is of format {found!r}, this version reads {FORMAT!r}: build the shard set again"
    )


def _shard_or_dict(value: dict[str, Any]) -> Shard | dict[str, Any]:
    return Shard(**value) if value.keys() == Shard.__dataclass_fields__.keys() else value


def _all_but_splits(manifest: Manifest) -> dict[str, Any]:
    return {
        each.name: getattr(manifest, each.name)
        for each in fields(manifest)
        if each.name != "splits"
    }


def _pieces(manifest: Manifest) -> Iterator[str]:
    """The manifest as JSON with sorted keys, a shard at a time: a hundred thousand need no second copy in memory."""
    yield (
        json.dumps(_all_but_splits(manifest), sort_keys=True)[:-1] + ', "splits": {'
    )  # the last of its names
    for place, name in enumerate(sorted(manifest.splits)):
        yield (", " if place else "") + json.dumps(name) + ": ["
        for number, shard in enumerate(manifest.splits[name]):
            row = f'"path": {json.dumps(shard.path)}, "samples": {shard.samples}, "sha256": "{shard.sha256}"'
            yield (", " if number else "") + f'{{"bytes": {shard.bytes}, {row}}}'
        yield "]"
    yield "}}"


def _parse_manifest(document: dict[str, Any]) -> Manifest:
    claimed = document.pop("dataset_id")
    _check_names(document["splits"])
    splits: dict[str, Sequence[Shard]] = {
        name: ShardTable(shards) for name, shards in document.pop("splits").items()
    }
    manifest = Manifest(splits=splits, **document)
    if manifest.dataset_id != claimed:
        raise ValueError(f"dataset_id is {claimed}, its content gives {manifest.dataset_id}")
    return manifest


def _check_names(splits: dict[str, list[Shard]]) -> None:
    """Raise `ValueError` for what leads out of the set's folder: a set that others made is read, and indexed, in it."""
    for name in splits:
        if not is_split_name(name):
            raise ValueError(f"a split is called {name!r}")
    for shard in (shard for shards in splits.values() for shard in shards):
        if shard.path.startswith("/") or ".." in shard.path.split("/"):
            raise ValueError(f"a shard lies at {shard.path!r}")

"""The on-disk format of a shard set: its files, and the manifest that lists the shards.

The shuffled source images are divided into blocks. The images of block 0 that belong to
the split train become its shard 000000.

    OUT/manifest.json         written last; a folder without it is not a shard set
    OUT/train/000000.tar      a shard: one file `<key>.lab.npy` per sample, which is a
                              C-order array (3, size, size)
    OUT/train/000000.idx      the index of this tar in DALI's text format
    OUT/train/index.npy       binary index of the split, see format/index.py
    OUT/sources/000000.jsonl  for each source image of block 0: where it was packed, or
                              why it was left out

Without `--splits` there is one split, "all", and its tars are in OUT itself.
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
from shards.files import read_regular, write_atomic
from shards.format.shard_table import Shard, ShardTable, sample_counts
from shards.json_files import parse_json

# A shard depends only on its own images. So shards have the same bytes in whatever
# order, and by whatever number of processes or machines, they are built.
_FORMATS = "colortrain-shards-"
FORMAT = f"{_FORMATS}2"
MEMBER = "lab.npy"
MANIFEST = "manifest.json"
ONE_SPLIT = "all"
TRAIN = "train"
HELD_OUT = ("val", "validation", "test")
DTYPES = ("uint8", "float16")
TAR_BLOCK = 512
MAX_SIZE = 8192  # pixels
# 350,000 shards. Parsing takes up to 35 times as much memory, whatever the content.
MAX_MANIFEST_BYTES = 64 << 20
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of OUT/manifest.json; readers open only the shards that it lists."""

    size: int  # height and width of every sample, in pixels
    fit: str  # crop, squash or pad
    dtype: str  # uint8 (L * 2.55, a + 128, b + 128, rounded) or float16 (L, a, b)
    splits: dict[str, Sequence[Shard]]
    left_out: dict[str, int]  # reason -> number of source images
    format: str = FORMAT

    @cached_property
    def dataset_id(self) -> str:
        """16 hexadecimal digits that identify the samples and their order."""
        digest = hashlib.sha256()
        for text in _canonical_json(self):
            digest.update(text.encode())
        return digest.hexdigest()[:16]

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape of every sample: (3, size, size)."""
        return (3, self.size, self.size)

    def samples(self, split: str) -> int:
        """Return the number of samples in a split."""
        return int(sample_counts(self.splits[split]).sum())

    def held_out(self, training: str = "") -> str | None:
        """Return the first existing split of val, validation and test, or None.

        It is never the split `training`.
        """
        return next((name for name in HELD_OUT if name in self.splits and name != training), None)

    def training_split(self, where: str | Path) -> str:
        """Return the split to train on by default: "train", or the only split.

        `where` is the location of the shard set, for messages. Raises UserError if
        there is no split "train" and there are several others or only a held-out one.
        """
        if TRAIN in self.splits:
            return TRAIN
        if len(self.splits) == 1 and not self.held_out():
            return next(iter(self.splits))
        raise UserError(
            f"{where} has no split {TRAIN!r}: choose one with `colortrain train --train-split`: "
            f"{', '.join(self.splits)}"
        )

    def check_split(self, name: str, where: str | Path) -> None:
        """Raise UserError, with the names that exist, if there is no split `name`."""
        if name not in self.splits:
            raise UserError(f"{where}: {unknown('split', name, self.splits)}")

    def choose_split(self, name: str, where: str | Path) -> str:
        """Return `name` if it is the name of a split, else the name of the only split.

        `where` is the location of the shard set, for messages. Raises UserError if
        there are several splits and none has this name.
        """
        if name in self.splits:
            return name
        if len(self.splits) != 1:
            self.check_split(name, where)
        return next(iter(self.splits))


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split's tars: root/<split>, or `root` for split "all"."""
    return root if split == ONE_SPLIT else root / split


def shard_path(split: str, block: int) -> str:
    """Return the path of a block's shard in a split, relative to the folder OUT."""
    return (split_folder(Path(), split) / f"{block:06d}.tar").as_posix()


def is_split_name(name: str) -> bool:
    """Return whether `name` is valid as the name of a split and its folder."""
    return bool(_SPLIT_NAME.fullmatch(name))


@lru_cache(maxsize=16)
def member_header(size: int, dtype: str) -> bytes:
    """Return the .npy header of a sample: a C-order array of shape (3, size, size)."""
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": (3, size, size)}
    )
    return stream.getvalue()


def member_bytes(size: int, dtype: str) -> int:
    """Return the size in bytes of a sample's .npy file in a tar: header and pixels."""
    return len(member_header(size, dtype)) + 3 * size * size * np.dtype(dtype).itemsize


def key_name(key: int) -> str:
    """Return the name of a sample in its tar: `000000042` for key 42."""
    # Of fixed width and without dots: some readers require a fixed width, and others
    # take what follows a dot for the extension.
    return f"{key:09d}"


def index_text(keys: np.ndarray, offsets: np.ndarray, size: int, dtype: str) -> str:
    """Return the text of a tar's .idx file, in the format of DALI's `wds2idx` 1.2.

    `keys` and `offsets` are the keys of the samples and the byte offsets of their .npy
    files in the tar.
    """
    content = member_bytes(size, dtype)
    lines = [
        f"{MEMBER} {offset} {content} {key_name(key)}.{MEMBER}"
        for key, offset in zip(keys, offsets, strict=True)
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"


def save_manifest(manifest: Manifest, root: Path) -> None:
    """Write OUT/manifest.json, the last step of a build.

    Raises UserError if the file would exceed the size limit for reading it.
    """
    splits = {name: [asdict(shard) for shard in shards] for name, shards in manifest.splits.items()}
    document = {"dataset_id": manifest.dataset_id, **_all_but_splits(manifest), "splits": splits}
    data = json.dumps(document, indent=1).encode() + b"\n"
    if len(data) > MAX_MANIFEST_BYTES:
        raise UserError(
            f"{root / MANIFEST} would have {len(data):,} bytes, more than the "
            f"{MAX_MANIFEST_BYTES:,} allowed: build again with a larger --shard-size"
        )
    write_atomic(root / MANIFEST, data)


def load_manifest(root: str | Path) -> Manifest:
    """Read and check OUT/manifest.json.

    Raises UserError if the folder is missing or unfinished, or if the manifest has
    another format version, was altered or is too large.
    """
    path = Path(root) / MANIFEST
    if not Path(root).is_dir():
        raise UserError(f"no folder {root}: give a folder written by `colortrain shards build`")
    if not path.exists():
        raise UserError(
            f"{root} has no {MANIFEST}: it is not a shard set, or its build is not finished "
            "(run the same build again)"
        )
    return parse_manifest(read_regular(path, MAX_MANIFEST_BYTES), str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest in a JSON text.

    `where` is its path or URL, for messages. Raises UserError if it has another format
    version or was altered.
    """
    try:
        # The hook converts each shard as soon as it is parsed, which saves memory.
        document = parse_json(data, object_hook=_shard_or_dict)
        _check_format(where, document.get("format"))
        return _parse_manifest(document)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{where} is damaged ({error}): restore it, or build the shard set again"
        ) from None


def _check_format(where: str, found: Any) -> None:
    if found == FORMAT:
        return
    if not str(found).startswith(_FORMATS):
        raise ValueError(f"format {found!r}, this version reads {FORMAT!r}")
    raise UserError(
        f"{where} has format {found!r}, this version reads {FORMAT!r}: build the shard set again"
    )


def _shard_or_dict(value: dict[str, Any]) -> Shard | dict[str, Any]:
    return Shard(**value) if value.keys() == Shard.__dataclass_fields__.keys() else value


def _all_but_splits(manifest: Manifest) -> dict[str, Any]:
    return {
        each.name: getattr(manifest, each.name)
        for each in fields(manifest)
        if each.name != "splits"
    }


def _canonical_json(manifest: Manifest) -> Iterator[str]:
    """Yield the text of the manifest as JSON with sorted keys, piece by piece."""
    # Each shard is a piece, so the whole text of a manifest with a hundred thousand
    # shards is never in memory. "splits" sorts after all other keys, so it can be
    # appended.
    yield json.dumps(_all_but_splits(manifest), sort_keys=True)[:-1] + ', "splits": {'
    for position, name in enumerate(sorted(manifest.splits)):
        yield (", " if position else "") + json.dumps(name) + ": ["
        for number, shard in enumerate(manifest.splits[name]):
            path = json.dumps(shard.path)
            row = f'"path": {path}, "samples": {shard.samples}, "sha256": "{shard.sha256}"'
            yield (", " if number else "") + f'{{"bytes": {shard.bytes}, {row}}}'
        yield "]"
    yield "}}"


def _parse_manifest(document: dict[str, Any]) -> Manifest:
    stated_id = document.pop("dataset_id")
    splits: dict[str, Sequence[Shard]] = {
        name: ShardTable(shards) for name, shards in document.pop("splits").items()
    }
    manifest = Manifest(splits=splits, **document)
    _check_fields(manifest)
    if manifest.dataset_id != stated_id:
        raise ValueError(f"dataset_id is {stated_id}, but the content gives {manifest.dataset_id}")
    return manifest


def _check_fields(manifest: Manifest) -> None:
    """Raise ValueError if a split name, the size, the dtype or a count is invalid."""
    # A shard set may come from an untrusted source. ShardTable has already checked the
    # paths and sizes of the shards.
    for name in manifest.splits:
        if not is_split_name(name):
            raise ValueError(f"invalid split name {name!r}")
    if type(manifest.size) is not int or not 1 <= manifest.size <= MAX_SIZE:
        raise ValueError(f"invalid size {manifest.size!r}")
    if manifest.dtype not in DTYPES:
        raise ValueError(f"invalid dtype {manifest.dtype!r}")
    if not all(type(count) is int for count in manifest.left_out.values()):
        raise ValueError("the counts of left_out must be integers")

"""The shard sets of each table, built by `python -m shards build`, or gone on with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UserError
from shards.sources.cifar10 import SIDE

SIZES = {"nazeri": SIDE, "cifar10": SIDE, "photos": 64}
NAZERI = ["nazeri_gan", "nazeri_unet_l2"]
_SOME_LEFT_OUT = (
    1  # the build's exit status when it left grey or unreadable pictures out, and listed them
)


@dataclass(frozen=True)
class Sets:
    """Where to learn from, where the held-out pictures lie, and what was left out."""

    train: Path
    held_out: Path
    size: int
    labelled: bool  # whether the source knows what its pictures show


def build(table: str, source: Path, folder: Path) -> Sets:
    """Build the table's sets in `folder`; raises `UserError` if that fails.

    Of CIFAR-10 the training pictures without grey ones make one set, all pictures another to score on: its test
    split is whole, as in the papers, and training need not score 10,000 pictures at its end.
    """
    if table == "photos":
        photos = folder / "photos"
        _build(source, photos, SIZES[table], "--splits", "train=.95,val=.05")
        return Sets(photos, photos, SIZES[table], labelled=False)
    train, whole = folder / "train", folder / "all"
    _build(source, whole, SIDE, "--splits", "source")
    _build(_training_batches(source), train, SIDE, "--splits", "source", "--drop-grey")
    return Sets(train, whole, SIDE, labelled=True)


def _training_batches(source: Path) -> str:
    for pattern in ("data_batch_*.bin", "data_batch_[0-9]"):
        if list(source.glob(pattern)):
            return str(source / pattern)
    raise UserError(
        f"--source {source} holds no data_batch files: give CIFAR-10's folder (cifar-10-batches-bin or -py)"
    )


def _build(source: Path | str, out: Path, size: int, *words: str) -> None:
    line = [
        sys.executable,
        "-m",
        "shards",
        "build",
        str(source),
        str(out),
        "--size",
        str(size),
        *words,
    ]
    status = subprocess.run(line, check=False).returncode
    if status not in (0, _SOME_LEFT_OUT):
        raise UserError(
            f"building {out} ended with status {status}; what it printed above says why"
        )

"""Build the shard sets for the results tables of `colortrain reproduce`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UserError
from shards.sources.cifar10 import SIDE

SIZES = {"nazeri": SIDE, "cifar10": SIDE, "photos": 64}
NAZERI = ["nazeri_gan", "nazeri_unet_l2"]
# The exit status of a build that left out some images (grayscale or unreadable ones).
_SOME_LEFT_OUT = 1


@dataclass(frozen=True)
class Sets:
    """The shard sets of one results table: `train` for training, `held_out` to score.

    Both may be the same folder. size: side of the samples in pixels.
    """

    train: Path
    held_out: Path
    size: int
    labelled: bool  # whether the source has class labels, like CIFAR-10


def build(table: str, source: Path, folder: Path) -> Sets:
    """Build the shard sets of a results table in `folder`, or resume building them.

    source: folder of photographs or of CIFAR-10. Raises UserError if a build fails.
    """
    if table == "photos":
        photos = folder / "photos"
        _build(source, photos, SIZES[table], "--splits", "train=0.95,val=0.05")
        return Sets(photos, photos, SIZES[table], labelled=False)
    train, complete = folder / "train", folder / "all"
    # With all 10,000 test images in the test split, as in the papers.
    _build(source, complete, SIDE, "--splits", "source")
    # Never with a test split, which must not steer training. Nazeri's recipes reduce
    # their learning rates by the scores of a validation split.
    splits = "train=0.9,val=0.1" if table == "nazeri" else "source"
    _build(_training_batches(source), train, SIDE, "--splits", splits, "--drop-grey")
    return Sets(train, complete, SIDE, labelled=True)


def _training_batches(source: Path) -> str:
    for pattern in ("data_batch_*.bin", "data_batch_[0-9]"):
        if list(source.glob(pattern)):
            return str(source / pattern)
    raise UserError(
        f"--source {source} contains no data_batch files: give CIFAR-10's folder "
        "(cifar-10-batches-bin or cifar-10-batches-py)"
    )


def _build(source: Path | str, out: Path, size: int, *options: str) -> None:
    args = ["build", str(source), str(out), "--size", str(size), *options]
    status = subprocess.run([sys.executable, "-m", "shards", *args], check=False).returncode
    if status not in (0, _SOME_LEFT_OUT):
        raise UserError(f"building {out} failed with exit status {status}; see the output above")

"""Build the shard sets for the tables of `colortrain reproduce`.

Each `build_...` function builds the sets of one table in a folder, or resumes building
them. Its arguments are the source (a folder of photographs or of CIFAR-10), the folder,
and the side of the samples in pixels. It raises UserError if a build fails.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from colortrain.recipes import get_recipe
from launch.experiment.sets import Sets
from shards.errors import UserError
from shards.sources.cifar10 import SIDE
from shards.sources.listing import open_sources

# The exit status of a build that left out some images (grayscale or unreadable ones).
_SOME_LEFT_OUT = 1
# Folders for training and for validation of COCO, Places365 and ImageNet.
_FOLDERS = (
    ("train", "train2014", "train2017", "data_256", "data_large", "data_256_standard"),
    ("val", "val2014", "val2017", "val_256", "val_large"),
)
_WITH_SPARE = 1.05  # times a count: images that cannot be packed are replaced by others


def build_photos(source: Path, folder: Path, size: int) -> Sets:
    """Build a set of photographs, a twentieth of which is held out."""
    return _photographs(source, folder, size, "train=0.95,val=0.05")


def build_cifar10(source: Path, folder: Path, size: int) -> Sets:
    """Build CIFAR-10: coloured training images, and all 10,000 test images."""
    return _cifar(source, folder, size, "source", "--drop-grey")


def build_nazeri(source: Path, folder: Path, size: int) -> Sets:
    """Build CIFAR-10 with a tenth of the training images for validation."""
    # Nazeri's recipes reduce their learning rates by the scores of a validation split.
    # Grayscale images are kept: the paper does not mention them.
    total = len(open_sources(_training_batches(source), folder).sources)
    return _cifar(source, folder, size, f"val={total // 10},train=rest")


def _cifar(source: Path, folder: Path, size: int, splits: str, *options: str) -> Sets:
    if size != SIDE:
        raise UserError(f"--size {size}: CIFAR-10 has images of {SIDE} px; leave the option out")
    train, complete = folder / "train", folder / "all"
    # With all 10,000 test images in the test split, as in the papers.
    _build(source, complete, SIDE, "--splits", "source")
    # Never with a test split, which must not steer training.
    _build(_training_batches(source), train, SIDE, "--splits", splits, *options)
    return Sets(train, complete)


def _training_batches(source: Path) -> str:
    for pattern in ("data_batch_*.bin", "data_batch_[0-9]"):
        if list(source.glob(pattern)):
            return str(source / pattern)
    raise UserError(
        f"--source {source} contains no data_batch files: give CIFAR-10's folder "
        "(cifar-10-batches-bin or cifar-10-batches-py)"
    )


def build_nampouri(source: Path, folder: Path, size: int) -> Sets:
    """Build 8,000 training and 2,000 test photographs, resized without cropping."""
    paper = _Amounts(train=8000, held_out=2000, name="test")  # section 5.1
    return _chosen(source, folder, size, paper, get_recipe("nampouri_unet").fit)


def build_valentini(source: Path, folder: Path, size: int) -> Sets:
    """Build 10,000 training and 3,000 validation photographs, without cropping."""
    paper = _Amounts(train=10_000, held_out=3000, name="val")  # section V
    return _chosen(source, folder, size, paper, get_recipe("valentini_cgan").fit)


def build_arun(source: Path, folder: Path, size: int) -> Sets:
    """Build 5,000 photographs for training and scores, and 500 for validations."""
    paper = _Amounts(train=5000, held_out=500, name="val")  # section II-B has no others
    sets = _chosen(source, folder, size, paper, get_recipe("arun_wgan_gp").fit)
    note = (
        "As in the paper, the scores are of the training images, so they do not describe unseen "
        "images; the validations in curves.png are of other ones."
    )
    return dataclasses.replace(sets, split="train", note=note)


def build_drouilhet(source: Path, folder: Path, size: int) -> Sets:
    """Build all photographs, a twentieth of them for the scores."""
    return _photographs(source, folder, size, "train=0.95,test=0.05")  # numbers: not given


def build_places(source: Path, folder: Path, size: int) -> Sets:
    """Build training, validation and test photographs.

    If the source has folders for training and validation, the latter are the test
    photographs, as in the paper, and a hundredth of the former is for validation.
    """
    # The learning rates fall by the scores of a validation split, never of the test
    # split.
    if names := _split_folders(source):
        renamed = f"{names[0]}=train,{names[1]}=test"
        options = ["--rename", renamed, "--carve", "val=train:0.01"]
        sets = _photographs(source, folder, size, "source", *options)
    else:
        sets = _photographs(source, folder, size, "train=0.9,val=0.05,test=0.05")
    return dataclasses.replace(sets, split="test")


@dataclass(frozen=True)
class _Amounts:
    """How many photographs a paper uses, and the name of the split that it scores."""

    train: int
    held_out: int
    name: str


def _chosen(source: Path, folder: Path, size: int, paper: _Amounts, fit: str | None) -> Sets:
    """Build as many photographs as the paper uses, or all if the source has fewer.

    They are chosen at random, from folders for training and validation if the source
    has such folders. fit: how the paper makes images square, or None.
    """
    splits = _split_options(source, folder, paper)
    sets = _photographs(source, folder, size, *splits, *(["--fit", fit] if fit else []))
    note = (
        f"The paper uses {paper.train:,} training images and {paper.held_out:,} others; here they "
        "were chosen at random."
    )
    return dataclasses.replace(sets, note=note)


def _split_options(source: Path, folder: Path, paper: _Amounts) -> list[str]:
    """Return the value of --splits, and options that choose a paper's numbers."""
    counts = Counter(each.split for each in open_sources(str(source), folder).sources)
    if names := _split_folders(source):
        renamed = ["source", "--rename", f"{names[0]}=train,{names[1]}={paper.name}"]
        amounts = zip(names, (paper.train, paper.held_out), strict=True)
        if any(counts[name] < _WITH_SPARE * amount for name, amount in amounts):
            return renamed
        return [*renamed, "--take", f"train={paper.train},{paper.name}={paper.held_out}"]
    total = paper.train + paper.held_out
    if counts.total() >= _WITH_SPARE * total:
        return [f"train={paper.train},{paper.name}={paper.held_out}"]
    held_out = max(1, counts.total() * paper.held_out // total)
    return [f"{paper.name}={held_out},train=rest"]


def _split_folders(source: Path) -> tuple[str, str] | None:
    """Return the names of a source's folders for training and validation, or None."""
    present = [[name for name in names if (source / name).is_dir()] for names in _FOLDERS]
    return (present[0][0], present[1][0]) if all(present) else None


def _photographs(source: Path, folder: Path, size: int, splits: str, *options: str) -> Sets:
    photos = folder / "photos"
    # The papers leave out no small images.
    _build(source, photos, size, "--splits", splits, "--min-side", "1", *options)
    return Sets(photos, photos)


def _build(source: Path | str, out: Path, size: int, *options: str) -> None:
    args = ["build", str(source), str(out), "--size", str(size), *options]
    status = subprocess.run([sys.executable, "-m", "shards", *args], check=False).returncode
    if status not in (0, _SOME_LEFT_OUT):
        raise UserError(f"building {out} failed with exit status {status}; see the output above")

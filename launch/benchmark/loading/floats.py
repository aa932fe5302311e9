"""Contestants that bring batches of float tensors as a training loop takes them, with 0 or more workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from torch import Tensor

from colortrain.data.loader import Loader, LoaderConfig
from colortrain.lab import SymmetricCodec
from launch.benchmark.loading.other_libraries import NAME, Other
from launch.benchmark.timing import Contestant, Stream
from shards.format.manifest import MEMBER
from shards.read.dataset import Split

OURS, WEBDATASET = "colortrain", "webdataset + DataLoader"


def encoded(stored: Tensor) -> tuple[Tensor, Tensor]:
    """What networks see of uint8 samples, in place: L (B, 1, H, W) and ab (B, 2, H, W), float32 about [-1, 1]."""
    L, ab = stored[:, :1].float(), stored[:, 1:].float()
    return L.div_(127.5).sub_(1), ab.sub_(128).div_(110)


def stacked(samples: Sequence[tuple[np.ndarray]]) -> Tensor:
    """One batch of stored samples of what webdataset gives."""
    return torch.from_numpy(np.stack([sample for (sample,) in samples]))


def stacked_and_encoded(samples: Sequence[tuple[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """The same as float tensors, made where this is called: in a worker, if there are any."""
    return encoded(stacked(samples))


def ours(split: Split, batch_size: int, workers: int) -> Stream:
    """The training loader, without flips and crops: the others do none."""
    config = LoaderConfig(batch_size=batch_size, seed=0, flip=0.0, workers=workers)
    loader = Loader(split, SymmetricCodec(), config)
    with closing(loader.batches()) as batches:
        for batch in batches:
            yield len(batch.L)


def with_webdataset(
    tars: Sequence[Path], batch_size: int, workers: int, floats_by_workers: bool
) -> Stream:
    """webdataset decodes and batches in the workers of a DataLoader; floats are made there, or here."""
    _hush()
    collate: Callable[..., Any] = stacked_and_encoded if floats_by_workers else stacked
    dataset = (
        webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
        .decode()
        .to_tuple(MEMBER)
    )
    batched = dataset.batched(batch_size, collation_fn=collate, partial=False).repeat()
    loader = webdataset.WebLoader(batched, batch_size=None, num_workers=workers)
    for batch in loader:
        L, _ = batch if floats_by_workers else encoded(batch)
        yield len(L)


def with_other(other: Other, folder: Path, batch_size: int, workers: int) -> Stream:
    """Another library's data set in its own loader."""
    _hush()
    loader = other.loader(
        other.open(folder, batch_size), batch_size=batch_size, num_workers=workers
    )
    while True:
        for batch in loader:
            L, _ = encoded(torch.as_tensor(batch[NAME]))
            yield len(L)


def _hush() -> None:
    """Say nothing of more workers than cores, tried on purpose, and of others' arrays, which nothing writes."""
    warnings.filterwarnings("ignore", "This DataLoader will create")
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")


def contestants(
    split: Split,
    tars: Sequence[Path],
    others: dict[str, tuple[Other, Path]],
    batch_size: int,
    counts: Sequence[int],
) -> list[Contestant]:
    """Everyone with every count of workers that makes sense for it."""
    found = []
    for count in counts:
        found.append(Contestant(label(OURS, count), partial(ours, split, batch_size, count)))
    for count in counts:
        start = partial(
            with_webdataset, tars, batch_size, min(count, len(tars))
        )  # it shares out whole tars
        found.append(Contestant(label(WEBDATASET, count), partial(start, False)))
        if count:
            found.append(
                Contestant(label(WEBDATASET, count, "floats by workers"), partial(start, True))
            )
        for name, (other, folder) in others.items():
            found.append(
                Contestant(
                    label(name, count), partial(with_other, other, folder, batch_size, count)
                )
            )
    return found


def label(name: str, workers: int, how: str = "") -> str:
    """A row's name."""
    return f"{name}, {workers} worker{'s' * (workers != 1)}" + (f", {how}" if how else "")

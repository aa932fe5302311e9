"""Methods that make batches of float tensors, as training consumes them."""

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
from launch.benchmark.loading.other_libraries import COLUMN, Library
from launch.benchmark.timing import CountStream, Method
from shards.format.manifest import MEMBER
from shards.read.dataset import Split

COLORTRAIN, WEBDATASET = "colortrain", "webdataset + DataLoader"


def to_floats(stored: Tensor) -> tuple[Tensor, Tensor]:
    """Convert stored samples to the inputs of networks.

    stored: (B, 3, H, W) uint8. Returns L (B, 1, H, W) and ab (B, 2, H, W), float32,
    about [-1, 1].
    """
    L, ab = stored[:, :1].float(), stored[:, 1:].float()
    return L.div_(127.5).sub_(1), ab.sub_(128).div_(110)


def stack(samples: Sequence[tuple[np.ndarray]]) -> Tensor:
    """Stack samples of webdataset, (3, H, W) uint8, to a batch (B, 3, H, W)."""
    return torch.from_numpy(np.stack([sample for (sample,) in samples]))


def stack_to_floats(samples: Sequence[tuple[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Stack samples and convert them with `to_floats`, in a worker if there are any."""
    return to_floats(stack(samples))


def colortrain_batches(split: Split, batch_size: int, workers: int) -> CountStream:
    """Iterate over the training loader, like the others without flips and crops."""
    config = LoaderConfig(batch_size=batch_size, seed=0, flip=0.0, workers=workers)
    loader = Loader(split, SymmetricCodec(), config)
    with closing(loader.batches()) as batches:
        for batch in batches:
            yield len(batch.L)


def webdataset_batches(
    tars: Sequence[Path], batch_size: int, workers: int, floats_in_workers: bool
) -> CountStream:
    """Let webdataset decode and batch in the workers of a DataLoader.

    The conversion to floats is done in the workers or in this process.
    """
    _ignore_warnings()
    collate: Callable[..., Any] = stack_to_floats if floats_in_workers else stack
    dataset = (
        webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
        .decode()
        .to_tuple(MEMBER)
    )
    batched = dataset.batched(batch_size, collation_fn=collate, partial=False).repeat()
    loader = webdataset.WebLoader(batched, batch_size=None, num_workers=workers)
    for batch in loader:
        L, _ = batch if floats_in_workers else to_floats(batch)
        yield len(L)


def library_batches(library: Library, folder: Path, batch_size: int, workers: int) -> CountStream:
    """Iterate over another library's data set with its own loader."""
    _ignore_warnings()
    loader = library.loader(
        library.open(folder, batch_size), batch_size=batch_size, num_workers=workers
    )
    while True:
        for batch in loader:
            L, _ = to_floats(torch.as_tensor(batch[COLUMN]))
            yield len(L)


def _ignore_warnings() -> None:
    """Ignore two warnings of torch.

    They are expected: some measurements use more workers than cores, and nothing writes
    to the arrays of other libraries.
    """
    warnings.filterwarnings("ignore", "This DataLoader will create")
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")


def make_methods(
    split: Split,
    tars: Sequence[Path],
    copies: dict[str, tuple[Library, Path]],
    batch_size: int,
    worker_counts: Sequence[int],
) -> list[Method]:
    """Return all methods, each with every number of workers that it can use.

    `copies` maps names to the other libraries and the folders of their copies.
    """
    methods = []
    for count in worker_counts:
        start: Callable[[], CountStream] = partial(colortrain_batches, split, batch_size, count)
        methods.append(Method(label(COLORTRAIN, count), start))
    for count in worker_counts:
        # webdataset distributes whole tars among its workers
        web = partial(webdataset_batches, tars, batch_size, min(count, len(tars)))
        methods.append(Method(label(WEBDATASET, count), partial(web, False)))
        if count:
            name = label(WEBDATASET, count, "floats in workers")
            methods.append(Method(name, partial(web, True)))
        for name, (library, folder) in copies.items():
            start = partial(library_batches, library, folder, batch_size, count)
            methods.append(Method(label(name, count), start))
    return methods


def label(name: str, workers: int, suffix: str = "") -> str:
    """Return the name of a row."""
    return f"{name}, {workers} worker{'s' * (workers != 1)}" + (f", {suffix}" if suffix else "")

"""The loaders of float tensors that the benchmark `loader` compares.

Each of them yields the size of every batch that it has loaded, without end.
"""

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
    """Convert a batch of stored samples to float tensors, as the networks take them.

    stored: (B, 3, H, W) uint8, which are L x 2.55, a + 128, b + 128. Returns L (B, 1,
    H, W) and ab (B, 2, H, W), float32, both in about [-1, 1].
    """
    L, ab = stored[:, :1].float(), stored[:, 1:].float()
    return L.div_(127.5).sub_(1), ab.sub_(128).div_(110)


def stack(samples: Sequence[tuple[np.ndarray]]) -> Tensor:
    """Stack samples of webdataset, tuples of one (3, H, W) uint8 array, into a batch.

    Returns (B, 3, H, W) uint8.
    """
    return torch.from_numpy(np.stack([sample for (sample,) in samples]))


def stack_to_floats(samples: Sequence[tuple[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Stack samples of webdataset into a batch; return its L and ab as float tensors.

    samples: tuples of one array, (3, H, W) uint8. Returns L (B, 1, H, W) and ab (B, 2,
    H, W), float32, both in about [-1, 1].
    """
    return to_floats(stack(samples))


def colortrain_batches(split: Split, batch_size: int, workers: int) -> CountStream:
    """Load batches with colortrain's training loader; yield the size of each."""
    config = LoaderConfig(batch_size=batch_size, seed=0, flip=0.0, workers=workers)
    loader = Loader(split, SymmetricCodec(), config)
    with closing(loader.batches()) as batches:
        for batch in batches:
            yield len(batch.L)


def webdataset_batches(
    tars: Sequence[Path], batch_size: int, workers: int, floats_in_workers: bool
) -> CountStream:
    """Load batches with webdataset in a DataLoader's workers; yield the size of each.

    floats_in_workers: whether the workers convert the batches to floats, or this
    process.
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
    """Load batches with another library's loader; yield the size of each.

    folder: the copy of the samples in the library's format.
    """
    _ignore_warnings()
    loader = library.loader(
        library.open(folder, batch_size), batch_size=batch_size, num_workers=workers
    )
    while True:
        for batch in loader:
            L, _ = to_floats(torch.as_tensor(batch[COLUMN]))
            yield len(L)


def _ignore_warnings() -> None:
    """Ignore two warnings of torch that are expected here."""
    # Some measurements use more workers than there are cores.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    # Nothing writes to the arrays.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")


def make_methods(
    split: Split,
    tars: Sequence[Path],
    copies: dict[str, tuple[Library, Path]],
    batch_size: int,
    worker_counts: Sequence[int],
) -> list[Method]:
    """Return a method for each loader of float tensors and each number of workers.

    copies: the same samples in the formats of other libraries, as name -> (library,
    folder).
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
    """Return the name of a method in the report, such as "colortrain, 2 workers"."""
    return f"{name}, {workers} worker{'s' * (workers != 1)}" + (f", {suffix}" if suffix else "")

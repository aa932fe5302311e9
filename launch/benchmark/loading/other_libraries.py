"""Read the same samples with two other libraries: litdata and mosaicml-streaming.

Each library reads a copy in its own format, uncompressed, in file order.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shards.read.dataset import Split

COLUMN = "lab"


@dataclass(frozen=True)
class Library:
    """A library that streams samples, and how this benchmark uses it.

    name: its name on PyPI; module: the name to import; write(split, folder): writes a
    copy of the split in the library's format; open(folder, batch_size): returns the
    copy as a data set whose samples are {COLUMN: array}; loader(dataset, ...): returns
    the library's data loader.
    """

    name: str
    module: str
    write: Callable[[Split, Path], None]
    open: Callable[[Path, int], Any]
    loader: Callable[..., Any]

    def unavailable_reason(self) -> str | None:
        """Return why the library cannot be used and what to do, or None if it can."""
        if find_spec(self.module) is None:
            return f"{self.name} is not installed and not measured: pip install {self.name}"
        try:
            __import__(self.module)
        except Exception as error:  # the import of an optional package may raise anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return (
                f"{self.name} is installed but cannot be imported ({reason}) and is not "
                f"measured: python -c 'import {self.module}' shows the whole error"
            )
        return None


_open_split = lru_cache(maxsize=1)(Split)  # for litdata's writing process


def _stored_sample(root: str | Path, split: str, sample: int) -> dict[str, np.ndarray]:
    return {COLUMN: _open_split(root, split).read([sample])[0]}


def _write_litdata(split: Split, folder: Path) -> None:
    import litdata

    litdata.optimize(
        fn=partial(_stored_sample, split.root, split.name),
        inputs=list(range(len(split))),
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def _open_litdata(folder: Path, batch_size: int) -> Any:
    import litdata

    return litdata.StreamingDataset(str(folder), shuffle=False)


def _litdata_loader(dataset: Any, **kwargs: Any) -> Any:
    import litdata

    return litdata.StreamingDataLoader(dataset, **kwargs)


def _write_streaming(split: Split, folder: Path) -> None:
    from streaming import MDSWriter

    shape = ",".join(map(str, split.manifest.sample_shape))
    with MDSWriter(out=str(folder), columns={COLUMN: f"ndarray:{split.dtype}:{shape}"}) as writer:
        for sample in range(len(split)):
            writer.write({COLUMN: split.read([sample])[0]})


def _open_streaming(folder: Path, batch_size: int) -> Any:
    from streaming import StreamingDataset

    return StreamingDataset(local=str(folder), shuffle=False, batch_size=batch_size)


LIBRARIES = (
    Library("litdata", "litdata", _write_litdata, _open_litdata, _litdata_loader),
    Library(
        "mosaicml-streaming",
        "streaming",
        _write_streaming,
        _open_streaming,
        torch.utils.data.DataLoader,
    ),
)


def write_copies(split: Split, scratch: Path) -> tuple[dict[str, tuple[Library, Path]], list[str]]:
    """Write a copy of a split for each of the other libraries, to folders in `scratch`.

    Returns the copies as name -> (library, folder), and a note about each library that
    cannot be used.
    """
    copies, notes = {}, []
    for library in LIBRARIES:
        reason = library.unavailable_reason()
        if reason:
            notes.append(reason)
            continue
        folder = scratch / library.name
        shutil.rmtree(folder, ignore_errors=True)
        library.write(split, folder)
        copies[library.name] = (library, folder)
    return copies, notes

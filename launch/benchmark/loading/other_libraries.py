"""litdata and mosaicml-streaming on the same samples, each in its own format, uncompressed, in file order."""

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

NAME = "lab"


@dataclass(frozen=True)
class Other:
    """A library that streams samples: its package, and how it writes a split into a folder and opens that."""

    name: str
    module: str
    write: Callable[[Split, Path], None]
    open: Callable[[Path, int], Any]  # (folder, batch size) to a data set of {"lab": array}
    loader: Callable[..., Any]

    def importable(self) -> str | None:
        """None if it can be used, else one line that says why not and what to install."""
        if find_spec(self.module) is None:
            return f"{self.name} is not installed, so not measured: pip install {self.name}"
        try:
            __import__(self.module)
        except Exception as error:  # optional packages fail in any way they like
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"{self.name} is installed but does not import ({reason}), so not measured: pip install {self.name}"
        return None


_opened = lru_cache(maxsize=1)(Split)  # in litdata's own process


def _stored(root: str | Path, split: str, sample: int) -> dict[str, np.ndarray]:
    return {NAME: _opened(root, split).read([sample])[0]}


def _write_litdata(split: Split, folder: Path) -> None:
    import litdata

    litdata.optimize(
        fn=partial(_stored, split.root, split.name),
        inputs=list(range(len(split))),
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def _open_litdata(folder: Path, batch_size: int) -> Any:
    import litdata

    return litdata.StreamingDataset(str(folder), shuffle=False)


def _litdata_loader(dataset: Any, **words: Any) -> Any:
    import litdata

    return litdata.StreamingDataLoader(dataset, **words)


def _write_streaming(split: Split, folder: Path) -> None:
    from streaming import MDSWriter

    shape = ",".join(map(str, split.manifest.sample_shape))
    with MDSWriter(out=str(folder), columns={NAME: f"ndarray:{split.dtype}:{shape}"}) as writer:
        for sample in range(len(split)):
            writer.write({NAME: split.read([sample])[0]})


def _open_streaming(folder: Path, batch_size: int) -> Any:
    from streaming import StreamingDataset

    return StreamingDataset(local=str(folder), shuffle=False, batch_size=batch_size)


OTHERS = (
    Other("litdata", "litdata", _write_litdata, _open_litdata, _litdata_loader),
    Other(
        "mosaicml-streaming",
        "streaming",
        _write_streaming,
        _open_streaming,
        torch.utils.data.DataLoader,
    ),
)


def write_others(split: Split, scratch: Path) -> tuple[dict[str, tuple[Other, Path]], list[str]]:
    """Each importable library's own copy of a split below `scratch`, and a note for every other one."""
    written, notes = {}, []
    for other in OTHERS:
        problem = other.importable()
        if problem:
            notes.append(problem)
            continue
        folder = scratch / other.name
        shutil.rmtree(folder, ignore_errors=True)
        other.write(split, folder)
        written[other.name] = (other, folder)
    return written, notes

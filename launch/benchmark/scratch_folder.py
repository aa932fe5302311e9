"""A temporary folder of a benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Create a folder and delete it at the end of the block.

    It is inside `parent`, which is created if it does not exist. If `parent` is None,
    it is in the default folder for temporary files.
    """
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=parent) as folder:
        yield Path(folder)

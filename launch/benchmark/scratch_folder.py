"""A temporary folder for the files that a benchmark writes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Create a temporary folder, and delete it at the end of the `with` block.

    parent: where it is created, or None for the system's folder for temporary files.
    """
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=parent) as folder:
        yield Path(folder)

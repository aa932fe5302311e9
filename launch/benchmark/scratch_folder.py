"""A folder of a benchmark's own that is gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(wanted: Path | None) -> Iterator[Path]:
    """A new folder, inside `wanted` if given, else where temporary files go."""
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=wanted) as folder:
        yield Path(folder)

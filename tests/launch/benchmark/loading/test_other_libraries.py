"""Other libraries are measured where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launch.benchmark.loading import other_libraries
from launch.benchmark.loading.other_libraries import Library, write_copies
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set


def library(name: str, module: str) -> Library:
    def write(split: Split, folder: Path) -> None:
        folder.mkdir()
        (folder / "samples").write_text(str(len(split)))

    def open_copy(folder: Path, batch_size: int) -> Any:
        return None

    return Library(name, module, write, open_copy, list)


def test_copies_are_written_and_missing_libraries_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that exists but fails at its import is noted with the reason."""
    (tmp_path / "broken_module.py").write_text("raise OSError('no shared library\\nsecond line')")
    monkeypatch.syspath_prepend(tmp_path)
    libraries = [
        library("installed", "json"),
        library("missing", "no_such_module"),
        library("broken", "broken_module"),
    ]
    monkeypatch.setattr(other_libraries, "LIBRARIES", libraries)
    split = Split(small_set(tmp_path / "set", count=12))
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "old").touch()
    copies, notes = write_copies(split, tmp_path)
    assert copies == {"installed": (libraries[0], tmp_path / "installed")}
    assert [path.name for path in (tmp_path / "installed").iterdir()] == ["samples"]
    assert notes == [
        "missing is not installed and not measured: pip install missing",
        "broken is installed but cannot be imported (no shared library) and is not measured: "
        "python -c 'import broken_module' shows the whole error",
    ]

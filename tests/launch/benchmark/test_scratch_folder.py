"""The temporary folder of a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.benchmark.scratch_folder import scratch_folder


def test_the_folder_is_deleted_after_an_error_too(tmp_path: Path) -> None:
    parent = tmp_path / "new" / "scratch"

    def fail() -> None:
        with scratch_folder(parent) as folder:
            assert folder.parent == parent
            (folder / "file").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(parent.iterdir()) == []

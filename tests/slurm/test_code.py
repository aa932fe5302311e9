"""Snapshots of the code: identified by their content, refused when changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import code


def test_a_snapshot_is_named_by_its_content(tmp_path: Path) -> None:
    planned = code.planned_snapshot(tmp_path)
    assert list(tmp_path.iterdir()) == []
    first, second = code.take_snapshot(tmp_path), code.take_snapshot(tmp_path)
    assert first == second == planned
    assert [path.name for path in tmp_path.iterdir()] == [f"code-{first.digest}"]
    assert (first.folder / "launch/accelerate/cpu.yaml").is_file()
    (first.folder / "colortrain/training/step.py").write_text("pass\n")
    assert code.digest_of(first.folder) != first.digest


def test_a_process_checks_that_it_runs_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "code.py").write_text("pass\n")
    snapshot = code.CodeSnapshot(tmp_path, code.digest_of(tmp_path))
    with pytest.raises(UserError, match="this process runs the code in"):
        snapshot.check()
    monkeypatch.setattr(code, "ROOT", tmp_path)
    snapshot.check()
    (tmp_path / "slurm" / "requeue.sh").touch()
    with pytest.raises(UserError, match="was modified after submission: submit again"):
        snapshot.check()

"""Snapshots of the code: identified by their content, refused when changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
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
    snapshot = code.CodeSnapshot(tmp_path, "1")
    with pytest.raises(UserError, match="this process runs the code in"):
        snapshot.check()
    monkeypatch.setattr(code, "ROOT", tmp_path)
    snapshot.check()


def start(snapshot: code.CodeSnapshot) -> tuple[int, str, str]:
    """Run the check of a batch script; return its status, output and error output."""
    script = "\n".join([*snapshot.check_lines(), "echo started"])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_a_batch_script_computes_the_same_hash(tmp_path: Path) -> None:
    """The modules that Python compiles into the snapshot do not change it."""
    folder = tmp_path / "it's a run"
    folder.mkdir()
    snapshot = code.take_snapshot(folder)
    (snapshot.folder / "shards/color.pyc").touch()
    assert start(snapshot) == (0, "started\n", "")


MODIFICATIONS: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: (folder / "slurm/requeue.sh").write_text("exit 0"),
    "new file": lambda folder: (folder / "launch/new.yaml").touch(),
    "lost file": lambda folder: (folder / "shards/color.py").unlink(),
    "renamed file": lambda folder: (folder / "shards/color.py").rename(folder / "shards/c.py"),
    "lost package": lambda folder: (folder / "launch").rename(folder / "other"),
    "lost folder": lambda folder: folder.rename(folder.with_name("other")),
}


@pytest.mark.parametrize("modification", MODIFICATIONS)
def test_a_batch_script_refuses_a_modified_snapshot(tmp_path: Path, modification: str) -> None:
    snapshot = code.take_snapshot(tmp_path)
    MODIFICATIONS[modification](snapshot.folder)
    status, output, errors = start(snapshot)
    assert (status, output) == (2, "")
    message = f"the code snapshot {snapshot.folder} was modified after submission: submit again"
    assert message in errors.splitlines()[-1]

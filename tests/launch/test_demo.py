"""The `colortrain demo` command: its options, and training on any number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from launch import demo
from shards.errors import UserError
from tests.support.gpus import pretend_gpus


@pytest.mark.parametrize("out", ["", ".", "..", "/", "runs/.."])
def test_a_folder_without_a_name_is_rejected_before_any_work(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "write_photographs", lambda folder: pytest.fail(f"writes {folder}"))
    with pytest.raises(UserError, match="give a folder with a name"):
        demo.main(["--out", out])


@pytest.mark.parametrize(("gpus", "processes"), [(0, "2"), (1, "1"), (2, "2"), (8, "2")])
def test_training_uses_at_most_two_processes(
    gpus: int, processes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: dict[str, Sequence[object]] = {}
    pretend_gpus(monkeypatch, gpus)
    monkeypatch.setattr(demo, "run_step", commands.__setitem__)
    for name in ("write_photographs", "draw_grid", "loss_curves"):
        monkeypatch.setattr(demo, name, lambda *paths: None)
    assert demo.main(["--out", str(tmp_path / "run")]) == 0
    command = commands["Train"]
    assert command[command.index("--num_processes") + 1] == processes

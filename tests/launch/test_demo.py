"""The demo: its training starts on any number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from launch import demo
from shards.errors import UserError


@pytest.mark.parametrize("out", ["", ".", "..", "/", "runs/.."])
def test_a_folder_without_a_name_is_refused_before_any_work(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "write_photographs", lambda folder: pytest.fail(f"writes {folder}"))
    with pytest.raises(UserError, match="give a folder by its name"):
        demo.main(["--out", out])


@pytest.mark.parametrize(("gpus", "processes"), [(0, "2"), (1, "1"), (3, "1"), (4, "4"), (6, "2")])
def test_a_batch_is_shared_by_as_many_processes_as_divide_it(
    gpus: int, processes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: dict[str, Sequence[str | Path]] = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(demo, "step", lines.__setitem__)
    for drawn in ("write_photographs", "draw_grid", "loss_curves"):
        monkeypatch.setattr(demo, drawn, lambda *paths: None)
    assert demo.main(["--out", str(tmp_path / "run")]) == 0
    line = lines["Train"]
    assert line[line.index("--num_processes") + 1] == processes

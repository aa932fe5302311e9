"""The demo: its training starts on any number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from launch import demo


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

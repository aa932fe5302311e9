"""The worker that trains a network of a table and records its peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from launch.experiment import train_worker
from tests.support.gpus import pretend_gpus
from tests.support.processes import ROOT, environment


def test_the_worker_starts_without_warnings() -> None:
    line = [sys.executable, "-W", "error", "-m", "launch.experiment.train_worker", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: colortrain train ")


def test_the_largest_peak_of_rank_0_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_worker.train, "main", lambda argv: 0)
    pretend_gpus(monkeypatch, 1)
    args = ["--recipe", "flagship", "--shards", "none", "--run", str(tmp_path)]
    # The last start has nothing left to train, so its peak is lower.
    for rank, allocated in (("1", 9_000_000), ("0", 7_000_000), ("0", 5_000_000)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda value=allocated: value)
        assert train_worker.main(args) == 0
    recorded = json.loads((tmp_path / "peak.json").read_text())
    assert recorded == {"peak_mb": 7, "peak_of": "GPU memory"}


def test_the_peak_does_not_include_the_parents_memory() -> None:
    """Unlike ru_maxrss, which a parent gets for its child."""
    held = np.ones(2**27)  # 1 GB
    line = [
        sys.executable,
        "-c",
        "from launch.experiment.train_worker import peak_memory; print(peak_memory()['peak_mb'])",
    ]
    done = subprocess.run(
        line, capture_output=True, text=True, env=environment(), cwd=ROOT, check=True
    )
    assert 100 < float(done.stdout) < 1000 < held.nbytes / 1e6

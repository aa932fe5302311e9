"""The benchmark of a training step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from launch.benchmark import main, step
from launch.benchmark.report import Report
from launch.benchmark.timing import Measurements
from launch.benchmark.training.time_fractions import PARTS
from tests.support.benchmark_setup import small_argv


@pytest.mark.parametrize("convolutions", [True, False])
def test_on_a_gpu_products_are_computed_like_convolutions(
    convolutions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", convolutions)
    before = torch.backends.cuda.matmul.allow_tf32
    assert not before
    with step.tf32_like_convolutions(torch.device("cuda")):
        assert torch.backends.cuda.matmul.allow_tf32 == convolutions
    with step.tf32_like_convolutions(torch.device("cpu")):
        assert torch.backends.cuda.matmul.allow_tf32 == before
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_all_rows_are_measured_and_drawn(shards: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "step.json", tmp_path / "step.png"
    assert main(["step", *small_argv(shards, "--json", str(out), "--plot", str(plot))]) == 0
    document = json.loads(out.read_text())
    names = {row["name"] for row in document["rows"]}
    assert names >= {
        "plain PyTorch",
        "colortrain",
        "bf16",
        "channels_last",
        "recompute",
        "matrix product",
        *PARTS,
    }
    assert [goal["what"] for goal in document["goals"]] == [
        "time of a step over plain PyTorch",
        "waiting for data",
    ]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_flags_are_compared_with_colortrain_and_colortrain_with_the_plain_loop() -> None:
    report = Report("step", {})
    rates = {
        step.PLAIN: Measurements((10.0,)),
        step.COLORTRAIN: Measurements((8.0,)),
        "bf16": Measurements((12.0,)),
        step.MATMUL: Measurements((1e12,)),
    }
    step.compare_with_plain_loop(report, rates)
    (goal,), (row,) = report.goals, report.rows
    assert (goal.value, goal.met) == (1.25, False)
    assert (row.name, row.value, row.unit) == ("bf16", 1.5, "x colortrain")


def test_without_a_plain_loop_there_is_no_goal() -> None:
    report = Report("step", {})
    step.compare_with_plain_loop(report, {step.COLORTRAIN: Measurements((8.0,))})
    assert report.goals == report.rows == []

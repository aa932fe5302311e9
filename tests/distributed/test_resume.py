"""Resuming with another world size: equal parameters up to rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from colortrain.runs.checkpoint import load_tensors
from colortrain.runs.layout import checkpoint_folder
from tests.support.warm_launcher import WarmLauncher

# No BatchNorm: statistics of a local batch are another computation, not another
# rounding.
NETWORKS = [
    "generator.levels=3",
    "generator.base_channels=4",
    "generator.norm=pixel",
    "critic.base_channels=4",
]
STEP = [
    "size=32",
    "critic.depth=2",
    "n_critic=2",
    "batch_size=4",
    "flip=0.5",
    "crop=0.7",
    "ema.half_life=20",
]
INTERVALS = [
    "log_every=1",
    "checkpoint_every=4",
    "evaluate_every=4",
    "keep_checkpoints=9",
    "keep_best=l1",
]
PARTS = ("generator", "critic", "ema", "generator_adam", "critic_adam")


def arguments(shards: Path, run: Path, steps: int, *changes: str) -> list[object]:
    sets = [
        text
        for change in [*NETWORKS, *STEP, *INTERVALS, f"images={4 * steps}", *changes]
        for text in ("--set", change)
    ]
    return [
        "--recipe",
        "drouilhet_wgan_gp",
        "--shards",
        shards,
        "--run",
        run,
        "--tracker",
        "none",
        *sets,
    ]


def tensors(run: Path, step: int) -> dict[str, Tensor]:
    folder = checkpoint_folder(run, step)
    return {
        f"{part}.{name}": tensor
        for part in PARTS
        for name, tensor in load_tensors(folder, part).items()
    }


def read_metrics(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.distributed
def test_one_then_two_then_one_process_train_what_one_trains(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """The world size changes after four and eight of twelve steps.

    Networks, average, both optimizers and scores are compared.
    """
    alone, changing = tmp_path / "alone", tmp_path / "changing"
    warm.run(arguments(shards, alone, 12), processes=1)
    for steps, processes in ((4, 1), (8, 2), (12, 1)):
        warm.run(arguments(shards, changing, steps), processes=processes)
    starts = [
        (line["step"], line["world"], line["images"]) for line in read_metrics(changing, "start")
    ]
    assert starts == [(0, 1, 0), (4, 2, 16), (8, 1, 32)]
    expected = tensors(alone, 12)
    assert set(tensors(changing, 12)) == set(expected)
    for name, tensor in tensors(changing, 12).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-6)
    for one, other in zip(
        read_metrics(changing, "train"), read_metrics(alone, "train"), strict=True
    ):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4, abs=1e-5)
    exact = tensors(changing, 4)
    assert all(torch.equal(exact[name], tensor) for name, tensor in tensors(alone, 4).items())


@pytest.mark.distributed
def test_two_processes_resume_several_critic_steps_on_one_batch(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """The second half has the bytes of a run that was not interrupted."""
    changes = ("n_critic=3", "critic_batches=same")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    warm.run(arguments(shards, whole, 8, *changes), processes=2)
    for steps in (4, 8):
        warm.run(arguments(shards, halves, steps, *changes), processes=2)
    assert [line["step"] for line in read_metrics(halves, "start")] == [0, 4]
    expected = tensors(whole, 8)
    assert tensors(halves, 8).keys() == expected.keys()
    assert all(torch.equal(tensors(halves, 8)[name], expected[name]) for name in expected)

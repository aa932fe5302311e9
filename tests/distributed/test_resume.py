"""Going on with another number of processes: the same global batches, parameters equal but for rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from colortrain.runs.checkpoint import load_part
from colortrain.runs.layout import checkpoint_folder
from tests.support.warm_launcher import WarmLauncher

# No BatchNorm: statistics of a rank's own part of a batch are another computation, not another rounding.
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
PACE = [
    "log_every=1",
    "checkpoint_every=4",
    "evaluate_every=4",
    "keep_checkpoints=9",
    "keep_best=l1",
]
PARTS = ("generator", "critic", "ema", "generator_adam", "critic_adam")


def words(shards: Path, run: Path, steps: int) -> list[object]:
    sets = [
        word
        for change in [*NETWORKS, *STEP, *PACE, f"images={4 * steps}"]
        for word in ("--set", change)
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
        for name, tensor in load_part(folder, part).items()
    }


def journal(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.distributed
def test_one_then_two_then_one_process_train_what_one_trains(
    warm: WarmLauncher, shards: Path, tmp_path: Path
) -> None:
    """Twelve steps, with the world changing after four and eight: networks, average, both optimizers and scores."""
    alone, turns = tmp_path / "alone", tmp_path / "turns"
    warm.run(words(shards, alone, 12), processes=1)
    for steps, processes in ((4, 1), (8, 2), (12, 1)):
        warm.run(words(shards, turns, steps), processes=processes)
    starts = [(line["step"], line["world"], line["images"]) for line in journal(turns, "start")]
    assert starts == [(0, 1, 0), (4, 2, 16), (8, 1, 32)]
    expected = tensors(alone, 12)
    assert set(tensors(turns, 12)) == set(expected)
    for name, tensor in tensors(turns, 12).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-6)
    for mine, its in zip(journal(turns, "train"), journal(alone, "train"), strict=True):
        assert mine["losses"] == pytest.approx(its["losses"], rel=1e-4, abs=1e-5)
    exact = tensors(turns, 4)
    assert all(torch.equal(exact[name], tensor) for name, tensor in tensors(alone, 4).items())

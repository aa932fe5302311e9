"""Compute options of training: microbatches, compilation, skipped updates."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.wrap import make_networks
from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.runs.checkpoint import load_generator, load_tensors
from colortrain.runs.layout import checkpoint_folder
from colortrain.training.step import train_step
from tests.support.compilers import ignore_warnings_of_compiler
from tests.support.gpus import error_on_sync, one_gpu
from tests.support.processes import run_command, run_gpu_command
from tests.support.step_equivalence import RECIPES, make_batch

STEPS = 20


def arguments(shards: Path, run: Path, *changes: str, steps: int = STEPS) -> list[object]:
    """Return arguments of a recipe with a penalty; its networks do not mix images."""
    exact = [
        "generator.levels=3",
        "critic.depth=2",
        "generator.norm=pixel",
        "n_critic=2",
        "batch_size=4",
    ]
    small = [
        "size=32",
        "generator.base_channels=4",
        "critic.base_channels=4",
        f"images={4 * steps}",
    ]
    intervals = ["evaluate_every=20", "checkpoint_every=10", "log_every=5", "keep_checkpoints=9"]
    sets = [text for change in [*exact, *small, *intervals, *changes] for text in ("--set", change)]
    return ["--recipe", "drouilhet_wgan_gp", "--shards", shards, "--run", run, *sets]


def tensors(run: Path, step: int = STEPS) -> dict[str, Tensor]:
    return {
        f"{part} {name}": tensor
        for part in ("generator", "critic", "generator_adam", "critic_adam")
        for name, tensor in load_tensors(checkpoint_folder(run, step), part).items()
    }


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.distributed
def test_a_run_resumes_with_other_microbatches(shards: Path, tmp_path: Path) -> None:
    """Two processes with two microbatches, then one with four, equal one with one.

    Up to rounding, also with other memory formats and a fused Adam.
    """
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    assert run_command("launch.train", arguments(shards, plain)).returncode == 0
    done = run_command(
        "launch.train", [*arguments(shards, parts, steps=10), "--accumulate", 2], processes=2
    )
    assert done.returncode == 0, done.stderr
    done = run_command(
        "launch.train",
        [*arguments(shards, parts), "--accumulate", 4, "--channels-last", "--fused-adam"],
    )
    assert done.returncode == 0, done.stderr
    found, expected = tensors(parts), tensors(plain)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
    assert [line["skipped"] for line in read_metrics(parts) if line["kind"] == "train"] == [0] * 4


def test_a_run_without_finite_updates_ends_with_one_line(shards: Path, tmp_path: Path) -> None:
    """A learning rate of 1e30 makes the weights overflow at the first update."""
    run = tmp_path / "run"
    argv = [
        *arguments(shards, run, "critic_adam.lr=1e30", "generator_adam.lr=1e30"),
        "--max-skipped",
        3,
    ]
    done = run_command("launch.train", argv)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert (
        "consecutive updates of the critic were skipped because the loss or the gradients" in last
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(["--accumulate", "3"], "use one of [1, 2, 4]"), (["--accumulate", "0"], "at least 1")],
)
def test_impossible_microbatches_are_refused(
    shards: Path, tmp_path: Path, wrong: list[str], message: str
) -> None:
    done = run_command("launch.train", [*arguments(shards, tmp_path / "run"), *wrong])
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]  # before it, perhaps that with the device
    assert line.startswith("colortrain train: error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs"
)
@ignore_warnings_of_compiler
def test_compiled_networks_take_the_same_steps_and_keep_their_names() -> None:
    """Up to rounding; the penalty is computed with the uncompiled critic."""
    recipe = dataclasses.replace(
        RECIPES["bce_gp"], generator=DeepUNetConfig(base_channels=4, levels=1, norm="pixel")
    )
    results = []
    for compute in (ComputeConfig(), ComputeConfig(compile=True)):
        torch.manual_seed(0)
        pair = make_networks(recipe, *recipe.build_networks(), Accelerator(cpu=True), compute)
        batch = make_batch(2, 0)
        batch = dataclasses.replace(
            batch, L=batch.L.float(), colour=batch.colour.float(), mix=batch.mix.float()
        )
        losses = train_step(
            *pair, recipe, [lambda fake, batch: (fake - batch.colour).abs().mean()], batch, 0, 0.0
        )
        results.append((losses, [network.module.state_dict() for network in pair if network]))
    (losses, states), (compiled_losses, compiled_states) = results
    for name, value in losses.items():
        assert compiled_losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for state, compiled in zip(states, compiled_states, strict=True):
        assert list(state) == list(compiled)
        for name, tensor in state.items():
            torch.testing.assert_close(compiled[name], tensor, rtol=0, atol=1e-4)


@one_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("option", [None, "--channels-last", "--compile", "--recompute"])
def test_all_options_train_on_a_gpu(
    shards: Path, tmp_path: Path, precision: str, option: str | None
) -> None:
    """With fp16 each network has its own loss scale, which a resumed run loads."""
    for steps in (10, STEPS):
        argv = [*arguments(shards, tmp_path / "run", steps=steps), *([option] if option else [])]
        done = run_gpu_command("launch.train", argv, precision=precision)
        assert done.returncode == 0, done.stderr
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path / "run").values())
    load_generator(tmp_path / "run")
    state = json.loads((checkpoint_folder(tmp_path / "run", STEPS) / "trainer.json").read_text())
    assert set(state["scalers"]) == ({"generator", "critic"} if precision == "fp16" else set())


@one_gpu
@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_gpu() -> None:
    """The third step, with a penalty, clipping and two microbatches, never syncs."""
    recipe = dataclasses.replace(RECIPES["clipped"], objective=RECIPES["bce_gp"].objective)
    pair = make_networks(
        recipe,
        *recipe.build_networks(),
        Accelerator(),
        ComputeConfig(accumulate=2),
    )
    batch = make_batch(2, 0)
    batch = type(batch)(*(tensor.float().cuda() for tensor in (batch.L, batch.colour, batch.mix)))
    loss_functions = [lambda fake, batch: (fake - batch.colour).abs().mean()]
    for step in range(2):
        train_step(*pair, recipe, loss_functions, batch, step, 0.0)
    torch.cuda.synchronize()
    with error_on_sync():
        train_step(*pair, recipe, loss_functions, batch, 2, 0.0)

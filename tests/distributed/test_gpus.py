"""Tests on GPUs: NCCL, BatchNorm with DDP, pinned memory, benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from colortrain.data.loader import Loader, LoaderConfig
from colortrain.distributed.compute import ComputeConfig
from colortrain.lab import Batch, SymmetricCodec
from colortrain.runs.checkpoint import load_tensors
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from colortrain.training.step import train_step
from launch.benchmark import main, step
from shards.read.dataset import Split
from tests.support.benchmark_reports import check_report
from tests.support.compilers import ignore_warnings_of_compiler
from tests.support.gpu_stand_in.build import LIBRARY_VARIABLE
from tests.support.gpus import error_on_sync, one_gpu, two_gpus
from tests.support.networks import float_batch, l1_loss, make_pair, recipe_with_dropout
from tests.support.processes import ROOT, environment, gpu_command, run_gpu_command
from tests.support.step_equivalence import MUON, RECIPES, SYNCED, run_steps

pytestmark = pytest.mark.gpu
THIN = [
    "size=32",
    "generator.levels=4",
    "generator.base_channels=8",
    "critic.base_channels=8",
    "batch_size=8",
]


@two_gpus
def test_two_gpus_take_the_step_of_one(tmp_path: Path) -> None:
    """Every objective through NCCL, and synchronised BatchNorm, in float64."""
    argv = [tmp_path, "float64"]
    done = run_gpu_command("tests.support.step_equivalence", argv, gpus=2, precision="no")
    assert done.returncode == 0, done.stderr
    for name, recipe in {**RECIPES, **MUON, **SYNCED}.items():
        alone = run_steps(recipe, torch.float64, Accelerator(), ComputeConfig())
        together = load_file(tmp_path / f"{name}-float64-1")
        for key, tensor in alone.items():
            torch.testing.assert_close(
                together[key], tensor.cpu(), rtol=0, atol=1e-9, msg=f"{name}: {key}"
            )


def arguments(shards: Path, run: Path, steps: int, *more: str) -> list[object]:
    changes = [*THIN, f"images={8 * steps}", "checkpoint_every=4", "log_every=2"]
    sets = [text for change in changes for text in ("--set", change)]
    return ["--recipe", "nampouri_unet", "--shards", shards, "--run", run, *sets, *more]


@two_gpus
@pytest.mark.parametrize(
    ("precision", "options"),
    [("bf16", ["--compile", "--accumulate", "2"]), ("fp16", []), ("bf16", ["--channels-last"])],
)
def test_options_on_two_gpus(
    shards: Path, tmp_path: Path, precision: str, options: list[str]
) -> None:
    """A run and its resumption end without a warning, and no update is skipped.

    Saving compares the weights of the ranks.
    """
    run = tmp_path / "run"
    for steps in (4, 8):
        argv = arguments(shards, run, steps, *options)
        done = run_gpu_command("launch.train", argv, gpus=2, precision=precision)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
    lines = [line for line in journal(run) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    # the loss scale of fp16 starts so high that gradients overflow at first
    assert precision == "fp16" or not sum(line["skipped"] for line in lines)
    for part in ("generator", "critic"):
        tensors = load_tensors(checkpoint_folder(run, 8), part)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def journal(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def started(argv: list[object], run: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a run on two GPUs; yield the launcher and the ranks' ids, at step 2."""
    line = gpu_command("launch.train", argv, gpus=2)
    options: dict[str, Any] = {"env": environment(), "cwd": ROOT, "text": True}
    with subprocess.Popen(line, **options, stderr=subprocess.PIPE) as launcher:
        until = time.monotonic() + 200
        while not any(entry["kind"] == "train" for entry in journal(run)):
            assert launcher.poll() is None, launcher.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        children = psutil.Process(launcher.pid).children(recursive=True)
        ranks = {
            int(child.environ()["RANK"]): child.pid
            for child in children
            if "RANK" in child.environ() and child.ppid() == launcher.pid
        }
        try:
            yield launcher, [ranks[rank] for rank in range(2)]
        finally:
            for child in (*children, launcher):
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    child.kill()


@two_gpus
def test_a_signal_stops_two_gpus_and_everything_is_saved(shards: Path, tmp_path: Path) -> None:
    """The signal reaches one rank only, and both stop at the same step."""
    run = tmp_path / "run"
    with started(arguments(shards, run, 100_000), run) as (launcher, ranks):
        os.kill(ranks[1], signal.SIGUSR2)
        _, errors = launcher.communicate(timeout=120)
    assert "stopped by a signal, everything is saved" in errors
    assert "Traceback" not in errors.partition("stopped by a signal")[0]
    last = journal(run)[-1]
    assert last["kind"] == "stop"
    assert checkpoint_steps(run)[-1] == last["step"]


@two_gpus
def test_a_killed_rank_on_gpus_ends_the_run_and_is_named(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started(arguments(shards, run, 100_000), run) as (launcher, ranks):
        os.kill(ranks[1], signal.SIGKILL)
        _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 1
    assert "SIGKILL" in errors  # in the launcher's own summary
    assert "rank      : 1" in errors or "rank 1 (" in errors


@one_gpu
@ignore_warnings_of_compiler
def test_a_compiled_generator_uses_the_same_dropout_masks() -> None:
    """Two compiled steps with BatchNorm have the losses of uncompiled ones."""
    recipe = recipe_with_dropout()
    assert any(isinstance(layer, nn.Dropout) for layer in recipe.generator.build().modules())
    results = []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for compute in (ComputeConfig(), ComputeConfig(compile=True)):
            pair = make_pair(recipe, compute, cpu=False)
            losses = [
                train_step(*pair, recipe, [l1_loss], on_gpu(float_batch(step)), step, 0.0)
                for step in range(2)
            ]
            results.append([{name: float(loss) for name, loss in row.items()} for row in losses])
    plain, compiled = results
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4)
    assert compiled[1] == pytest.approx(plain[1], rel=1e-2)  # after an update by Adam


def on_gpu(batch: Batch) -> Batch:
    return Batch(batch.L.cuda(), batch.colour.cuda(), batch.mix.cuda())


@one_gpu
def test_batches_arrive_without_waiting_for_the_gpu(shards: Path) -> None:
    """They are copied asynchronously from pinned memory, and equal those on the CPU."""
    config = LoaderConfig(batch_size=4, seed=0, flip=0.5, workers=2)
    on_cpu = Loader(Split(shards), SymmetricCodec(), config)
    on_gpu = Loader(Split(shards), SymmetricCodec(), replace(config, device="cuda"))
    with closing(on_cpu.batches()) as some:
        expected = [(batch.L.clone(), batch.colour.clone()) for batch in islice(some, 6)]
    with closing(on_gpu.batches()) as others:
        next(others)  # the first one creates the codec's constants
        with error_on_sync():
            on_device = list(islice(others, 5))
    for batch, (L, colour) in zip(on_device, expected[1:], strict=True):
        torch.testing.assert_close(batch.L.cpu(), L, rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.colour.cpu(), colour, rtol=0, atol=1e-6)


@one_gpu
@pytest.mark.timeout(900)  # `step` compiles three times
@ignore_warnings_of_compiler
@pytest.mark.parametrize("name", ["step", "checkpoint", "scaling"])
def test_benchmarks_run_on_a_gpu(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if LIBRARY_VARIABLE in os.environ:  # ten products for a GPU take a CPU minutes
        monkeypatch.setitem(step.MATRIX_SIDES, "cuda", 256)
    out = tmp_path / "report.json"
    sets = [text for change in THIN for text in ("--set", change)]
    assert (
        main(
            [
                name,
                "--shards",
                str(shards),
                *sets,
                "--seconds",
                "0.2",
                "--rounds",
                "2",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    document = json.loads(out.read_text())
    kept = [
        row for row in document["rows"] if row["unit"] in ("images/s", "GFLOP/s", "MB")
    ]  # others may be 0
    assert kept
    check_report({**document, "rows": kept})
    if name == "step":
        assert "bf16, channels_last, compile, over plain PyTorch" in {
            goal["what"] for goal in document["goals"]
        }

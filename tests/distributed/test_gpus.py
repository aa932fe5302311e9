"""Tests on GPUs: NCCL, BatchNorm with DDP, pinned memory, benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from colortrain.data.loader import Loader, LoaderConfig
from colortrain.distributed.compute import ComputeConfig
from colortrain.lab import SymmetricCodec
from launch.benchmark import main
from shards.read.dataset import Split
from tests.support.benchmark_reports import check_report
from tests.support.gpus import error_on_sync, one_gpu, two_gpus
from tests.support.processes import ROOT, environment
from tests.support.step_equivalence import MUON, RECIPES, SYNCED, run_steps

pytestmark = pytest.mark.gpu
THIN = [
    "size=32",
    "generator.levels=4",
    "generator.base_channels=8",
    "critic.base_channels=8",
    "batch_size=8",
]


@pytest.fixture
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch TF32 off for convolutions and matrix products: it rounds to 10 bits."""
    for products in (torch.backends.cuda.matmul, torch.backends.cudnn):
        monkeypatch.setattr(products, "allow_tf32", False)


@two_gpus
def test_two_gpus_take_the_step_of_one(tmp_path: Path, exact_products: None) -> None:
    """Every objective through NCCL, and synchronised BatchNorm, in float64."""
    config = str(ROOT / "launch" / "accelerate" / "ddp.yaml")
    launch = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "2"]
    line = [
        sys.executable,
        *launch,
        "--mixed_precision",
        "no",
        "-m",
        "tests.support.step_equivalence",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*line, "float64"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, recipe in {**RECIPES, **MUON, **SYNCED}.items():
        alone = run_steps(recipe, torch.float64, Accelerator(), ComputeConfig())
        together = load_file(tmp_path / f"{name}-float64-1")
        for key, tensor in alone.items():
            torch.testing.assert_close(
                together[key], tensor.cpu(), rtol=0, atol=1e-9, msg=f"{name}: {key}"
            )


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
@pytest.mark.filterwarnings(
    "ignore:.*is deprecated:DeprecationWarning:torch"
)  # from the compiler's own imports
@pytest.mark.parametrize("name", ["step", "checkpoint", "scaling"])
def test_benchmarks_run_on_a_gpu(shards: Path, tmp_path: Path, name: str) -> None:
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

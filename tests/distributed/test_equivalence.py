"""Steps on two processes, with one microbatch or two, equal those of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from colortrain.distributed.compute import ComputeConfig
from colortrain.recipe import Recipe
from tests.support.processes import run_command
from tests.support.step_equivalence import DTYPES, cases, run_steps

WITHIN = {"float64": 1e-10, "float32": 1e-5}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every case on two processes, from one launch."""
    out = tmp_path_factory.mktemp("outcomes")
    done = run_command("tests.support.step_equivalence", [out], processes=2)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("name", "recipe", "dtype", "accumulate"),
    cases(),
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
def test_two_processes_take_the_step_of_one(
    two_processes: Path, name: str, recipe: Recipe, dtype: str, accumulate: int
) -> None:
    alone = run_steps(recipe, DTYPES[dtype], Accelerator(cpu=True), ComputeConfig())
    together = load_file(two_processes / f"{name}-{dtype}-{accumulate}")
    assert together.keys() == alone.keys()
    for key, tensor in alone.items():
        error = (together[key] - tensor).abs().max().item()
        assert error <= WITHIN[dtype], key


@pytest.mark.distributed
def test_ranks_skip_the_same_updates(two_processes: Path) -> None:
    """An infinite pixel on one rank makes both skip both updates of that step only."""
    first, second = (load_file(two_processes / f"failed-{rank}") for rank in range(2))
    assert first["skipped"].tolist() == second["skipped"].tolist() == [1, 1, 1, 1]
    assert first["parameters"].isfinite().all()
    assert torch.equal(first["parameters"], second["parameters"])

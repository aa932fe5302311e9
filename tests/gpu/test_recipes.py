"""Every recipe on a GPU stand-in: it trains, stops, resumes, and steps do not wait.

The stand-in refuses operations that mix devices, so that a run which ends has none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from colortrain.recipes import RECIPES
from tests.gpu.checks import check_run, check_steps, events_of
from tests.support.gpu_stand_in.processes import needs_stand_in, run_on_gpus
from tests.support.small_shard_set import small_set
from tests.support.train_on_gpu import FAULTS, Case, write_request

pytestmark = needs_stand_in

CASES = [Case(name, precision) for name in RECIPES for precision in ("no", "bf16", "fp16")]


def faulty(fault: str) -> Case:
    return Case("nazeri_unet_l2", fault=fault)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of each recipe with each precision, and of runs with faults."""
    folder = tmp_path_factory.mktemp("runs")
    shards = small_set(folder / "set", count=24, splits=("train", "val"))
    request = write_request(folder, shards, [*CASES, *map(faulty, filter(None, FAULTS))])
    done = run_on_gpus("tests.support.train_on_gpu", [request])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recipe_trains_and_resumes_without_waiting(folder: Path, case: Case) -> None:
    check_steps(events_of(folder, case))
    check_run(folder, case)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("wait", "wait: aten::_local_scalar_dense"),
        ("copy unpinned", "copy to device, unpinned"),
    ],
)
def test_faults_in_a_step_are_found(folder: Path, fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_steps(events_of(folder, faulty(fault)))


def test_mixed_devices_in_a_step_are_refused(folder: Path) -> None:
    (error,) = events_of(folder, faulty("mix devices"))
    assert "Expected all tensors to be on the same device" in error

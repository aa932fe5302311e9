"""Two processes on two GPU stand-ins: DDP, compilation, microbatches, the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import colorize, evaluate
from tests.gpu.checks import check_run, check_steps, events_of
from tests.support.gpu_stand_in.processes import needs_stand_in, run_on_gpus
from tests.support.small_shard_set import small_set
from tests.support.train_on_gpu import Case, write_request

pytestmark = [needs_stand_in, pytest.mark.distributed]

CASES = [
    Case("nampouri_unet", "no"),
    Case("nampouri_unet", "fp16"),
    Case("nampouri_unet", "bf16", {"compile": True, "accumulate": 2}),
    Case("nampouri_resnet18", "bf16", {"channels_last": True, "resync": True}),
    Case("drouilhet_wgan_gp", "no"),  # a penalty, five steps of the critic
    Case("nazeri_gan", "bf16", {"recompute": True}),
    Case("flagship", "bf16"),  # Muon
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of all cases."""
    folder = tmp_path_factory.mktemp("runs")
    shards = small_set(folder / "set", count=24, splits=("train", "val"))
    request = write_request(folder, shards, CASES)
    done = run_on_gpus("tests.support.train_on_gpu", [request], gpus=2)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_gpus_train_and_resume_without_waiting(folder: Path, case: Case) -> None:
    for rank in range(2):
        check_steps(events_of(folder, case, rank))
    check_run(folder, case)


def test_commands_on_two_gpus_give_the_results_of_the_cpu(tmp_path: Path) -> None:
    """Training, then scores and colours, which the CPU computes again from the run."""
    name = "valentini_cgan"
    shards = small_set(tmp_path / "sets" / "32", count=24, splits=("train", "val"))
    folder = tmp_path / name
    folder.mkdir()
    argv = [tmp_path, shards.parent, name]
    done = run_on_gpus("tests.support.step_all_recipes", argv, gpus=2)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    run, again = folder / "run", folder / "again"
    scores = ["--run", run, "--shards", shards, "--limit", "4", "--json", again / "scores.json"]
    assert evaluate.main(list(map(str, scores))) == 0
    assert colorize.main(list(map(str, [folder / "cat.png", "--run", run, "--out", again]))) == 0
    found, expected = (
        json.loads((each / "scores.json").read_text())["metrics"] for each in (folder, again)
    )
    assert found.keys() == expected.keys()
    for metric, versions in expected.items():
        assert found[metric] == pytest.approx(versions, rel=1e-4, abs=1e-6), metric
    images = [np.asarray(Image.open(each / "cat.png")) for each in (folder / "out", again)]
    assert np.abs(images[0].astype(int) - images[1].astype(int)).max() <= 1

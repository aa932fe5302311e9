"""DeepSpeed ZeRO on two CPU processes: the steps and checkpoints of one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.runs.checkpoint import load_tensors
from colortrain.runs.layout import checkpoint_folder
from tests.support.gpus import two_gpus
from tests.support.processes import ROOT, environment, run_command, run_gpu_command
from tests.support.small_shard_set import small_set
from tests.support.step_equivalence import MUON, cases, run_steps

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="deepspeed is not installed: pip install '.[deepspeed]'",
)
# DeepSpeed's own copies of weights are float32
SINGLE = [case for case in cases() if case[2] == "float32"]


def run_zero(
    stage: int, folder: Path, module: str, arguments: Sequence[object]
) -> subprocess.CompletedProcess[str]:
    """Run a module on two CPU processes with ZeRO."""
    text = (ROOT / "launch" / "accelerate" / f"zero{stage or 1}.yaml").read_text()
    text = text.replace("zero_stage: 1", f"zero_stage: {stage}").replace(
        "use_cpu: false", "use_cpu: true\ngpu_ids: '-1,-1'"
    )
    config = folder / f"zero{stage}.yaml"
    config.write_text(text.replace("mixed_precision: bf16", "mixed_precision: 'no'"))
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "-m", module]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, *launch, *map(str, arguments)],
        env={**environment(), "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@needs_deepspeed
@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_zero_takes_the_steps_of_one_process(tmp_path: Path, stage: int) -> None:
    """Every objective, one microbatch and two; both ranks skip the same updates."""
    done = run_zero(stage, tmp_path, "tests.support.step_equivalence", [tmp_path, "float32"])
    assert done.returncode == 0, done.stderr
    accelerator = Accelerator(cpu=True)
    for name, recipe, dtype, accumulate in (
        case for case in SINGLE if not (stage and case[0] in MUON)
    ):
        alone = run_steps(recipe, torch.float32, accelerator, ComputeConfig())
        together = load_file(tmp_path / f"{name}-{dtype}-{accumulate}")
        assert together.keys() == alone.keys()
        worst = max((together[key] - tensor).abs().max().item() for key, tensor in alone.items())
        assert worst <= 1e-5, (name, accumulate)
    for rank in range(2):
        assert load_file(tmp_path / f"failed-{rank}")["skipped"].tolist() == [1, 1, 1, 1]


def arguments(shards: Path, run: Path, steps: int) -> list[object]:
    """Return arguments for networks that do not mix images: world sizes agree."""
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
    intervals = ["evaluate_every=10", "checkpoint_every=10", "log_every=5", "keep_checkpoints=9"]
    sets = [text for change in [*exact, *small, *intervals] for text in ("--set", change)]
    return ["--recipe", "drouilhet_wgan_gp", "--shards", shards, "--run", run, *sets]


def tensors(run: Path, step: int) -> dict[str, Tensor]:
    """Return the tensors of both networks and both optimizers."""
    parts = ("generator", "critic", "generator_adam", "critic_adam")
    loaded = {part: load_tensors(checkpoint_folder(run, step), part) for part in parts}
    return {
        f"{part} {name}": tensor for part, named in loaded.items() for name, tensor in named.items()
    }


@needs_deepspeed
@pytest.mark.distributed
def test_a_run_resumes_with_and_without_zero(tmp_path: Path) -> None:
    """ZeRO 2 to step 10, ZeRO 1 to 20, one process to 30: equal to one process only."""
    shards = small_set(tmp_path / "set", size=32, count=22, splits=("train", "val"))
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    assert run_command("launch.train", arguments(shards, plain, 30)).returncode == 0
    for stage, steps in ((2, 10), (1, 20)):
        done = run_zero(stage, tmp_path, "launch.train", arguments(shards, mixed, steps))
        assert done.returncode == 0, done.stderr
    assert run_command("launch.train", arguments(shards, mixed, 30)).returncode == 0
    for step in (10, 20, 30):
        found, expected = tensors(mixed, step), tensors(plain, step)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@needs_deepspeed
@two_gpus
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_zero_trains_on_gpus_as_one_process(tmp_path: Path, precision: str) -> None:
    """With our configuration: equal up to rounding in float32, finite in bfloat16."""
    shards = small_set(tmp_path / "set", size=32, count=22, splits=("train", "val"))
    run, alone = tmp_path / "run", tmp_path / "alone"
    for folder, config, gpus in ((run, "zero2.yaml", 2), (alone, "one_gpu.yaml", 1)):
        argv = arguments(shards, folder, 10)
        done = run_gpu_command("launch.train", argv, gpus, precision, config=config)
        assert done.returncode == 0, done.stderr
    found, expected = tensors(run, 10), tensors(alone, 10)
    for name, tensor in expected.items():
        assert found[name].isfinite().all()
        if precision == "no":
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)

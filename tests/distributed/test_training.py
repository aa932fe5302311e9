"""`launch.train` on one process and two: killed, resumed, and refused with one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from colortrain.runs.checkpoint import is_intact, load_tensors
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from colortrain.runs.run_lock import RunLock
from colortrain.training.trainer import step_seed
from tests.support.processes import ROOT, command, environment, run_command
from tests.support.small_shard_set import small_set

THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
]
STEPS = 40


def arguments(shards: Path, run: Path, *changes: str, steps: int = STEPS) -> list[object]:
    intervals = [
        f"images={4 * steps}",
        "log_every=5",
        "checkpoint_every=10",
        "evaluate_every=20",
        "keep_checkpoints=9",
    ]
    sets = [
        text
        for change in [*THIN, *intervals, "ema.half_life=20", *changes]
        for text in ("--set", change)
    ]
    return ["--recipe", "nampouri_unet", "--shards", shards, "--run", run, *sets]


def weights(run: Path, step: int = STEPS) -> dict[str, bytes]:
    """Return the tensor files of a checkpoint: networks, optimizers and average."""
    return {
        path.name: path.read_bytes() for path in checkpoint_folder(run, step).glob("*.safetensors")
    }


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run_command("launch.train", arguments(shards, run), processes=2)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.distributed
def test_two_processes_write_metrics_samples_and_checkpoints(undisturbed: Path) -> None:
    lines = read_metrics(undisturbed)
    assert [line["world"] for line in lines if line["kind"] == "start"] == [2]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(
        range(5, STEPS + 1, 5)
    )
    losses = [line["losses"] for line in lines if line["kind"] == "train"]
    assert losses[-1]["l1"] < losses[0]["l1"]  # it learns
    assert {"generator", "critic", "adversarial", "score_real", "score_fake"} <= set(losses[0])
    scores = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in scores] == [20, STEPS]
    assert scores[0]["samples"] == 11
    assert len(weights(undisturbed)) == 5
    assert checkpoint_steps(undisturbed) == [10, 20, 30, 40]
    assert len(list((undisturbed / "samples").glob("*.png"))) == 2
    assert list((undisturbed / "tensorboard").rglob("events.out.*"))
    assert json.loads((undisturbed / "recipe.json").read_text())["generator"]["base_channels"] == 4


@pytest.mark.distributed
def test_skipping_validations_and_checkpoints_changes_no_byte(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Rank 0 decides what two processes skip; BatchNorm's statistics are averaged."""
    run = tmp_path / "run"
    argv = [*arguments(shards, run), "--overhead", "0.000001"]
    done = run_command("launch.train", argv, processes=2)
    assert done.returncode == 0, done.stderr
    assert f"{run}: no checkpoint yet, starting at step 0 of {STEPS}; validates" in done.stderr
    assert checkpoint_steps(run) == [10, STEPS]
    assert weights(run) == weights(undisturbed)
    skipped = [line for line in read_metrics(run) if line["kind"] == "skipped"]
    assert [(line["step"], line["task"], line["times"]) for line in skipped] == [
        (STEPS, "saving", 2)
    ]


@pytest.mark.distributed
@pytest.mark.parametrize("kill_at", [10, 20])
def test_a_killed_run_resumes_to_the_same_bytes(
    shards: Path, undisturbed: Path, tmp_path: Path, kill_at: int
) -> None:
    """Launcher and ranks are killed when a checkpoint appears; the command resumes."""
    run = tmp_path / "run"
    line = command("launch.train", arguments(shards, run), processes=2)
    process = subprocess.Popen(
        line,
        env=environment(),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not checkpoint_folder(run, kill_at).is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    for child in [
        process.pid,
        *(child.pid for child in psutil.Process(process.pid).children(recursive=True)),
    ]:
        os.kill(child, signal.SIGKILL)  # ranks have sessions of their own
    process.wait()
    assert kill_at in checkpoint_steps(run)
    assert STEPS not in checkpoint_steps(run), "the run ended before it was killed"
    done = run_command("launch.train", arguments(shards, run), processes=2)
    assert done.returncode == 0, done.stderr
    assert weights(run) == weights(undisturbed)
    trained = [entry["step"] for entry in read_metrics(run) if entry["kind"] == "train"]
    assert trained == list(range(5, STEPS + 1, 5))  # no step logged twice


@pytest.mark.distributed
def test_one_process_resumes_a_run_of_two(shards: Path, tmp_path: Path) -> None:
    """The global batches are the same; a finished run is not changed."""
    run = tmp_path / "run"
    assert (
        run_command("launch.train", arguments(shards, run, steps=10), processes=2).returncode == 0
    )
    assert run_command("launch.train", arguments(shards, run, steps=20)).returncode == 0
    starts = [
        (line["step"], line["world"], line["images"])
        for line in read_metrics(run)
        if line["kind"] == "start"
    ]
    assert starts == [(0, 2, 0), (10, 1, 40)]
    before = weights(run, 20)
    assert run_command("launch.train", arguments(shards, run, steps=20)).returncode == 0
    assert weights(run, 20) == before


@pytest.mark.distributed
def test_two_processes_train_what_one_trains(shards: Path, tmp_path: Path) -> None:
    """Without BatchNorm and dropout, parameters after ten steps agree up to rounding.

    Penalties, flips and crops draw by position, so they agree as well.
    """
    exact = [
        "generator.levels=3",
        "critic.depth=2",
        "generator.norm=pixel",
        "n_critic=2",
        "batch_size=4",
        "flip=0.5",
    ]
    small = ["size=32", "generator.base_channels=4", "critic.base_channels=4", "crop=0.7"]
    intervals = ["images=40", "evaluate_every=10", "checkpoint_every=10", "log_every=5"]
    sets = [text for change in [*small, *exact, *intervals] for text in ("--set", change)]
    results = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        argv = ["--recipe", "drouilhet_wgan_gp", "--shards", shards, "--run", run, *sets]
        done = run_command("launch.train", argv, processes)
        assert done.returncode == 0, done.stderr
        results.append(
            load_tensors(checkpoint_folder(run, 10), "generator")
            | load_tensors(checkpoint_folder(run, 10), "critic")
        )
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-4, atol=2e-6)
    alone, together = (read_metrics(tmp_path / str(processes)) for processes in (1, 2))
    for one, two in zip(alone, together, strict=True):
        if one["kind"] == "train":
            assert two["losses"] == pytest.approx(one["losses"], rel=1e-4, abs=1e-5)


def num_lines_after_start(stderr: str) -> int:
    """Return the number of lines after that with the device, which is the first."""
    first, *others = stderr.splitlines()
    assert first == "CPU with 1 thread per process, mixed precision no, 1 process"
    return len(others)


@pytest.mark.distributed
def test_a_locked_run_is_refused(shards: Path, tmp_path: Path) -> None:
    with RunLock(tmp_path / "run") as lock:
        lock.acquire()
        second = run_command("launch.train", arguments(shards, tmp_path / "run", steps=2))
    assert second.returncode == 2
    assert num_lines_after_start(second.stderr) == 1
    assert "is being trained by another process" in second.stderr
    assert run_command("launch.train", arguments(shards, tmp_path / "run", steps=2)).returncode == 0


@pytest.mark.distributed
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert (
        run_command("launch.train", arguments(shards, run, steps=20), processes=2).returncode == 0
    )
    (checkpoint_folder(run, 20) / "critic.safetensors").write_bytes(b"gone")
    done = run_command("launch.train", arguments(shards, run), processes=2)
    assert done.returncode == 0, done.stderr
    assert "step-000000020 is damaged, falling back" in done.stderr
    assert is_intact(checkpoint_folder(run, 20))
    assert weights(run) == weights(undisturbed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            ["--recipe", "nampori_unet"],
            "unknown recipe 'nampori_unet'; valid, nearest first: nampouri_unet",
        ),
        (
            ["--set", "critic_adm.lr=1"],
            "unknown field 'critic_adm'; valid, nearest first: critic_adam",
        ),
        (
            ["--set", "size=64"],
            "contains 32 px samples, recipe nampouri_unet requires 64 px: give --set size=32",
        ),
        (["--set", "generator.levels=8"], "set generator.levels=5"),
        (["--shards", "/nowhere"], "no folder /nowhere"),
        (["--images", "0"], "must be above 0"),
        (["--epochs", "many"], "invalid float value"),
        (["--run", "FULL"], "is not empty and contains no run"),
        (
            ["--processes", "3"],
            "batch_size=4 does not divide among 3 processes; use one of [1, 2, 4]",
        ),
        (
            ["--tracker", "tensorbord"],
            "unknown tracker 'tensorbord'; valid, nearest first: tensorboard",
        ),
        (["--tracker", "comet_ml"], "tracker comet_ml is not installed"),
        (["--no-such-word"], "unrecognized arguments: --no-such-word"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], message: str
) -> None:
    from launch.train import main
    from shards.errors import run_command as run

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    argv = [str(argument) for argument in arguments(shards, tmp_path / "run")] + [
        w.replace("FULL", f"{tmp_path}/full") for w in wrong
    ]
    assert run("launch.train", main, argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_another_recipe_or_dataset_in_the_same_folder_is_refused(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    other = run_command("launch.train", arguments(shards, undisturbed, "critic_adam.lr=1e-3"))
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "contains a run of another recipe (critic_adam:" in other.stderr
    more = small_set(tmp_path / "more", size=32, count=26, splits=("train", "val"))
    other_data = run_command("launch.train", arguments(more, undisturbed))
    assert other_data.returncode == 2
    assert num_lines_after_start(other_data.stderr) == 1
    assert "was trained on dataset" in other_data.stderr


def test_dry_run_writes_nothing(shards: Path, tmp_path: Path) -> None:
    done = run_command("launch.train", [*arguments(shards, tmp_path / "run"), "--dry-run"])
    assert done.returncode == 0
    assert "11 training samples, 11 held out" in done.stdout
    assert "160 images, 40 steps, 14.55 epochs" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.distributed
def test_the_command_starts_its_own_processes(shards: Path, tmp_path: Path) -> None:
    argv = [*arguments(shards, tmp_path / "run", steps=2), "--processes", 2]
    done = run_command("launch.train", argv)
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "run")[0]["world"] == 2
    warning = "batch_size=4 on 2 processes: BatchNorm sees 2 images at a time instead of 4"
    assert done.stderr.count(warning) == 1
    assert done.stderr.count("was built with --fit crop, but the paper of nampouri_unet") == 1


@pytest.mark.distributed
def test_bfloat16_trains(shards: Path, tmp_path: Path) -> None:
    line = command("launch.train", arguments(shards, tmp_path / "run", steps=5), processes=2)
    line[3:3] = ["--mixed_precision", "bf16"]
    done = subprocess.run(
        line, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = read_metrics(tmp_path / "run")
    assert lines[0]["mixed_precision"] == "bf16"
    assert lines[1]["losses"]["l1"] < 1


@pytest.mark.distributed
def test_processes_that_would_train_alone_are_refused(shards: Path, tmp_path: Path) -> None:
    """`accelerate launch --cpu --num_processes 2` silently starts one process."""
    line = command("launch.train", arguments(shards, tmp_path / "run"))
    launch = [
        line[0],
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        *line[1:],
    ]
    done = subprocess.run(
        launch,
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "several processes were requested, but accelerate started one" in done.stderr


def test_step_seeds_are_pinned() -> None:
    """With other seeds, resumed old runs would draw other numbers."""
    assert step_seed(0, 0, 0) == 759_540_517_790_923_586
    assert len({step_seed(s, k, r) for s in range(3) for k in range(50) for r in range(4)}) == 600

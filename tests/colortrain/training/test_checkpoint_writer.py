"""Background writes: copies, one checkpoint at a time, and errors that are raised."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator

from colortrain.recipe import override
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import load_state, load_tensors, write_tensors
from colortrain.runs.layout import checkpoint_steps
from colortrain.runs.run_lock import RunLock
from colortrain.training import checkpoint_writer as writer_module
from colortrain.training.checkpoint_writer import CheckpointWriter, HostCopies
from colortrain.training.journal import Journal
from launch.train import main
from shards.errors import run_command
from tests.support.small_shard_set import small_set

THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=2",
    "critic.base_channels=2",
    "batch_size=4",
]
RECIPE = override(get_recipe("nampouri_unet"), THIN)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def arguments(shards: Path, run: Path, *changes: str) -> list[str]:
    intervals = ["images=32", "log_every=1", "checkpoint_every=2", "evaluate_every=4"]
    sets = [text for change in [*THIN, *intervals, *changes] for text in ("--set", change)]
    return [
        "--recipe",
        "nampouri_unet",
        "--shards",
        str(shards),
        "--run",
        str(run),
        "--tracker",
        "none",
        *sets,
    ]


def make_writer(run: Path) -> CheckpointWriter:
    return CheckpointWriter(run, RECIPE, Journal(run, Accelerator(cpu=True)))


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind]


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_tensors_are_written_as_safetensors_reads_them(dtype: torch.dtype) -> None:
    odd = {"b": torch.ones(3, dtype=torch.uint8), "a.é": torch.tensor(7), "none": torch.zeros(0, 2)}
    tensors = {**odd, "x": (torch.arange(6).reshape(2, 3) * 1.5).to(dtype)}
    stream = io.BytesIO()
    write_tensors(stream, tensors)
    loaded = safetensors.torch.load(stream.getvalue())
    assert set(loaded) == set(tensors)
    assert all(
        torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype
        for name, tensor in tensors.items()
    )
    assert (
        int.from_bytes(stream.getvalue()[:8], "little") % 8 == 0
    )  # so that every tensor is aligned


def test_the_loop_continues_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the write is blocked, the tensors change: the old values are written.

    The second save waits for the first write.
    """
    may_write, real = threading.Event(), writer_module.save_checkpoint

    def blocked(*args: Any) -> Path:
        assert may_write.wait(10)
        return real(*args)

    monkeypatch.setattr(writer_module, "save_checkpoint", blocked)
    weight = torch.ones(1000)
    with make_writer(tmp_path) as writer:
        writer.save(1, {"generator": {"weight": weight}}, {"images": 4}, started=0.0)
        weight += 1
        writer.poll()
        assert not checkpoint_steps(tmp_path)
        threading.Timer(0.2, may_write.set).start()
        writer.save(2, {"generator": {"weight": weight}}, {"images": 8}, started=0.0)
        assert checkpoint_steps(tmp_path)[0] == 1  # before the second write started
        weight += 1
    folders = [tmp_path / "checkpoints" / f"step-00000000{step}" for step in (1, 2)]
    assert [
        load_tensors(folder, "generator")["weight"].unique().tolist() for folder in folders
    ] == [
        [1.0],
        [2.0],
    ]


def test_copies_reuse_memory_unless_shapes_change() -> None:
    copies, tensor = HostCopies(), torch.arange(4.0)
    first = copies.copy({"part": {"x": tensor}})["part"]["x"]
    again = copies.copy({"part": {"x": tensor + 1, "y": tensor}})["part"]
    assert again["x"].data_ptr() == first.data_ptr()
    assert again["x"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert copies.copy({"part": {"x": tensor[:2]}})["part"]["x"].tolist() == [0.0, 1.0]


def test_a_full_disk_ends_the_run_with_one_line(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if "step-000000004" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert run_command("launch.train", main, arguments(shards, tmp_path / "run")) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith("colortrain train: error: No space left on device at ")
    assert "step-000000004" in errors[0]
    assert checkpoint_steps(tmp_path / "run") == [2]
    monkeypatch.undo()
    # the same command resumes when there is space again
    assert run_command("launch.train", main, arguments(shards, tmp_path / "run")) == 0
    assert checkpoint_steps(tmp_path / "run")[-1] == 8


def test_a_run_that_was_taken_over_saves_nothing(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = RunLock.acquire

    def lose(lock: RunLock) -> None:
        real(lock)
        lock.path.unlink()
        lock.path.write_text("process 1 on another machine")

    monkeypatch.setattr(RunLock, "acquire", lose)
    assert run_command("launch.train", main, arguments(shards, tmp_path / "run")) == 2
    assert "has been taken over by process 1 on another machine: " in capsys.readouterr().err
    assert checkpoint_steps(tmp_path / "run") == []


def test_every_checkpoint_is_logged_with_its_stall(shards: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    assert run_command("launch.train", main, arguments(shards, tmp_path / "run")) == 0
    elapsed = time.monotonic() - started
    logged = lines(tmp_path / "run", "checkpoint")
    assert [(line["step"], line["images"]) for line in logged] == [
        (2, 8),
        (4, 16),
        (6, 24),
        (8, 32),
    ]
    folder = tmp_path / "run" / "checkpoints" / "step-000000008"
    assert logged[-1]["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert all(line["stall"] > 0 and line["seconds"] > 0 for line in logged)
    assert sum(line["stall"] for line in logged) < elapsed
    assert sum(line["seconds"] for line in logged) < elapsed  # one write at a time
    assert load_state(folder)["images"] == 32

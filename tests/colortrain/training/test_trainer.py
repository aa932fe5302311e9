"""The trainer: the average, learning rates, steps in which no network is due."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from colortrain.metrics import evaluate
from colortrain.recipe import Recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.runs.history import read_journal
from colortrain.runs.layout import MANIFEST, checkpoint_folder, checkpoint_steps
from colortrain.training.preemption import handling_signals
from colortrain.training.train_metrics import WINDOW
from colortrain.training.trainer import Trainer
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def make_trainer(shards: Path, run: Path, *changes: str) -> Trainer:
    recipe: Recipe = override(scaled(get_recipe("nampouri_unet"), steps=6), changes)
    return Trainer(recipe, open_data(shards, recipe), run, Accelerator(cpu=True))


def test_the_average_of_half_life_one_batch_halves_the_distance(
    shards: Path, tmp_path: Path
) -> None:
    """Its tensors keep no graph."""
    trainer = make_trainer(shards, tmp_path / "run", "ema.half_life=4")
    assert trainer.ema is not None
    expected = {name: tensor.clone() for name, tensor in trainer.ema.named_parameters()}
    batches = trainer.loader.batches()
    for _ in range(3):
        trainer.take_step(next(batches))
        for name, tensor in trainer.generator.module.named_parameters():
            expected[name] = (expected[name] + tensor.detach()) / 2
    batches.close()
    for name, tensor in trainer.ema.named_parameters():
        torch.testing.assert_close(tensor, expected[name])
        assert tensor.is_leaf
        assert not tensor.requires_grad


def test_learning_rates_follow_the_schedule(shards: Path, tmp_path: Path) -> None:
    """Eight training images in batches of four: an epoch is two steps."""
    trainer = make_trainer(shards, tmp_path / "run", "learning_rate=[[0, 1], [1, 0.5], [2, 0]]")
    lrs = []
    batches = trainer.loader.batches()
    for _ in range(6):
        trainer.take_step(next(batches))
        lrs.append(
            [network.optimizer.param_groups[0]["lr"] for network in trainer.networks.values()]
        )
    batches.close()
    assert lrs == [[2e-4] * 2] * 2 + [[1e-4] * 2] * 2 + [[0.0] * 2] * 2


def test_steps_without_an_update_log_nothing(shards: Path, tmp_path: Path) -> None:
    """The critic is not trained yet, and the generator is due every fifth step."""
    trainer = make_trainer(
        shards, tmp_path / "run", "n_critic=5", "objective.critic_from=100", "log_every=1"
    )
    assert trainer.critic is not None
    before = {name: tensor.clone() for name, tensor in trainer.critic.module.state_dict().items()}
    trainer.train()
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [5]
    critic = dict(trainer.critic.module.named_parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in critic.items())


def logged(run: Path) -> list[dict[str, Any]]:
    """Return the values of each "train" line that do not depend on the time."""
    names = ("step", "losses", "gradient_norms", "skipped", "lr", "epoch")
    return [{name: line[name] for name in names} for line in read_journal(run, "train")]


def keep_until(run: Path, step: int) -> None:
    """Delete the checkpoints after a step: the run was killed before them."""
    for other in checkpoint_steps(run):
        if other > step:
            shutil.rmtree(checkpoint_folder(run, other))


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_resumed_run_logs_the_lines_of_an_uninterrupted_one(
    shards: Path, tmp_path: Path, step: int
) -> None:
    """Lines are written every five steps, checkpoints every two.

    The critic is updated in each step, the generator in every third one.
    """
    changes = ["images=44", "log_every=5", "checkpoint_every=2", "keep_checkpoints=9"]
    changes += ["n_critic=3", "evaluate_every=100"]
    run = tmp_path / "run"
    make_trainer(shards, run, *changes).train()
    expected = logged(run)
    assert [line["step"] for line in expected] == [5, 10, 11]
    keep_until(run, step)
    trainer = make_trainer(shards, run, *changes)
    assert trainer.train()
    assert trainer.start_step == step
    assert logged(run) == expected


@pytest.mark.parametrize(
    ("readings", "updates"),
    [
        (["n_critic=2"], (2, 4)),
        (["n_critic=2", "critic_batches=same"], (4, 8)),
        (["objective.critic_every=2"], (4, 2)),  # an epoch has two steps
    ],
)
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_one(
    shards: Path, tmp_path: Path, readings: list[str], updates: tuple[int, int]
) -> None:
    """With each order of the networks' updates; they are counted by Adam."""
    changes = [*readings, "images=16", "checkpoint_every=2", "keep_checkpoints=9"]
    changes += ["evaluate_every=100"]
    runs = [tmp_path / "whole", tmp_path / "resumed"]
    for run in runs:
        make_trainer(shards, run, *changes).train()
    keep_until(runs[1], 2)
    trainer = make_trainer(shards, runs[1], *changes)
    assert trainer.train()
    assert (trainer.start_step, trainer.images) == (2, 16)
    assert tensor_files(runs[1], 4) == tensor_files(runs[0], 4)
    counts = tuple(
        int(next(iter(network.optimizer.state.values()))["step"])
        for network in trainer.networks.values()
    )
    assert counts == updates


def test_a_checkpoint_without_a_window_is_resumed(shards: Path, tmp_path: Path) -> None:
    """Earlier versions did not save what was collected since the last line."""
    changes = ["images=20", "log_every=5", "checkpoint_every=2", "keep_checkpoints=9"]
    run = tmp_path / "run"
    make_trainer(shards, run, *changes).train()
    keep_until(run, 2)
    folder = checkpoint_folder(run, 2)
    (folder / f"{WINDOW}.safetensors").unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[f"{WINDOW}.safetensors"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    trainer = make_trainer(shards, run, *changes)
    assert trainer.train()
    assert (trainer.start_step, [line["step"] for line in logged(run)]) == (2, [5])
    assert not (checkpoint_folder(run, 5) / f"{WINDOW}.safetensors").exists()  # all is logged


VALIDATED = [
    "images=24",
    "log_every=3",
    "evaluate_every=2",
    "checkpoint_every=4",
    "keep_checkpoints=9",
    "keep_best=l1",
    "plateau.patience=1",
    "ema.half_life=8",
]


@pytest.fixture(scope="module")
def three_chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of which 40 images, three chunks of a validation, are held out."""
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=80, splits=("train", "val"))


@pytest.fixture(scope="module")
def uninterrupted(three_chunks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with validations after steps 2, 4 and 6."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert make_trainer(three_chunks, run, *VALIDATED).train()
    return run


def stop_in_validation(monkeypatch: pytest.MonkeyPatch, chunk: int) -> list[int]:
    """Send SIGTERM to this process as it scores a chunk; return the scored chunks.

    Chunks are counted over all validations, from 1.
    """
    scored: list[int] = []
    real = evaluate.metrics_on_device

    def metrics_on_device(*args: Any, **kwargs: Any) -> Any:
        scored.append(len(scored) + 1)
        if len(scored) == chunk:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluate, "metrics_on_device", metrics_on_device)
    return scored


def train(shards: Path, run: Path) -> bool:
    with handling_signals():
        return make_trainer(shards, run, *VALIDATED).train()


def scores(run: Path) -> list[tuple[int, Any]]:
    return [(line["step"], line["metrics"]) for line in read_journal(run, "validation")]


def tensor_files(run: Path, step: int) -> dict[str, bytes]:
    files = checkpoint_folder(run, step).glob("*.safetensors")
    return {path.name: path.read_bytes() for path in files}


def check_same_run(run: Path, other: Path) -> None:
    """Check that two runs logged the same and ended with the same bytes."""
    assert scores(run) == scores(other)
    assert logged(run) == logged(other)
    files = [path for path in (other / "checkpoints").rglob("*") if path.is_file()]
    assert len(files) > 2 * 8  # checkpoints of at least two steps, with eight files each
    for path in files:
        assert (run / path.relative_to(other)).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize(("chunk", "step"), [(1, 2), (5, 4), (8, 6)])
def test_a_stop_request_interrupts_a_validation_which_is_repeated(
    three_chunks: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    step: int,
) -> None:
    """Step 4 saves anyway, step 6 is the last; each validation has three chunks."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        scored = stop_in_validation(patch, chunk)
        assert not train(three_chunks, run)
    assert len(scored) == chunk  # no other chunk was scored
    assert scores(run) == scores(uninterrupted)[: step // 2 - 1]
    assert tensor_files(run, step)
    assert [line["step"] for line in read_journal(run, "stop")] == [step]
    assert train(three_chunks, run)
    assert [line["step"] for line in read_journal(run, "start")] == [0, step]
    check_same_run(run, uninterrupted)


def test_a_repeated_validation_may_be_interrupted_too(
    three_chunks: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another stop request, then by a kill after its scores were logged."""
    run = tmp_path / "run"
    for chunk in (5, 2):
        with monkeypatch.context() as patch:
            stop_in_validation(patch, chunk)
            assert not train(three_chunks, run)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", lambda trainer: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            train(three_chunks, run)
    assert len(scores(run)) == 2
    assert train(three_chunks, run)
    assert [line["step"] for line in read_journal(run, "start")] == [0, 4, 4, 4]
    check_same_run(run, uninterrupted)

"""Starting with another run's weights, and refused checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from colortrain.recipe import load_recipe, override
from colortrain.runs.checkpoint import load_generator, load_state, load_tensors, save_checkpoint
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from launch.train import main
from shards.errors import run_command
from tests.colortrain.training.test_checkpoint_writer import arguments, lines
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


@pytest.fixture(scope="module")
def old(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps with a moving average."""
    run = tmp_path_factory.mktemp("old") / "run"
    assert run_command("launch.train", main, arguments(shards, run, "ema.half_life=20")) == 0
    return run


@pytest.mark.parametrize("only", [(), ("--only", "generator")])
def test_a_run_starts_with_the_averaged_weights_of_another(
    shards: Path, old: Path, tmp_path: Path, only: tuple[str, ...]
) -> None:
    """Step 0 is a checkpoint with the networks of the old run and empty optimizers.

    With --only generator the critic starts with random weights.
    """
    run, plain = tmp_path / "run", tmp_path / "plain"
    changes = ["images=8", "keep_checkpoints=9", "generator_adam.lr=1e-5"]
    argv = arguments(shards, run, *changes)
    assert run_command("launch.train", main, [*argv, "--init-from", str(old), *only]) == 0
    assert checkpoint_steps(run) == [0, 2]
    start, source = checkpoint_folder(run, 0), checkpoint_folder(old, 8)
    assert (start / "generator.safetensors").read_bytes() == (
        source / "ema.safetensors"
    ).read_bytes()
    same = (start / "critic.safetensors").read_bytes() == (
        source / "critic.safetensors"
    ).read_bytes()
    assert same == (not only)
    assert not load_tensors(start, "generator_adam")
    metadata = {
        "run": str(old),
        "step": 8,
        "weights": {"generator": "ema", **({} if only else {"critic": "critic"})},
    }
    assert lines(run, "start")[0]["init_from"] == metadata
    assert load_state(checkpoint_folder(run, 2))["init_from"] == metadata
    assert run_command("launch.train", main, arguments(shards, plain, *changes)) == 0
    assert lines(plain, "train")[0]["losses"] != lines(run, "train")[0]["losses"]
    assert "init_from" not in lines(plain, "start")[0]


def test_the_weights_are_not_loaded_again_on_resume(
    shards: Path, old: Path, tmp_path: Path
) -> None:
    """The same command resumes byte for byte, with the other run deleted."""
    there = shutil.copytree(old, tmp_path / "old")
    init = ["--init-from", str(there)]
    assert (
        run_command("launch.train", main, [*arguments(shards, tmp_path / "uninterrupted"), *init])
        == 0
    )
    assert (
        run_command(
            "launch.train", main, [*arguments(shards, tmp_path / "run", "images=16"), *init]
        )
        == 0
    )
    shutil.rmtree(there)
    assert run_command("launch.train", main, [*arguments(shards, tmp_path / "run"), *init]) == 0
    for path in checkpoint_folder(tmp_path / "uninterrupted", 8).glob("*.safetensors"):
        assert (
            path.read_bytes() == (checkpoint_folder(tmp_path / "run", 8) / path.name).read_bytes()
        )
    assert [line["init_from"]["step"] for line in lines(tmp_path / "run", "start")] == [8, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("generator.base_channels=4", "the generator of recipe nampouri_unet has encoder.0."),
        ("critic.base_channels=4", "the critic of recipe nampouri_unet has "),
        ("generator.levels=4", "the generator of recipe nampouri_unet has "),
    ],
)
def test_networks_that_do_not_fit_are_one_line(
    shards: Path,
    old: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    message: str,
) -> None:
    argv = [*arguments(shards, tmp_path / "run", change), "--init-from", str(old)]
    assert run_command("launch.train", main, argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "use a recipe with the same networks" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_with_only_generator_the_critic_may_differ(shards: Path, old: Path, tmp_path: Path) -> None:
    argv = arguments(shards, tmp_path / "run", "critic.base_channels=4", "images=4")
    assert (
        run_command("launch.train", main, [*argv, "--init-from", str(old), "--only", "generator"])
        == 0
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--init-from", "/nowhere"], "/nowhere: no checkpoint (steps found: none)"),
        (["--only", "generator"], "--only requires --init-from RUN"),
    ],
)
def test_wrong_arguments_are_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert run_command("launch.train", main, [*arguments(shards, tmp_path / "run"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def another_recipe(run: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint by one of another recipe, as if copied."""
    recipe = override(load_recipe(run / "recipe.json"), ["flip=0.25"])
    shutil.rmtree(checkpoint_folder(run, 8))
    save_checkpoint(run, 8, {}, recipe, state)


def with_field(field: str, value: object) -> Callable[[Path, dict[str, Any]], None]:
    def change(run: Path, state: dict[str, Any]) -> None:
        recipe = load_recipe(run / "recipe.json")
        shutil.rmtree(checkpoint_folder(run, 8))
        save_checkpoint(run, 8, {}, recipe, {**state, field: value})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_field("format", 2), "has checkpoint format 2, but this version reads format 1"),
        (
            with_field("order", "philox-window16-0"),
            "uses sample order philox-window16-0, this version uses philox",
        ),
        (
            with_field("dataset_id", "feed"),
            "was trained on dataset feed, but the given shards are ",
        ),
        (another_recipe, "belongs to another recipe (flip: 0.25 -> 0.5)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_run_is_one_line(
    shards: Path,
    old: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path, dict[str, Any]], None],
    message: str,
) -> None:
    run = shutil.copytree(old, tmp_path / "run")
    change(run, load_state(checkpoint_folder(run, 8)))
    assert (
        run_command("launch.train", main, arguments(shards, run, "ema.half_life=20", "images=64"))
        == 2
    )
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_unknown_files_are_ignored(shards: Path, old: Path, tmp_path: Path) -> None:
    run = shutil.copytree(old, tmp_path / "run")
    (checkpoint_folder(run, 8) / "notes.txt").write_text("mine")
    (run / "checkpoints" / "step-backup").mkdir()
    (run / "checkpoints" / "README").write_text("mine")
    assert (
        run_command("launch.train", main, arguments(shards, run, "ema.half_life=20", "images=40"))
        == 0
    )
    assert lines(run, "start")[-1]["step"] == 8
    assert (run / "checkpoints" / "README").exists()
    assert all(
        torch.isfinite(tensor).all() for tensor in load_generator(run)[0].state_dict().values()
    )


def test_every_checkpoint_states_its_format(old: Path) -> None:
    assert json.loads((checkpoint_folder(old, 8) / "trainer.json").read_text())["format"] == 1

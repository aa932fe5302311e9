"""Recipes without a critic: checks, training, checkpoints, resuming, --init-from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from colortrain.recipe import load_recipe, override, save_recipe
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import load_tensors
from colortrain.runs.folder import open_data
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps, recipe_file
from launch import colorize, evaluate, export, train
from launch.recipes import losses_text, networks_text
from shards.errors import UserError, run_command
from tests.support.small_shard_set import photograph, small_set

THIN = ["generator.base_channels=2", "generator.levels=3", "batch_size=4", "flip=0.5"]
INTERVALS = ["log_every=1", "checkpoint_every=2", "evaluate_every=4", "keep_checkpoints=9"]
# the recipe as it was before recipes could leave out the critic
WITH_IDLE_CRITIC = [
    'critic={"type": "SameCriticConfig", "base_channels": 2, "inputs": 4}',
    "objective.critic_from=1e9",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def arguments(shards: Path, run: Path, *changes: str) -> list[str]:
    sets = [text for change in [*THIN, *INTERVALS, *changes] for text in ("--set", change)]
    recipe = ["--recipe", "nazeri_unet_l2", "--shards", str(shards)]
    return [*recipe, "--run", str(run), "--tracker", "none", *sets]


def run_train(*argv: str) -> int:
    return run_command("launch.train", train.main, list(argv))


def tensor_files(run: Path, step: int) -> dict[str, bytes]:
    paths = checkpoint_folder(run, step).glob("*.safetensors")
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps without a critic, with a moving average."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert run_train(*arguments(shards, folder, "images=32", "ema.half_life=20")) == 0
    return folder


@pytest.fixture(scope="module")
def old_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with a critic that is never trained."""
    folder = tmp_path_factory.mktemp("old") / "run"
    changes = ["images=32", "ema.half_life=20", *WITH_IDLE_CRITIC]
    assert run_train(*arguments(shards, folder, *changes)) == 0
    return folder


def test_checkpoints_and_metrics_have_no_critic(run: Path) -> None:
    files = {"generator.safetensors", "generator_adam.safetensors", "ema.safetensors"}
    for step in checkpoint_steps(run):
        assert set(tensor_files(run, step)) == files
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert len(trained) == 8
    assert all(set(line["gradient_norms"]) == {"generator"} for line in trained)
    assert all(set(line["losses"]) == {"generator", "l2"} for line in trained)


def test_weights_are_those_of_a_run_with_an_idle_critic(run: Path, old_run: Path) -> None:
    """The critic is built after the generator, and every step seeds its own draws."""
    new, old = tensor_files(run, 8), tensor_files(old_run, 8)
    assert set(old) - set(new) == {"critic.safetensors", "critic_adam.safetensors"}
    for name, content in new.items():
        assert content == old[name], name


def test_a_resumed_run_ends_with_the_same_bytes(shards: Path, run: Path, tmp_path: Path) -> None:
    for images in (16, 32):
        changes = [f"images={images}", "ema.half_life=20"]
        assert run_train(*arguments(shards, tmp_path / "run", *changes)) == 0
    assert tensor_files(tmp_path / "run", 8) == tensor_files(run, 8)


def test_an_old_run_with_a_critic_can_be_used_but_not_resumed(
    shards: Path, old_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, image = shutil.copytree(old_run, tmp_path / "run"), tmp_path / "cat.png"
    Image.fromarray(photograph("chelsea")[:40, :50]).save(image)
    source = ["--run", str(run)]
    assert evaluate.main([*source, "--shards", str(shards), "--limit", "4"]) == 0
    assert colorize.main([*source, "--out", str(tmp_path / "out"), str(image)]) == 0
    assert export.main([*source, "--out", str(tmp_path / "model")]) == 0
    capsys.readouterr()
    assert run_train(*arguments(shards, run, "images=64", "ema.half_life=20")) == 2
    error = capsys.readouterr().err
    assert "contains a run of another recipe (critic: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["critic=none"],
            "has no critic, but objective.adversarial_weight is not 0",
        ),
        (
            ["critic=none", "objective.adversarial_weight=[[0, 0], [5, 1]]"],
            "has no critic, but objective.adversarial_weight is not 0",
        ),
        (
            ["critic=none", "objective.adversarial_weight=0"],
            "has no critic, but objective.penalties is not empty",
        ),
        (
            [
                "critic=none",
                "objective.adversarial_weight=0",
                "objective.penalties=[]",
                "n_critic=5",
            ],
            "has no critic, but n_critic is 5, not 1",
        ),
    ],
)
def test_what_needs_a_critic_is_refused_without_one(changes: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        override(get_recipe("valentini_wgan"), changes).check()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_recipe_is_the_same_after_a_round_trip_through_json(tmp_path: Path) -> None:
    recipe = get_recipe("nazeri_unet_l2")
    save_recipe(recipe, recipe_file(tmp_path))
    assert json.loads(recipe_file(tmp_path).read_text())["critic"] is None
    assert load_recipe(recipe_file(tmp_path)) == recipe


def test_texts_say_that_there_is_no_critic(shards: Path, tmp_path: Path) -> None:
    recipe = override(get_recipe("nazeri_unet_l2"), THIN)
    text = train.describe(recipe, open_data(str(shards), recipe))
    assert " parameters, no critic\n" in text
    assert networks_text(recipe).endswith("\nno critic")
    assert losses_text(recipe.objective, has_critic=False) == "G: 1 x l2"


def with_critic(shards: Path, run: Path) -> list[str]:
    changes = [*WITH_IDLE_CRITIC, "objective.adversarial_weight=1", "objective.critic_from=0"]
    return arguments(shards, run, "images=8", *changes)


def test_a_new_critic_needs_only_generator(
    shards: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of a run without a critic start a run with one."""
    argv = [*with_critic(shards, tmp_path / "run"), "--init-from", str(run)]
    assert run_train(*argv) == 2
    error = capsys.readouterr().err
    assert f"--init-from: {checkpoint_folder(run, 8)} has no critic" in error
    assert "add --only generator" in error
    assert error.count("\n") == 1
    assert run_train(*argv, "--only", "generator") == 0
    start = checkpoint_folder(tmp_path / "run", 0)
    assert (start / "critic.safetensors").is_file()
    expected = load_tensors(checkpoint_folder(run, 8), "ema")
    for name, tensor in load_tensors(start, "generator").items():
        assert torch.equal(tensor, expected[name]), name


def test_the_critic_of_the_other_run_is_ignored(
    shards: Path, old_run: Path, tmp_path: Path
) -> None:
    """The weights of a run with a critic start a run without one."""
    argv = [*arguments(shards, tmp_path / "run", "images=8"), "--init-from", str(old_run)]
    assert run_train(*argv) == 0
    start = tmp_path / "run"
    assert set(tensor_files(start, 0)) == {"generator.safetensors", "generator_adam.safetensors"}
    lines = [json.loads(line) for line in (start / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["init_from"]["weights"] == {"generator": "ema"}

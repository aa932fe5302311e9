"""Checkpoints: atomic writes, exact round trips, and damage that is detected."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from colortrain.recipe import Recipe, load_recipe, override, save_recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.checkpoint import (
    is_intact,
    latest_checkpoint,
    load_generator,
    load_optimizer,
    load_state,
    load_tensors,
    load_weights,
    optimizer_tensors,
    save_checkpoint,
)
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from colortrain.runs.retention import prune
from shards.errors import UserError

RECIPE: Recipe = override(
    get_recipe("nampouri_unet"),
    ["size=32", "generator.levels=3", "generator.base_channels=2", "critic.base_channels=2"],
)


def save(run: Path, step: int, ema: bool = False) -> torch.nn.Module:
    torch.manual_seed(step)
    generator, critic = RECIPE.build_networks()
    assert critic is not None
    parts = {"generator": generator.state_dict(), "critic": critic.state_dict()}
    if ema:
        parts["ema"] = {name: tensor + 1 for name, tensor in generator.state_dict().items()}
    save_checkpoint(run, step, parts, RECIPE, {"images": 16 * step})
    return generator


def test_load_generator_restores_every_bit(tmp_path: Path) -> None:
    save(tmp_path, 1)
    generator = save(tmp_path, 2)
    loaded, recipe, step = load_generator(tmp_path)
    assert (recipe, step) == (RECIPE, 2)
    assert not loaded.training
    for name, tensor in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert load_generator(tmp_path, step=1)[2] == 1


def test_averaged_weights_are_the_default(tmp_path: Path) -> None:
    generator = save(tmp_path, 1, ema=True)
    weight = generator.state_dict()["head.weight"]
    assert torch.equal(load_generator(tmp_path)[0].state_dict()["head.weight"], weight + 1)
    assert torch.equal(load_generator(tmp_path, ema=False)[0].state_dict()["head.weight"], weight)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = checkpoint_folder(tmp_path, 2) / (
        "MANIFEST.json" if damage == "manifest" else "generator.safetensors"
    )
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(data[: len(data) // 2]))
    assert not is_intact(checkpoint_folder(tmp_path, 2))
    with pytest.warns(UserWarning, match="step-000000002 is damaged"):
        assert latest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 1)


@pytest.mark.parametrize(
    "name", ["../../other", "/etc/hostname", "a/../generator.safetensors", "pipe", "zero", ".", ""]
)
def test_a_manifest_that_names_anything_but_a_regular_file_in_its_folder_is_damaged(
    tmp_path: Path, name: str
) -> None:
    save(tmp_path, 1)
    folder = checkpoint_folder(tmp_path, 1)
    (tmp_path / "other").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    (folder / "a").mkdir()
    (folder / "zero").symlink_to("/dev/zero")
    files = json.loads((folder / "MANIFEST.json").read_text())
    path = folder / name
    files[name] = {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest(),
    }
    (folder / "MANIFEST.json").write_text(json.dumps(files))
    assert not is_intact(folder)


@pytest.mark.parametrize("name", ["MANIFEST.json", "recipe.json", "generator.safetensors"])
def test_a_pipe_instead_of_a_file_of_a_checkpoint_is_damage(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    folder = checkpoint_folder(tmp_path, 1)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert not is_intact(folder)
    if name.startswith("generator"):
        with pytest.raises(UserError, match=r"cannot read .*generator.safetensors"):
            load_tensors(folder, "generator")


@pytest.mark.parametrize("left", [[], ["generator.safetensors"], ["trainer.json"]])
def test_a_manifest_without_recipe_or_state_is_damaged(tmp_path: Path, left: list[str]) -> None:
    save(tmp_path, 1)
    path = checkpoint_folder(tmp_path, 1) / "MANIFEST.json"
    files = json.loads(path.read_text())
    path.write_text(json.dumps({name: files[name] for name in left}))
    assert not is_intact(checkpoint_folder(tmp_path, 1))


def test_saving_again_replaces_a_damaged_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (checkpoint_folder(tmp_path, 1) / "critic.safetensors").write_bytes(b"")
    save(tmp_path, 1)
    assert is_intact(checkpoint_folder(tmp_path, 1))


def test_saving_again_replaces_a_checkpoint_only_if_its_validation_was_due(
    tmp_path: Path,
) -> None:
    states = [{"images": 4, "validation_due": True}, {"images": 4}, {"images": 5}]
    seen = []
    for state in states:
        folder = save_checkpoint(tmp_path, 1, {}, RECIPE, state)
        assert is_intact(folder)
        seen.append(load_state(folder))
        assert list((tmp_path / "checkpoints").iterdir()) == [folder]
    assert [state["images"] for state in seen] == [4, 4, 4]
    assert ["validation_due" in state for state in seen] == [True, False, False]


def test_pruning_keeps_the_newest_and_deletes_temporary_folders(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / "step-000000011.tmp-99").mkdir()
    prune(tmp_path, 10, 2)
    assert checkpoint_steps(tmp_path) == [2, 10]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_pruning_never_prefers_damaged_checkpoints_to_the_one_just_saved(tmp_path: Path) -> None:
    for step in (5, 20, 30):
        save(tmp_path, step)
    for step in (20, 30):
        (checkpoint_folder(tmp_path, step) / "generator.safetensors").write_bytes(b"")
    save(tmp_path, 10)
    prune(tmp_path, 10, 1)
    assert latest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 10)
    assert checkpoint_steps(tmp_path) == [10]


@pytest.mark.filterwarnings("ignore:.* is damaged")
def test_a_run_with_only_damaged_checkpoints_raises_an_error(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (checkpoint_folder(tmp_path, 5) / "generator.safetensors").write_bytes(b"")
    with pytest.raises(
        UserError, match="all checkpoints are damaged; restore one, or delete that folder"
    ):
        latest_checkpoint(tmp_path)


def test_a_restored_adam_continues_exactly() -> None:
    torch.manual_seed(0)
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    first, second = (torch.optim.Adam(m.parameters(), lr=0.1) for m in (one, two))

    def train_step(module: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        module(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for seed in range(3):
        train_step(one, first, seed)
    two.load_state_dict(one.state_dict())
    load_optimizer(second, two, {k: v.clone() for k, v in optimizer_tensors(first, one).items()})
    for seed in range(3, 6):
        train_step(one, first, seed)
        train_step(two, second, seed)
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("step", [None, 7])
def test_a_missing_checkpoint_error_lists_the_existing_steps(
    tmp_path: Path, step: int | None
) -> None:
    if step:
        save(tmp_path, 3)
    with pytest.raises(UserError, match="steps found: 3" if step else "steps found: none"):
        load_generator(tmp_path, step=step)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_read_from_a_run_has_the_same_digest(name: str, tmp_path: Path) -> None:
    """Integers in code become floats such as 19.0 in the file."""
    save_recipe(RECIPES[name](), tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json").digest == RECIPES[name]().digest


def test_weights_of_another_architecture_raise_a_one_line_error(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(
        UserError, match=r"weights do not fit its recipe .* earlier version"
    ) as raised:
        load_weights(torch.nn.Linear(2, 2), checkpoint_folder(tmp_path, 1), "generator")
    assert "\n" not in str(raised.value)

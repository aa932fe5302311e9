"""What a run stands on: the photographs it is given, and the folder it may write into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from colortrain.recipe import Recipe, differences, load_recipe
from shards.errors import UserError
from shards.files import lock as lock_file
from shards.reader import Split


@dataclass(frozen=True)
class Data:
    """The photographs to learn from, and those held out (`val` or `test`; None where there is no such split)."""

    train: Split
    validation: Split | None


def open_data(shards: Path, recipe: Recipe) -> Data:
    """Open a shard set for a recipe; raises `UserError` if their sizes differ."""
    train = Split(shards, "train")
    if train.manifest.size != recipe.size:
        raise UserError(
            f"{shards} holds {train.manifest.size} px samples, recipe {recipe.name} needs {recipe.size} px: "
            f"--set size={train.manifest.size}, or build shards with --size {recipe.size}"
        )
    held_out = train.manifest.held_out()
    return Data(train, Split(shards, held_out) if held_out else None)


def lock(run: Path) -> IO[bytes]:
    """Hold RUN/.lock as long as the file returned stays open, which ends with the process however it ends.

    Raises `UserError` if another process holds it.
    """
    message = f"{run} is being trained by another process: wait for it, or choose another --run"
    return lock_file(run / ".lock", message)


def check_run_folder(run: Path, recipe: Recipe) -> None:
    """Raise `UserError` if `run` holds something else than an earlier start of the same recipe."""
    if run.is_file():
        raise UserError(f"{run} is a file: give a folder as --run")
    if (run / "recipe.json").is_file():
        earlier = load_recipe(run / "recipe.json")
        if earlier.digest != recipe.digest:
            changes = "; ".join(differences(earlier, recipe))
            raise UserError(f"{run} holds a run of another recipe ({changes}): choose another --run")
    elif run.is_dir() and any(not _ours(path) for path in run.iterdir()):
        raise UserError(f"{run} is not empty and holds no run: choose another --run")


def _ours(path: Path) -> bool:
    """Whether a start that was killed before it wrote recipe.json may have left this."""
    return path.name == ".lock" or path.name.endswith(".tmp")

"""Train one recipe at its published size for one round of both networks.

    python -m tests.support.full_size_recipe nampouri_unet

One process; prints seconds per step, memory and losses as JSON. Networks, image size
and losses are the recipe's, without downloads; the batch size is at most 2, since it
would otherwise take hours.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import torch

from colortrain.distributed.setup import make_accelerator
from colortrain.recipe import Recipe
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.scale_down import without_downloads
from colortrain.training.trainer import Trainer
from launch.processes import memory_mb
from tests.support.small_shard_set import small_set


def short(recipe: Recipe) -> Recipe:
    """Return `recipe` with a batch size of at most 2 and one round of steps."""
    batch_size, steps = min(recipe.batch_size, 2), max(recipe.n_critic, recipe.n_generator)
    pace = dataclasses.replace(
        recipe, batch_size=batch_size, images=batch_size * steps, log_every=1
    )
    return dataclasses.replace(pace, evaluate_every=steps, checkpoint_every=steps)


def measure(name: str, folder: Path) -> dict[str, object]:
    """Train for one round; return seconds per step, peak memory (MB) and losses."""
    recipe = short(without_downloads(get_recipe(name)))
    shards = small_set(folder / "shards", size=recipe.size, count=4, splits=("train",))
    Trainer(recipe, open_data(shards, recipe), folder / "run", make_accelerator()).train()
    lines = [
        json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [line for line in lines if line["kind"] == "train"]
    return {
        "recipe": name,
        "size": recipe.size,
        "batch_size": recipe.batch_size,
        "steps": len(steps),
        "seconds": sum(line["seconds"] for line in steps) / len(steps),
        "peak_mb": round(memory_mb("VmHWM")),
        "threads": torch.get_num_threads(),
        "losses": steps[-1]["losses"],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(sys.argv[1], Path(folder))))

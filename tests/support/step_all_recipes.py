r"""Run every recipe through the commands, in the processes of one launch.

    accelerate launch --config_file launch/accelerate/cpu.yaml \
        -m tests.support.step_all_recipes OUT SETS NAME...

SETS/<size> contains shards; the files of each recipe go to OUT/<name>. Starting two
processes for each recipe would take minutes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image

from colortrain.recipe import save_recipe
from colortrain.recipes import get_recipe
from launch import colorize, evaluate, train
from launch.processes import exit_process
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import photograph


def run_commands(folder: Path, sets: Path, name: str) -> None:
    """Train, score and colorize with the scaled-down recipe, through each `main()`."""
    recipe, rank = scaled(get_recipe(name)), os.environ["RANK"]
    file = folder / f"recipe-{rank}.json"
    save_recipe(recipe, file)
    arguments = ["--shards", str(sets / str(recipe.size)), "--run", str(folder / "run")]
    assert train.main([*arguments, "--recipe", str(file)]) == 0
    scores = ["--limit", "4", "--json", str(folder / "scores.json")]
    assert evaluate.main([*arguments, *scores]) == 0
    if rank == "0":
        image, run, out = (str(folder / each) for each in ("cat.png", "run", "out"))
        Image.fromarray(photograph("chelsea")[:90, :120]).save(image)
        assert colorize.main([image, "--run", run, "--out", out]) == 0


if __name__ == "__main__":
    out, sets, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    # Each command ends by destroying its process group. A launch can create a group
    # only once, so the commands share it.
    with patch("torch.distributed.destroy_process_group"):
        for each in names:
            run_commands(out / each, sets, each)
    torch.distributed.destroy_process_group()
    exit_process(0)  # a normal shutdown of gloo aborts sometimes

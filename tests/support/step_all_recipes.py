"""Every recipe through the doors, in the processes of one launch: starting two for each recipe would take minutes.

    accelerate launch --config_file launch/accelerate/cpu.yaml -m tests.support.step_all_recipes OUT SETS NAME...

SETS/<size> holds shards; what each recipe leaves goes to OUT/<name>.
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
from tests.support.small_shard_set import photograph
from tests.support.thin_recipes import thin


def through_the_doors(place: Path, sets: Path, name: str) -> None:
    """Train, score and colour, thin, as the command lines would."""
    recipe, rank = thin(get_recipe(name)), os.environ["RANK"]
    asked = place / f"asked-{rank}.json"
    save_recipe(recipe, asked)
    words = ["--shards", str(sets / str(recipe.size)), "--run", str(place / "run")]
    assert train.main([*words, "--recipe", str(asked)]) == 0
    assert evaluate.main([*words, "--limit", "4"]) == 0
    if rank == "0":
        Image.fromarray(photograph("chelsea")[:90, :120]).save(place / "cat.png")
        assert (
            colorize.main(
                [str(place / "cat.png"), "--run", str(place / "run"), "--out", str(place / "out")]
            )
            == 0
        )


if __name__ == "__main__":
    out, sets, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    # A door ends its process group with itself; one launch can make a group only once, so the doors share it.
    with patch("torch.distributed.destroy_process_group"):
        for each in names:
            through_the_doors(out / each, sets, each)
    torch.distributed.destroy_process_group()

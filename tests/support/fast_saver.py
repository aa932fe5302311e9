"""Save and delete a run's checkpoints without pause, until the process is killed.

    python -m tests.support.fast_saver RUN

Only the newest checkpoint is kept; it is also the best. Its weights tell its step: see
`fill_weights`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from torch import nn

from colortrain.recipe import Recipe, override, save_recipe
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import save_checkpoint
from colortrain.runs.layout import recipe_file, written_checkpoints
from colortrain.runs.retention import Best, prune, save_best
from tests.support.processes import ROOT
from tests.support.small_run import SETTINGS

RECIPE: Recipe = override(get_recipe("nampouri_unet"), SETTINGS)
_STEPS = 10_000  # weights are step / _STEPS


def fill_weights(network: nn.Module, step: int) -> None:
    """Give every weight and buffer the value that the checkpoint of a step has."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(step / _STEPS)


def has_weights_of(network: nn.Module, step: int) -> bool:
    """Return whether every tensor has the value that the checkpoint of a step has."""
    return all(
        torch.equal(tensor, torch.full_like(tensor, step / _STEPS))
        for tensor in network.state_dict().values()
    )


def save_forever(run: Path) -> None:
    """Save steps 1, 2, 3, ... of a run, and delete each one after the next is saved."""
    save_recipe(RECIPE, recipe_file(run))
    generator, critic = RECIPE.build_networks()
    assert critic is not None
    for step in count(1):
        fill_weights(generator, step)
        parts = {"generator": generator.state_dict(), "critic": critic.state_dict()}
        save_checkpoint(run, step, parts, RECIPE, {"images": step})
        save_best(run, Best("l1", step, 1 / step, 1 / step))
        prune(run, step, newest=1, best=step)


@contextmanager
def saving(run: Path) -> Iterator[None]:
    """Run the process during the block, which starts when there is a checkpoint."""
    with subprocess.Popen([sys.executable, "-m", __name__, str(run)], cwd=ROOT) as saver:
        try:
            until = time.monotonic() + 60
            while not written_checkpoints(run):
                assert saver.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            yield
            assert saver.poll() is None, "it must not have ended before the block"
        finally:
            saver.kill()


if __name__ == "__main__":
    save_forever(Path(sys.argv[1]))

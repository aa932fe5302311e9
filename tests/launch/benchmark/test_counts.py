"""`colortrain benchmark counts` on a GPU stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from colortrain.models.initialise import num_parameters
from colortrain.recipes import get_recipe
from launch.benchmark import main
from shards.errors import UserError
from tests.support.gpu_stand_in.processes import needs_stand_in, run_on_gpus

BATCH = 2


@needs_stand_in
def test_counts_of_a_recipe(tmp_path: Path) -> None:
    """Bytes are those of the images, weights, gradients, moments and averages."""
    out, name = tmp_path / "counts.json", "nazeri_gan"
    argv = ["counts", "--recipe", name, "--batch-size", BATCH, "--json", out]
    done = run_on_gpus("launch.benchmark", argv)
    assert done.returncode == 0, done.stderr
    assert f"| `{name}` | 32 | {BATCH} |" in done.stdout
    (counts,) = json.loads(out.read_text()).values()
    recipe = get_recipe(name)
    assert (counts["waits"], counts["to_host"]) == (0, 0)
    image = 3 * recipe.size**2  # stored bytes
    assert BATCH * image <= counts["to_device"] <= BATCH * (image + 100)
    with torch.device("meta"):
        generator, critic = recipe.build_networks()
    assert critic is not None
    parameters = 4 * (num_parameters(generator) + num_parameters(critic))
    averaged = num_parameters(generator) if recipe.ema else 0
    assert counts["resident"] == pytest.approx(4 * (parameters + averaged), rel=0.02)
    assert counts["operations"] > len(list(generator.parameters()))
    assert counts["activations"] > 4 * BATCH * recipe.size**2


def test_without_a_gpu_the_error_names_the_stand_in() -> None:
    with pytest.raises(UserError, match=r"needs a GPU; .* tests\.support\.gpu_stand_in"):
        main(["counts"])

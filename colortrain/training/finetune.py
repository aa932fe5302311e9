"""Start a run with the weights of another one: `colortrain train --init-from RUN`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import load_state, load_tensors, read_checkpoint, weights_part
from shards.errors import UserError

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class InitialWeights:
    """The weights of another run's checkpoint, with which a new run starts."""

    # In memory, because the other run may delete its checkpoint. A network without
    # weights here starts with random ones. Optimizers, the step count and schedules
    # start from zero.
    weights: Mapping[str, Mapping[str, Tensor]]  # network -> name -> tensor, on the CPU
    metadata: dict[str, Any]  # what the new run records as its origin

    def check(self, recipe: Recipe, folder: Path) -> None:
        """Raise UserError unless the weights fit the networks of `recipe`.

        `folder` is the checkpoint that the weights were read from.
        """
        with torch.device("meta"):
            networks = {name: recipe.network_configs[name].build() for name in self.weights}
        for name, network in networks.items():
            path = folder / f"{self.metadata['weights'][name]}.safetensors"
            expected = network.state_dict()
            _compare(f"{name} of recipe {recipe.name}", expected, self.weights[name], path)

    def load(self, generator: nn.Module, critic: nn.Module | None) -> None:
        """Load the weights into the networks of a recipe that passed `check`."""
        for name, network in (("generator", generator), ("critic", critic)):
            if network is not None and name in self.weights:
                network.load_state_dict(self.weights[name])


def initial_weights(run: Path, recipe: Recipe, only: str | None = None) -> InitialWeights:
    """Return the weights in the newest intact checkpoint of `run`, for use by `recipe`.

    With `only="generator"` the critic's weights are left out. Raises UserError if `run`
    has no intact checkpoint, or if its weights do not fit the networks of `recipe`.
    """
    names = ["generator"] if only == "generator" else list(recipe.network_configs)

    def read(folder: Path) -> tuple[InitialWeights, Path]:
        if "critic" in names and not (folder / "critic.safetensors").is_file():
            raise UserError(
                f"--init-from: {folder} has no critic, recipe {recipe.name} has one: "
                "add --only generator to start the critic with random weights"
            )
        files = {name: weights_part(folder) if name == "generator" else name for name in names}
        weights = {name: load_tensors(folder, file) for name, file in files.items()}
        metadata = {"run": str(run), "step": load_state(folder)["step"], "weights": files}
        return InitialWeights(weights, metadata), folder

    weights, folder = read_checkpoint(run, None, read)
    weights.check(recipe, folder)
    return weights


def _compare(
    network: str, expected: Mapping[str, Tensor], actual: Mapping[str, Tensor], path: Path
) -> None:
    """Raise UserError unless the tensors have the same names and shapes."""
    needed, found = _shapes(expected), _shapes(actual)
    for key in [*needed, *found]:
        if needed.get(key) != found.get(key):
            raise UserError(
                f"--init-from: the {network} has {_describe(key, needed)}, "
                f"{path} has {_describe(key, found)}: "
                "use a recipe with the same networks (see recipe.json there)"
            )


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _describe(key: str, shapes: Shapes) -> str:
    return f"{key} {list(shapes[key])}" if key in shapes else f"no {key}"

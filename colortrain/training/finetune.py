"""Start a run with the weights of another one: `colortrain train --init-from RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import find_checkpoint, load_state, load_tensors, weights_part
from shards.errors import UserError

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class InitialWeights:
    """The weights in another run's checkpoint folder, with which a new run starts.

    For the generator they are the averaged weights if the checkpoint has them. Only
    weights are used: optimizers, the step count and schedules start from zero. With
    `only_generator` the critic starts with random weights.
    """

    folder: Path
    only_generator: bool = False

    @property
    def sources(self) -> dict[str, str]:
        """The stem of the weights file of each network, by network name.

        For instance {"generator": "ema", "critic": "critic"}.
        """
        sources = {"generator": weights_part(self.folder)}
        return sources if self.only_generator else {**sources, "critic": "critic"}

    def metadata(self) -> dict[str, Any]:
        """Return where the weights come from, as JSON values for the new run.

        These are the other run's folder, its step, and the stem of each weights file.
        """
        run, step = self.folder.parent.parent, load_state(self.folder)["step"]
        return {"run": str(run), "step": step, "weights": self.sources}

    def check(self, recipe: Recipe) -> None:
        """Raise UserError unless the weights fit the networks of `recipe`.

        The message names the first tensor that does not fit. Only the headers of the
        weights files are read.
        """
        if not self.only_generator and not (self.folder / "critic.safetensors").is_file():
            raise UserError(
                f"--init-from: {self.folder} has no critic, recipe {recipe.name} has one: "
                "add --only generator to start the critic with random weights"
            )
        with torch.device("meta"):
            networks = {name: config.build() for name, config in recipe.network_configs.items()}
        for name, source in self.sources.items():
            state = networks[name].state_dict()
            expected = {key: tuple(tensor.shape) for key, tensor in state.items()}
            path = self.folder / f"{source}.safetensors"
            self._compare(f"{name} of recipe {recipe.name}", expected, path)

    def _compare(self, network: str, expected: Shapes, path: Path) -> None:
        with safe_open(path, "pt") as file:
            actual = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        for key in [*expected, *actual]:
            if expected.get(key) != actual.get(key):
                raise UserError(
                    f"--init-from: the {network} has {_describe(key, expected)}, "
                    f"{path} has {_describe(key, actual)}: "
                    "use a recipe with the same networks (see recipe.json there)"
                )

    def load(self, generator: nn.Module, critic: nn.Module | None) -> None:
        """Load the weights into the networks of a recipe that passed `check`.

        Raises UserError if a file cannot be read.
        """
        for name, network in (("generator", generator), ("critic", critic)):
            if network is not None and name in self.sources:
                network.load_state_dict(load_tensors(self.folder, self.sources[name]))


def _describe(key: str, shapes: Shapes) -> str:
    return f"{key} {list(shapes[key])}" if key in shapes else f"no {key}"


def initial_weights(run: Path, recipe: Recipe, only: str | None = None) -> InitialWeights:
    """Return the weights in the newest intact checkpoint of `run`, for use by `recipe`.

    With `only="generator"`, or if `recipe` has no critic, they are the generator's
    weights alone. Raises UserError if `run` has no intact checkpoint, or if its weights
    do not fit the networks of `recipe`.
    """
    only_generator = only == "generator" or recipe.critic is None
    weights = InitialWeights(find_checkpoint(run), only_generator)
    weights.check(recipe)
    return weights

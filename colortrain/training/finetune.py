"""Beginning a run with the weights of another one: `launch.train --init-from RUN [--only generator]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import find_checkpoint, load_part, load_state, weights_part
from shards.errors import UserError


@dataclass(frozen=True)
class InitialWeights:
    """The networks of a checkpoint of another run: its averaged generator where it has one, and its critic.

    Optimizers, clock and schedules begin anew.
    """

    folder: Path
    only_generator: bool = False

    @property
    def sources(self) -> dict[str, str]:
        """Which file each network takes its weights from."""
        sources = {"generator": weights_part(self.folder), "critic": "critic"}
        return {"generator": sources["generator"]} if self.only_generator else sources

    def facts(self) -> dict[str, Any]:
        """What the new run notes about its beginning."""
        run, step = self.folder.parent.parent, load_state(self.folder)["step"]
        return {"run": str(run), "step": step, "weights": self.sources}

    def check(self, recipe: Recipe) -> None:
        """Raise `UserError` naming the first tensor that does not fit the recipe's networks; reads headers alone."""
        with torch.device("meta"):
            networks = {name: config.build() for name, config in recipe.network_configs.items()}
        if not self.only_generator and not (self.folder / "critic.safetensors").is_file():
            raise UserError(
                f"--init-from: {self.folder} has no critic, recipe {recipe.name} has one: "
                "add --only generator to start the critic with random weights"
            )
        for name, source in self.sources.items():
            wanted = {
                key: tuple(tensor.shape) for key, tensor in networks[name].state_dict().items()
            }
            self._compare(
                f"{name} of recipe {recipe.name}", wanted, self.folder / f"{source}.safetensors"
            )

    def _compare(self, network: str, wanted: dict[str, tuple[int, ...]], path: Path) -> None:
        with safe_open(path, "pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        for key in [*wanted, *found]:
            if wanted.get(key) != found.get(key):
                raise UserError(
                    f"--init-from: the {network} has {_described(key, wanted)}, {path} has {_described(key, found)}: "
                    "use a recipe with the same networks (see recipe.json there)"
                )

    def load(self, generator: nn.Module, critic: nn.Module | None) -> None:
        """Load the weights into networks that fit according to `check`."""
        for name, network in (("generator", generator), ("critic", critic)):
            if network is not None and name in self.sources:
                network.load_state_dict(load_part(self.folder, self.sources[name]))


def _described(key: str, shapes: dict[str, tuple[int, ...]]) -> str:
    return f"{key} {list(shapes[key])}" if key in shapes else f"no {key}"


def initial_weights(run: Path, recipe: Recipe, only: str | None = None) -> InitialWeights:
    """The weights of a run's newest whole checkpoint; raises `UserError` unless they fit the recipe."""
    only_generator = only == "generator" or recipe.critic is None
    weights = InitialWeights(find_checkpoint(run), only_generator)
    weights.check(recipe)
    return weights

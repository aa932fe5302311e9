"""What a run says of itself every few steps: mean losses and gradient norms, images a second, time spent waiting."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.data.loader import Loader
from colortrain.data.tar_stream import StreamLoader
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.training.step import Losses
from shards.errors import UserError


class Meter:
    """Collects on the device; `read` is the only place where any of it leaves there."""

    def __init__(
        self,
        networks: Mapping[str, TrainableNetwork],
        loader: Loader | StreamLoader,
        accelerator: Accelerator,
        max_skipped: int,
    ) -> None:
        self.networks, self.loader, self.accelerator, self.max_skipped = (
            networks,
            loader,
            accelerator,
            max_skipped,
        )
        self.recent: dict[str, list[Tensor]] = defaultdict(list)
        self.began, self.waited, self.images = time.monotonic(), 0.0, 0

    def begin(self, images: int) -> None:
        """Start the clock at a run's `images`."""
        self.began, self.waited, self.images = time.monotonic(), self.loader.waited, images

    def pause(self, seconds: float) -> None:
        """Take out time that was not training."""
        self.began += seconds

    def add(self, losses: Losses) -> None:
        """Remember one step's losses."""
        for name, value in losses.items():
            self.recent[name].append(value)

    def read(self, images: int, where: str) -> dict[str, Any]:
        """Everything since the last reading, losses as means over all ranks; {} before any network had its turn.

        Raises `UserError`, which begins with `where`, when updates are left out without end.
        """
        losses = self._means()
        if not losses:
            return {}
        before, waited, seen = self.began, self.waited, self.images
        self.begin(images)
        seconds = max(self.began - before, 1e-9)
        return {
            "seconds": seconds,
            "images_per_second": (images - seen) / seconds,
            "data_wait": (self.waited - waited) / seconds,
            "losses": losses,
            "gradient_norms": {
                name: network.mean_norm() for name, network in self.networks.items()
            },
            "skipped": sum(self._skipped(name, where) for name in self.networks),
        }

    def _means(self) -> dict[str, float]:
        names = sorted(self.recent)
        if not names:
            return {}
        means = torch.stack([torch.stack(self.recent[name]).mean() for name in names])
        self.recent.clear()
        return dict(
            zip(names, self.accelerator.reduce(means, reduction="mean").tolist(), strict=True)
        )

    def _skipped(self, name: str, where: str) -> int:
        count, in_a_row = self.networks[name].skips.read()
        if in_a_row >= self.max_skipped:
            raise UserError(
                f"{where}: {in_a_row} updates of the {name} in a row had a loss or gradients that are not finite and "
                f"were left out: lower {name}_adam.lr, set {name}_adam.clip, or use bf16"
            )
        return count

    def substituted(self) -> int:
        """How many positions got another sample since this start, over all ranks; all ranks call it."""
        mine = torch.tensor(self.loader.substituted, device=self.accelerator.device)
        return int(self.accelerator.reduce(mine, reduction="sum").item())

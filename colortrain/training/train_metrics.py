"""Metrics of training steps: losses, gradient norms, throughput, waiting for data."""

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


class TrainMetrics:
    """Collects the metrics of training steps on the device.

    Only `compute` copies them to the host, so that other steps do not wait for the
    device.
    """

    def __init__(
        self,
        networks: Mapping[str, TrainableNetwork],
        loader: Loader | StreamLoader,
        accelerator: Accelerator,
        max_skipped: int,
    ) -> None:
        self.networks, self.loader = networks, loader
        self.accelerator, self.max_skipped = accelerator, max_skipped
        self.losses: dict[str, list[Tensor]] = defaultdict(list)
        self.started, self.waited, self.images = time.monotonic(), 0.0, 0

    def start(self, images: int) -> None:
        """Start measuring time now; `images` is the number of images seen so far."""
        self.started, self.waited, self.images = time.monotonic(), self.loader.waited, images

    def exclude(self, seconds: float) -> None:
        """Subtract `seconds` that were not spent on training from the measured time."""
        self.started += seconds

    def update(self, losses: Losses) -> None:
        """Add the losses of one step: scalars on the device, by name."""
        for name, value in losses.items():
            self.losses[name].append(value)

    def compute(self, images: int, prefix: str) -> dict[str, Any]:
        """Return the metrics of all steps since the last call.

        They are losses (means over steps and ranks), mean gradient norms, throughput,
        the fraction of time spent waiting for data, and the number of skipped updates.
        The result is {} if no network was updated in these steps. `images` is the
        number of images seen so far. All ranks must call it.

        Raises UserError, with a message that starts with `prefix`, if too many
        consecutive updates of a network were skipped.
        """
        losses = self._mean_losses()
        if not losses:
            return {}
        started, waited, seen = self.started, self.waited, self.images
        self.start(images)
        seconds = max(self.started - started, 1e-9)
        return {
            "seconds": seconds,
            "images_per_second": (images - seen) / seconds,
            "data_wait": (self.waited - waited) / seconds,
            "losses": losses,
            "gradient_norms": {
                name: network.mean_grad_norm() for name, network in self.networks.items()
            },
            "skipped": sum(self._num_skipped(name, prefix) for name in self.networks),
        }

    def _mean_losses(self) -> dict[str, float]:
        names = sorted(self.losses)
        if not names:
            return {}
        means = torch.stack([torch.stack(self.losses[name]).mean() for name in names])
        self.losses.clear()
        values = self.accelerator.reduce(means, reduction="mean").tolist()
        return dict(zip(names, values, strict=True))

    def _num_skipped(self, name: str, prefix: str) -> int:
        count, consecutive = self.networks[name].skipped_updates.read()
        if consecutive >= self.max_skipped:
            raise UserError(
                f"{prefix}: {consecutive} consecutive updates of the {name} were skipped because "
                f"the loss or the gradients were not finite: lower {name}_adam.lr, set "
                f"{name}_adam.clip, or use bf16"
            )
        return count

    def num_damaged(self) -> int:
        """Return how many damaged samples all ranks together have replaced or skipped.

        The count starts at 0 in each process. All ranks must call it.
        """
        local = torch.tensor(self.loader.num_damaged, device=self.accelerator.device)
        return int(self.accelerator.reduce(local, reduction="sum").item())

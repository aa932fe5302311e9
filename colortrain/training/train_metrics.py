"""Metrics of training steps: losses, gradient norms, throughput, waiting for data."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from colortrain.data.loader import Loader
from colortrain.data.tar_stream import StreamLoader
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.training.step import Losses
from shards.errors import UserError

WINDOW = "train_metrics"  # the file of a checkpoint that holds `TrainMetrics.window`


class DivergedError(UserError):
    """The updates of a network were skipped too often: training cannot continue."""


class TrainMetrics:
    """Collects the metrics of training steps on the device."""

    def __init__(
        self,
        networks: Mapping[str, TrainableNetwork],
        loader: Loader | StreamLoader,
        accelerator: Accelerator,
        max_skipped: int,
    ) -> None:
        self.networks, self.loader = networks, loader
        self.accelerator, self.max_skipped = accelerator, max_skipped
        # only `compute` waits for the device
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

        `images` is the number of images seen so far. The result is {} if no network was
        updated. All ranks must call it. Raises DivergedError, with a message that
        starts with `prefix`, if too many consecutive updates of a network were skipped.
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

    def window(self) -> dict[str, Tensor]:
        """Return what was collected since the last `compute`, for a checkpoint.

        The tensors are losses (ranks, steps), gradient norms (updates) and counts of
        skipped updates. All ranks must call it.
        """
        # a run that resumes with these logs the values of an uninterrupted one
        tensors = {
            f"losses.{name}": self.accelerator.gather(torch.stack(self.losses[name])[None])
            for name in sorted(self.losses)
        }
        for name, network in self.networks.items():
            if network.grad_norms:
                tensors[f"grad_norms.{name}"] = torch.stack(network.grad_norms)
            if network.skipped_updates.counts.any():
                tensors[f"skipped.{name}"] = network.skipped_updates.counts
        return tensors

    def load_window(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors that `window` returned."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for name, values in self._with_prefix(tensors, "losses."):
            # if the number of ranks has changed, each of them gets the mean losses
            own = values[rank] if len(values) == world else values.mean(0)
            self.losses[name] = list(own.unbind())
        for name, values in self._with_prefix(tensors, "grad_norms."):
            self.networks[name].grad_norms = list(values.unbind())
        for name, values in self._with_prefix(tensors, "skipped."):
            self.networks[name].skipped_updates.counts = values

    def _with_prefix(
        self, tensors: Mapping[str, Tensor], prefix: str
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors whose names start with a prefix, on this rank's device."""
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                yield name.removeprefix(prefix), tensor.to(self.accelerator.device)

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
            raise DivergedError(
                f"{prefix}: {consecutive} consecutive updates of the {name} were skipped because "
                f"the loss or the gradients were not finite: lower {name}_adam.lr, set "
                f"{name}_adam.clip, or use bf16"
            )
        return count

    def num_damaged(self) -> int:
        """Return how many damaged samples all ranks together have replaced or skipped.

        All ranks must call it.
        """
        local = torch.tensor(self.loader.num_damaged, device=self.accelerator.device)
        return int(self.accelerator.reduce(local, reduction="sum").item())

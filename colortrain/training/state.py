"""The state of a run between two steps: save it, load it, compare it across ranks."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from colortrain.distributed.from_rank_0 import copy_from_rank_0
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.runs.checkpoint import load_tensors, load_weights
from colortrain.training.plateau import ReduceOnPlateau
from colortrain.training.preemption import gather_bn_stats, restore_bn_stats
from shards.errors import UserError

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ODD = 0x1E3779B97F4A7C15  # a multiplier that spreads every bit over the higher ones


class TrainState:
    """Everything that a checkpoint saves about the networks of a run."""

    def __init__(
        self,
        networks: Mapping[str, TrainableNetwork],
        ema: nn.Module | None,
        plateau: ReduceOnPlateau,
        accelerator: Accelerator,
    ) -> None:
        # `ema` is the moving average of the generator's weights
        self.networks, self.ema = networks, ema
        self.plateau, self.accelerator = plateau, accelerator

    def modules(self) -> dict[str, nn.Module]:
        """Return the unwrapped modules that exist: "generator", "critic" and "ema"."""
        modules = {name: network.module for name, network in self.networks.items()}
        return modules if self.ema is None else {**modules, "ema": self.ema}

    def tensor_files(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of a checkpoint: file stem -> tensor name -> tensor.

        The tensors are not copied. All ranks must call it.
        """
        files: dict[str, dict[str, Tensor]] = {
            name: module.state_dict() for name, module in self.modules().items()
        }
        for name, network in self.networks.items():
            files[f"{name}_adam"] = network.optimizer_tensors()
        return files

    def json_state(self) -> dict[str, Any]:
        """Return the part of the training state that is stored in trainer.json."""
        scalers = {name: scaler.state_dict() for name, scaler in self._scalers().items()}
        return {"scalers": scalers, "plateau": self.plateau.state()}

    def load(self, folder: Path, json_state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint's folder.

        `json_state` is the content of the folder's trainer.json. Raises UserError if
        the weights do not fit the networks.
        """
        for name, module in self.modules().items():
            load_weights(module, folder, name)
            self._load_bn_stats(folder / f"{name}_ranks.safetensors", module)
        for name, network in self.networks.items():
            network.load_optimizer(load_tensors(folder, f"{name}_adam"))
        for name, scaler in self._scalers().items():
            if name in json_state.get("scalers", {}):
                scaler.load_state_dict(json_state["scalers"][name])
        if "plateau" in json_state:
            self.plateau.load(json_state["plateau"])

    def _scalers(self) -> dict[str, torch.amp.GradScaler]:
        """Return the fp16 loss scalers by network name; {} in other precisions."""
        return {
            name: network.scaler
            for name, network in self.networks.items()
            if network.scaler is not None
        }

    def _load_bn_stats(self, path: Path, module: nn.Module) -> None:
        """Load this rank's own BatchNorm running statistics if the file exists."""
        # A checkpoint has this file only if it was saved because a run stopped between
        # two scheduled checkpoints.
        per_rank = load_tensors(path.parent, path.stem) if path.is_file() else {}
        # otherwise another number of processes wrote it
        if any(len(buffer) == self.accelerator.num_processes for buffer in per_rank.values()):
            restore_bn_stats(module, per_rank, self.accelerator.process_index)

    def bn_stats_files(self) -> dict[str, dict[str, Tensor]]:
        """Return the BatchNorm running statistics of all ranks as checkpoint files.

        The result maps file stem -> buffer name -> tensor (world size, ...). All ranks
        must call it.
        """
        if self.accelerator.num_processes == 1:
            return {}
        files = {
            f"{name}_ranks": gather_bn_stats(module) for name, module in self.modules().items()
        }
        return {name: buffers for name, buffers in files.items() if buffers}

    def average_bn_stats(self) -> None:
        """Replace BatchNorm's running statistics by their mean over all ranks.

        All ranks must call it.
        """
        if self.accelerator.num_processes == 1:
            return
        # all ranks then evaluate and save the same network
        buffers = [buffer for module in self.modules().values() for buffer in module.buffers()]
        for buffer in (buffer for buffer in buffers if buffer.is_floating_point()):
            buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def resync(self) -> float:
        """Copy the networks, the average and the optimizers of rank 0 to all ranks.

        Returns the largest difference on any rank, relative to the largest magnitude in
        the tensor. All ranks must call it, after `average_bn_stats`.
        """
        if self.accelerator.num_processes == 1:
            return 0.0
        tensors = [tensor for _, tensor in _named_tensors(self.modules())]
        for network in self.networks.values():
            tensors += network.local_optimizer_tensors()
        difference = torch.tensor(copy_from_rank_0(tensors), device=self.accelerator.device)
        torch.distributed.all_reduce(difference, torch.distributed.ReduceOp.MAX)
        return float(difference)

    def check_ranks_agree(self, step: int) -> None:
        """Raise UserError, on all ranks, unless all ranks have bit-identical networks.

        All ranks must call it, after `average_bn_stats`.
        """
        if self.accelerator.num_processes == 1:
            return
        named = dict(_named_tensors(self.modules()))
        prints = torch.stack([fingerprint(tensor) for tensor in named.values()])
        per_rank = self.accelerator.gather(prints[None])
        assert isinstance(per_rank, Tensor)
        if not bool((per_rank == per_rank[0]).all()):
            hosts = gather_object([describe_device(self.accelerator.device)])
            raise UserError(describe_difference(per_rank.tolist(), list(named), hosts, step))


@torch.no_grad()
def update_ema(ema: nn.Module, module: nn.Module, decay: float) -> None:
    """Update the moving average of a network's weights, in place.

    Each parameter of `ema` becomes decay * ema + (1 - decay) * module.
    """
    # without autograd, because otherwise the graph would grow with every step
    torch._foreach_lerp_(list(ema.parameters()), list(module.parameters()), 1 - decay)
    if targets := list(ema.buffers()):
        torch._foreach_copy_(targets, list(module.buffers()))


def _named_tensors(modules: dict[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in modules.items():
        yield from ((f"{prefix}.{name}", tensor) for name, tensor in module.state_dict().items())


@torch.no_grad()
def fingerprint(tensor: Tensor) -> Tensor:
    """Return a hash of all bits of a tensor: a scalar int64 on the tensor's device."""
    flat = tensor.detach().contiguous().view(-1)
    if tensor.device.type == "cpu":
        # the fastest hash on CPUs
        return torch.tensor(zlib.crc32(flat.view(torch.uint8).numpy().data))
    return hashed_sum(flat.view(_INTEGERS[tensor.element_size()]))


def hashed_sum(bits: Tensor) -> Tensor:
    """Return the sum of the hashes of an integer tensor's elements, a scalar int64."""
    # two changes of elements that would cancel in a plain sum do not cancel in this one
    bits = bits.long() * _ODD
    return (bits ^ (bits >> 31)).sum()


def describe_device(device: torch.device) -> str:
    """Return the name of this host, with the model of its GPU if `device` is one."""
    host = socket.gethostname()
    return host if device.type == "cpu" else f"{host} ({torch.cuda.get_device_name(device)})"


def describe_difference(
    prints: Sequence[Sequence[int]], names: Sequence[str], hosts: Sequence[str], step: int
) -> str:
    """Return an error message that says on which ranks the tensors differ.

    prints: one list per rank, with the fingerprint of each tensor. names: the tensors'
    names. hosts: the ranks' hosts, from `describe_device`.
    """
    rows = [tuple(row) for row in prints]
    most_common = max(rows, key=rows.count)  # in a tie, the lowest rank's
    differing = [rank for rank, row in enumerate(rows) if row != most_common]
    first = next(name for index, name in enumerate(names) if len({row[index] for row in rows}) > 1)
    ranks = ", ".join(f"{rank} on {hosts[rank]}" for rank in differing)
    return (
        f"step {step}: the tensors of rank {ranks} (of {len(rows)} ranks) differ from those of the "
        f"others, starting with {first}; nothing was saved: check that machine, then run the same "
        "command again to resume from the last checkpoint. GPUs of different models, and different "
        "versions of drivers or libraries, round differently: if ranks have such, add --resync, "
        "which copies the tensors of rank 0 to all ranks at each save"
    )

"""What a run carries from one step to the next, as tensors by name and back; and the proof that all ranks carry it."""

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

from colortrain.distributed.trainable import TrainableNetwork
from colortrain.runs.checkpoint import load_part, load_weights
from colortrain.training.plateau import PlateauWatch
from colortrain.training.preemption import gather_rank_buffers, restore_rank_buffers
from shards.errors import UserError

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ODD = 0x1E3779B97F4A7C15  # spreads every bit of a value over the upper ones


class State:
    """Both networks with their optimizers, the average, and what follows the scores."""

    def __init__(
        self,
        networks: Mapping[str, TrainableNetwork],
        average: nn.Module | None,
        plateau: PlateauWatch,
        accelerator: Accelerator,
    ) -> None:
        self.networks, self.average = networks, average
        self.plateau, self.accelerator = plateau, accelerator

    def modules(self) -> dict[str, nn.Module]:
        """The networks, and the average where there is one."""
        modules = {name: network.module for name, network in self.networks.items()}
        return modules if self.average is None else {**modules, "ema": self.average}

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint by file and name: the run's own, not copies; all ranks call it."""
        parts: dict[str, dict[str, Tensor]] = {
            name: module.state_dict() for name, module in self.modules().items()
        }
        for name, network in self.networks.items():
            parts[f"{name}_adam"] = network.adam_tensors()
        return parts

    def plain(self) -> dict[str, Any]:
        """What of it JSON can hold."""
        scalers = {name: scaler.state_dict() for name, scaler in self._scalers().items()}
        return {"scalers": scalers, "plateau": self.plateau.state()}

    def load(self, folder: Path, plain: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, module in self.modules().items():
            load_weights(module, folder, name)
            self._load_own_buffers(folder / f"{name}_ranks.safetensors", module)
        for name, network in self.networks.items():
            network.load_adam(load_part(folder, f"{name}_adam"))
        for name, scaler in self._scalers().items():
            if name in plain.get("scalers", {}):
                scaler.load_state_dict(plain["scalers"][name])
        self.plateau.load(plain["plateau"])

    def _scalers(self) -> dict[str, torch.amp.GradScaler]:
        """What losses are multiplied by under fp16, network by network."""
        return {
            name: network.scaler
            for name, network in self.networks.items()
            if network.scaler is not None
        }

    def _load_own_buffers(self, path: Path, module: nn.Module) -> None:
        """Running statistics of this rank, from a checkpoint between two of the recipe's and as many processes."""
        of_ranks = load_part(path.parent, path.stem) if path.is_file() else {}
        if any(len(buffer) == self.accelerator.num_processes for buffer in of_ranks.values()):
            restore_rank_buffers(module, of_ranks, self.accelerator.process_index)

    def own_buffers(self) -> dict[str, dict[str, Tensor]]:
        """Every rank's running statistics, as files of a checkpoint; all ranks call it."""
        if self.accelerator.num_processes == 1:
            return {}
        found = {
            f"{name}_ranks": gather_rank_buffers(module) for name, module in self.modules().items()
        }
        return {name: buffers for name, buffers in found.items() if buffers}

    def agree_on_buffers(self) -> None:
        """BatchNorm's running statistics become their mean over ranks: all ranks score, and save, the same network."""
        if self.accelerator.num_processes == 1:
            return
        buffers = [buffer for module in self.modules().values() for buffer in module.buffers()]
        for buffer in (buffer for buffer in buffers if buffer.is_floating_point()):
            buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def check_ranks_agree(self, step: int) -> None:
        """Raise `UserError` on all ranks unless both networks and the average are the same on each, bit for bit.

        Buffers must have been agreed on.
        """
        if self.accelerator.num_processes == 1:
            return
        named = dict(_tensors(self.modules()))
        prints = torch.stack([fingerprint(tensor) for tensor in named.values()])
        of_ranks = self.accelerator.gather(prints[None])
        assert isinstance(of_ranks, Tensor)
        if not bool((of_ranks == of_ranks[0]).all()):
            raise UserError(
                disagreement(
                    of_ranks.tolist(), list(named), gather_object([socket.gethostname()]), step
                )
            )


def agree_on_start(step: int, run: Path) -> None:
    """Raise `UserError` if ranks would begin at different steps: a run folder that is not shared, say."""
    steps = gather_object([step])
    if len(set(steps)) > 1:
        raise UserError(
            f"{run}: processes found different checkpoints, of steps {sorted(set(steps))}; --run must be a "
            "folder that all machines share"
        )


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, keep: float) -> None:
    """Move the average towards the module; outside autograd, or every step would hang on to the one before."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - keep)
    for mine, its in zip(average.buffers(), module.buffers(), strict=True):
        mine.copy_(its)


def _tensors(modules: dict[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    for part, module in modules.items():
        yield from ((f"{part}.{name}", tensor) for name, tensor in module.state_dict().items())


@torch.no_grad()
def fingerprint(tensor: Tensor) -> Tensor:
    """One int64 that any changed bit changes, on the tensor's device: a CRC on a CPU, where nothing is faster."""
    flat = tensor.detach().contiguous().view(-1)
    if tensor.device.type == "cpu":
        return torch.tensor(zlib.crc32(flat.view(torch.uint8).numpy().data))
    return scrambled_sum(flat.view(_INTEGERS[tensor.element_size()]))


def scrambled_sum(bits: Tensor) -> Tensor:
    """The sum of scrambled integers: changes that cancel in a plain sum do not cancel here."""
    bits = bits.long() * _ODD
    return (bits ^ (bits >> 31)).sum()


def disagreement(
    prints: Sequence[Sequence[int]], names: Sequence[str], hosts: Sequence[str], step: int
) -> str:
    """The line naming the ranks whose fingerprints are not those of most, and the first tensor that differs."""
    rows = [tuple(row) for row in prints]
    usual = max(rows, key=rows.count)  # of equally many, that of the lowest rank
    odd = [rank for rank, row in enumerate(rows) if row != usual]
    first = next(name for index, name in enumerate(names) if len({row[index] for row in rows}) > 1)
    ranks = ", ".join(f"{rank} on {hosts[rank]}" for rank in odd)
    return (
        f"step {step}: rank {ranks} of {len(rows)} no longer holds what the others hold, from {first} on: "
        "nothing was saved; check that machine, then run the same command again (it goes on from the last checkpoint)"
    )

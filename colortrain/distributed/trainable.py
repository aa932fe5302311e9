"""A network in training: its module, wrapped for several processes, its optimizer, and updates that may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.muon import Muon
from colortrain.models.batch_invariant import mixes_images
from colortrain.recipe import Adam
from colortrain.runs.checkpoint import Tensors, adam_tensors, load_adam


class Skips:
    """Counts updates that were left out, on the device: reading the counts is the only thing that waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(
            3, device=device
        )  # since the last reading, in a row up to now, most in a row

    def see(self, failed: Tensor) -> None:
        """Count one update; `failed` is 1 or 0."""
        since, row, most = self.counts.unbind()
        row = (row + 1) * failed
        self.counts = torch.stack([since + failed, row, torch.maximum(most, row)])

    def read(self) -> tuple[int, int]:
        """How many were left out since the last reading, and the most in a row that ended since then."""
        since, row, most = map(int, self.counts.tolist())
        self.counts = torch.tensor([0.0, row, row], device=self.counts.device)
        return since, most


class TrainableNetwork:
    """A module with its optimizer, wrapped for data-parallel training.

    Calling it goes through the wrapper (gradients are averaged over ranks); `.module` is the bare network,
    `.forward_fp32` its forward without autocast. An update takes one backward pass for each of `compute.accumulate` parts.
    """

    settles = True  # see `settle_buckets`

    def __init__(
        self,
        module: nn.Module,
        adam: Adam,
        accelerator: Accelerator,
        compute: ComputeConfig | None = None,
    ) -> None:
        self.adam, self.accelerator, self.compute = adam, accelerator, compute or ComputeConfig()
        self.module = module.to(accelerator.device)
        self.fused = self.compute.fused_adam or accelerator.device.type == "cuda"
        self.wrapped, self.optimizer = self._wrap(module, self._make_optimizer(module))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        # accelerate replaces forward on the instance by one that autocasts; the class still has the exact one
        self.forward_fp32: Callable[..., Tensor] = type(module).forward.__get__(module)
        # one of its own: what overflows in one network is no reason to scale the other's loss
        self.scaler = (
            torch.amp.GradScaler(accelerator.device.type)
            if accelerator.mixed_precision == "fp16"
            else None
        )
        self.skips = Skips(accelerator.device)
        # gradients that were stepped on go only when the next ones come, into the same memory: freed before the next
        # forward pass they cost a CPU 6,000 page faults a step, 8 % of its time
        self.used = False
        self.norms: list[Tensor] = []  # of the gradients of each update since `mean_norm` was asked
        self.mixes_pictures = mixes_images(self.module)

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        adam = self.adam
        if adam.muon:
            return Muon(module, adam, fused=self.fused)
        return torch.optim.Adam(
            module.parameters(),
            lr=adam.lr,
            betas=adam.betas,
            eps=adam.eps,
            fused=self.fused or None,
        )

    def _wrap(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        return self.accelerator.prepare(module), optimizer

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.wrapped(*inputs)

    def sync_on_last(self, last: bool) -> AbstractContextManager[None]:
        """For one part's forward and backward passes: ranks average their gradients in the last alone."""
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor) -> None:
        """Add one part's gradients; a loss that is not finite spoils them all, and by averaging those of all ranks."""
        if self.used:
            self.optimizer.zero_grad()
            self.used = False
        loss = loss / self.compute.accumulate
        loss = loss * (1 + 0 * loss.detach())
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self) -> None:
        """One optimizer step, unless a gradient is not finite: then ranks leave it out together, and count it."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = self._norm()
        self.norms.append(norm.detach())
        failed = 1 - norm.isfinite().float()
        if self.fused:  # decides on the device
            self.optimizer.found_inf = failed
            self.optimizer.step()
        elif not failed.item():
            self.optimizer.step()
        self.skips.see(failed)
        self.used = True
        if self.scaler is not None:
            self.scaler.update()

    def _norm(self) -> Tensor:
        """The norm of all gradients together, which are clipped to the norm the recipe allows."""
        clip = self.adam.clip
        return (
            nn.utils.clip_grad_norm_(self.module.parameters(), clip) if clip else self._raw_norm()
        )

    def _raw_norm(self) -> Tensor:
        gradients = [
            parameter.grad for parameter in self.module.parameters() if parameter.grad is not None
        ]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def mean_norm(self) -> float | None:
        """The mean norm of the gradients, before clipping, of the updates since the last call; None without any."""
        norms, self.norms = self.norms, []
        return float(torch.stack(norms).mean()) if norms else None

    def adam_tensors(self) -> dict[str, Tensor]:
        """Adam's state by parameter name; all ranks call it, for where each holds a share of it."""
        return adam_tensors(self.optimizer, self.module)

    def load_adam(self, tensors: Tensors) -> None:
        """Put back what `adam_tensors` gave."""
        load_adam(self.optimizer, self.module, tensors)

    def set_rate(self, factor: float) -> None:
        """Learning rates = the recipe's times `factor`."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The bare module whose parameters take no gradient, so that the other network's step leaves none behind."""
        self.module.requires_grad_(False)
        try:
            yield self.module
        finally:
            self.module.requires_grad_(True)


@torch.no_grad()
def settle_buckets(network: TrainableNetwork, *inputs: Tensor) -> None:
    """One pass without consequences, before the first step of a process, so that a resumed run adds up as before.

    DDP lays its gradient buckets out anew after its first backward pass, and among more than two ranks the order of a
    sum depends on where in a bucket it stands.
    """
    if not network.settles:
        return
    part = len(inputs[0]) // network.compute.accumulate
    before = [buffer.clone() for buffer in network.module.buffers()]
    with torch.enable_grad():
        (network(*(tensor[:part] for tensor in inputs)).sum() * 0).backward()
    network.optimizer.zero_grad()
    for buffer, old in zip(network.module.buffers(), before, strict=True):
        buffer.copy_(old)

"""A network in training, with DDP wrapper, optimizer and a count of skipped updates."""

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
from colortrain.runs.checkpoint import Tensors, load_optimizer, optimizer_tensors


class SkippedUpdates:
    """Counts skipped optimizer updates, in a tensor on the device."""

    def __init__(self, device: torch.device) -> None:
        # since the last reading; consecutive ones up to now; longest series of
        # consecutive ones
        self.counts = torch.zeros(3, device=device)

    def record(self, failed: Tensor) -> None:
        """Count one update; `failed` is a scalar: 1 if it was skipped, 0 if not."""
        total, row, most = self.counts.unbind()
        row = (row + 1) * failed
        self.counts = torch.stack([total + failed, row, torch.maximum(most, row)])

    def read(self) -> tuple[int, int]:
        """Return the number of skips since the last call, and the longest series."""
        # Only this waits for the device. A series that had begun before the last call,
        # and continued after it, is counted at its full length.
        total, row, most = map(int, self.counts.tolist())
        self.counts = torch.tensor([0.0, row, row], device=self.counts.device)
        return total, most


class TrainableNetwork:
    """A network with its optimizer, wrapped for data-parallel training.

    Calling the object calls the DDP wrapper. `module` is the network without the
    wrapper; `forward_fp32` is its forward pass without autocast. In each step, call
    `backward` once per microbatch, then `update` once.
    """

    rebuilds_buckets = True  # as DDP does; see `rebuild_ddp_buckets`

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
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        # accelerate replaces forward on the instance by one that autocasts; the class
        # has the original
        self.forward_fp32: Callable[..., Tensor] = type(module).forward.__get__(module)
        # each network has its own scaler: an overflow in one must not change the scale
        # of the other
        self.scaler = (
            torch.amp.GradScaler(accelerator.device.type)
            if accelerator.mixed_precision == "fp16"
            else None
        )
        self.skipped_updates = SkippedUpdates(accelerator.device)
        # After an update, gradients are kept until the next backward pass, which reuses
        # their memory: freeing them before the next forward pass costs a CPU 6,000 page
        # faults per step, 8 % of its time.
        self.has_stale_grads = False
        self.grad_norms: list[Tensor] = []  # one per update since the last `mean_grad_norm`
        self.mixes_images = mixes_images(self.module)

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
        """Return a context manager for the forward and backward pass of one microbatch.

        The ranks all-reduce their gradients only if `last` is true.
        """
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a microbatch's loss and accumulate gradients."""
        if self.has_stale_grads:
            self.optimizer.zero_grad()
            self.has_stale_grads = False
        if self.compute.accumulate > 1:
            loss = loss / self.compute.accumulate
        # if the loss is not finite, all gradients become NaN; the all-reduce spreads
        # NaN to all ranks
        loss = loss * (1 + 0 * loss.detach())
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self) -> None:
        """Take one optimizer step; skip and count it if a gradient is not finite."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = self._clipped_grad_norm()
        self.grad_norms.append(norm.detach())
        # all ranks have the same gradients, so they skip the same updates
        failed = (0 * norm).ne(0).float()  # 0 times infinity is NaN
        if self.fused:  # a fused optimizer decides on the device
            self.optimizer.found_inf = failed
            self.optimizer.step()
        elif not failed.item():
            self.optimizer.step()
        self.skipped_updates.record(failed)
        self.has_stale_grads = True
        if self.scaler is not None:
            self.scaler.update()

    def _clipped_grad_norm(self) -> Tensor:
        """Clip the gradients' norm to `adam.clip`; return the norm before clipping."""
        clip = self.adam.clip
        if clip:
            return nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        return self._grad_norm()

    def _grad_norm(self) -> Tensor:
        """Return the L2 norm of all gradients of the network together, a scalar."""
        gradients = [
            parameter.grad for parameter in self.module.parameters() if parameter.grad is not None
        ]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def mean_grad_norm(self) -> float | None:
        """Return the mean norm of the gradients, before clipping, since the last call.

        The result is None if there was no update.
        """
        norms, self.grad_norms = self.grad_norms, []
        return float(torch.stack(norms).mean()) if norms else None

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state by name, for instance "exp_avg.head.weight".

        All ranks must call it.
        """
        # with ZeRO, the state is divided among the ranks
        return optimizer_tensors(self.optimizer, self.module)

    def local_optimizer_tensors(self) -> list[Tensor]:
        """Return the optimizer's state tensors that should be equal on all ranks.

        They are not copies.
        """
        return list(optimizer_tensors(self.optimizer, self.module).values())

    def load_optimizer(self, tensors: Tensors) -> None:
        """Load the optimizer state that `optimizer_tensors` returned."""
        load_optimizer(self.optimizer, self.module, tensors)

    def scale_lr(self, factor: float) -> None:
        """Set each learning rate to `factor` times the one that the recipe gives."""
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Yield the unwrapped module, with `requires_grad` off in the `with` block."""
        # the backward pass of the other network then leaves no gradients in this one
        self.module.requires_grad_(False)
        try:
            yield self.module
        finally:
            self.module.requires_grad_(True)


@torch.no_grad()
def rebuild_ddp_buckets(network: TrainableNetwork, *inputs: Tensor) -> None:
    """Make DDP rebuild its gradient buckets before the first step of a process.

    `inputs` are the network's input tensors for one local batch, each (B, ...).
    Parameters and buffers stay as they are.
    """
    # DDP rebuilds the buckets after its first backward pass. With more than two ranks,
    # the order of a sum depends on an element's position in its bucket, so the first
    # step would round differently in a run that has just resumed.
    if not network.rebuilds_buckets:
        return
    size = len(inputs[0]) // network.compute.accumulate
    saved = [buffer.clone() for buffer in network.module.buffers()]
    with torch.enable_grad():
        (network(*(tensor[:size] for tensor in inputs)).sum() * 0).backward()
    network.optimizer.zero_grad()
    for buffer, value in zip(network.module.buffers(), saved, strict=True):
        buffer.copy_(value)

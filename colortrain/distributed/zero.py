"""DeepSpeed ZeRO: partitioned optimizer state (stage 1) and gradients (stage 2).

Training steps and checkpoints are the same as with DDP, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.trainable import TrainableNetwork
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Adam
from colortrain.runs.checkpoint import Tensors
from shards.errors import UserError

STAGES = (0, 1, 2)
_LARGEST_BUCKET = 2**24  # numbers: 64 MiB
_MOMENTS = ("exp_avg", "exp_avg_sq")


def zero_stage() -> int | None:
    """Return the ZeRO stage of accelerate's configuration, or None without DeepSpeed.

    Raises UserError for unsupported stages and for offloading.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() != "true":
        return None
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "none given")
    if stage not in map(str, STAGES):
        raise UserError(
            f"deepspeed zero_stage {stage} is not supported: use one of "
            f"{', '.join(map(str, STAGES))} (stage 3 partitions the weights, but a gradient "
            "penalty requires complete weights)"
        )
    for part in ("OPTIMIZER", "PARAM"):
        if os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part}_DEVICE", "none") != "none":
            raise UserError(
                f"deepspeed offload_{part.lower()}_device is not supported: set it to none"
            )
    return int(stage)


def import_deepspeed() -> Any:
    """Import and return deepspeed. Raises UserError if it cannot be imported."""
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            f"deepspeed cannot be imported ({error}): pip install 'colortrain[deepspeed]'"
        ) from None
    if not torch.cuda.is_available():
        # otherwise it would compile an extension that gloo does not need
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class ZeroTrainableNetwork(TrainableNetwork):
    """A `TrainableNetwork` whose backward passes and updates run in a DeepSpeed engine.

    The constructor raises UserError for options that are not supported with DeepSpeed.
    """

    rebuilds_buckets = False  # the engine keeps its bucket layout

    def __init__(
        self,
        module: nn.Module,
        adam: Adam,
        accelerator: Accelerator,
        compute: ComputeConfig | None = None,
        *,
        stage: int = 2,
    ) -> None:
        self.stage = stage
        if accelerator.mixed_precision == "fp16":
            raise UserError(
                "deepspeed is not supported with fp16: use --mixed_precision no or bf16"
            )
        if compute is not None and (compute.channels_last or compute.compile):
            raise UserError(
                "--channels-last and --compile are not supported with deepspeed, which chooses the "
                "memory layout itself: leave out --channels-last and --compile"
            )
        if stage and adam.muon:
            raise UserError(
                f"deepspeed zero_stage {stage} flattens the weights, but Muon requires matrices: "
                "train with DDP, or --set generator_adam.muon=0"
            )
        super().__init__(module, adam, accelerator, compute)

    def _wrap(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        # as without ZeRO, weights stay in float32 and forward passes use autocast
        if self.accelerator.mixed_precision == "bf16":
            autocast = torch.autocast(self.accelerator.device.type, torch.bfloat16)
            module.forward = convert_outputs_to_fp32(autocast(module.forward))
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # required, but not used here
            "gradient_accumulation_steps": self.compute.accumulate,
            "gradient_clipping": self.adam.clip,
            # The default bucket of 500 million numbers would take 2 GB in each backward
            # pass. Communication does not overlap with the backward pass: with
            # overlap_comm, gradients may be wrong (DeepSpeed's issues 5545 and 8061).
            "zero_optimization": {
                "stage": self.stage,
                "reduce_bucket_size": min(num_parameters(module), _LARGEST_BUCKET),
                "overlap_comm": False,
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        }
        wrapped, optimizer, _, _ = import_deepspeed().initialize(
            model=module, optimizer=optimizer, config=settings
        )
        return wrapped, optimizer

    @contextmanager
    def sync_on_last(self, last: bool) -> Iterator[None]:
        """Return a context manager for the forward and backward pass of one microbatch.

        The ranks reduce their gradients only if `last` is true.
        """
        self.wrapped.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a microbatch's loss and accumulate gradients."""
        # the engine divides the gradients by the number of microbatches
        self.wrapped.backward(loss * (1 + 0 * loss.detach()))

    def update(self) -> None:
        """Take one optimizer step; skip and count it if a gradient is not finite."""
        before = self.wrapped.skipped_steps
        # at stages above 0 the engine itself skips such steps
        failed = self.stage == 0 and not bool(self._grad_norm().isfinite())
        if failed:
            self.wrapped.zero_grad()
        else:
            self.wrapped.step()
        self.skipped_updates.record(
            torch.tensor(
                float(failed or self.wrapped.skipped_steps > before),
                device=self.skipped_updates.counts.device,
            )
        )

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return Adam's complete state by name, the same as without DeepSpeed.

        All ranks must call it.
        """
        if self.stage == 0:
            return super().optimizer_tensors()
        # one entry: the flat tensor with this rank's partition of all parameters
        states = self.optimizer.optimizer.state
        if not states:  # no step yet
            return {}
        (state,) = states.values()
        tensors = {}
        for name, parameter in self.module.named_parameters():
            tensors[f"step.{name}"] = torch.as_tensor(state["step"]).clone()
            for kind in _MOMENTS:
                # gathers the ranks' parts of the state
                tensors[f"{kind}.{name}"] = parameter.get_full_hp_param(kind)  # type: ignore[attr-defined]
        return tensors

    def local_optimizer_tensors(self) -> list[Tensor]:
        """Return [] above stage 0: each rank then has its own part of the state."""
        return [] if self.stage else super().local_optimizer_tensors()

    def load_optimizer(self, tensors: Tensors) -> None:
        """Load an optimizer state that `optimizer_tensors` returned.

        It may be from a run without DeepSpeed or with another number of processes.
        """
        if self.stage == 0:
            return super().load_optimizer(tensors)
        # the engine updates its own copies of the weights, which have just been loaded
        self.optimizer.refresh_fp32_params()
        if tensors:
            step = next(value for name, value in tensors.items() if name.startswith("step."))
            self._init_adam_state(step)
            for name, parameter in self.module.named_parameters():
                for kind in _MOMENTS:
                    value = tensors[f"{kind}.{name}"].to(parameter.device)
                    parameter.set_full_hp_param(value, kind)  # type: ignore[attr-defined]
        return None

    def _init_adam_state(self, step: Tensor) -> None:
        """Give Adam a state whose step count is `step` and whose moments are 0."""
        adam = self.optimizer.optimizer
        for flat in (flat for group in adam.param_groups for flat in group["params"]):
            count = step.clone().to(flat.device if self.fused else "cpu")
            adam.state[flat] = {
                "step": count,
                **{kind: torch.zeros_like(flat) for kind in _MOMENTS},
            }
        self.optimizer._lazy_init_hp_params_optimizer_state()

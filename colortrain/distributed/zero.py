"""DeepSpeed ZeRO: a network whose optimizer state (stage 1), and gradients (stage 2), are shared out among ranks.

Each network has an engine of its own. Weights stay in float32 and forward passes autocast, as everywhere here: a step
is the step of DDP but for rounding, and checkpoints are those of DDP, so a run may go on with or without it.
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
_MOMENTS = ("exp_avg", "exp_avg_sq")


def zero_stage() -> int | None:
    """What accelerate's configuration asks of DeepSpeed: a ZeRO stage, None where it does not ask for DeepSpeed.

    Raises `UserError` for what the step cannot do.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() != "true":
        return None
    asked = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "none given")
    if asked not in map(str, STAGES):
        raise UserError(
            f"deepspeed zero_stage {asked} is not supported: use one of {', '.join(map(str, STAGES))} (stage 3 takes "
            "weights apart, and a gradient penalty needs them whole)"
        )
    for part in ("OPTIMIZER", "PARAM"):
        if os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part}_DEVICE", "none") != "none":
            raise UserError(
                f"deepspeed offload_{part.lower()}_device is not supported: set it to none"
            )
    return int(asked)


def import_deepspeed() -> Any:
    """The package; raises `UserError` where it is not installed."""
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            f"deepspeed cannot be imported ({error}): pip install 'colortrain[deepspeed]'"
        ) from None
    if not torch.cuda.is_available():  # else it would compile an extension that gloo does not need
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class ZeroTrainableNetwork(TrainableNetwork):
    """A `TrainableNetwork` inside a DeepSpeed engine, which takes both backward passes and steps."""

    settles = False  # the engine lays nothing out anew

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
            raise UserError("deepspeed goes with --mixed_precision no or bf16 here, not with fp16")
        if compute is not None and (compute.channels_last or compute.compile):
            raise UserError(
                "deepspeed lays weights out by itself: leave out --channels-last and --compile"
            )
        if stage and adam.muon:
            raise UserError(
                "deepspeed above zero_stage 0 lays weights out flat, and Muon's steps need them whole: train with DDP, "
                "or --set generator_adam.muon=0"
            )
        super().__init__(module, adam, accelerator, compute)

    def _wrap(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        if self.accelerator.mixed_precision == "bf16":
            autocast = torch.autocast(self.accelerator.device.type, torch.bfloat16)
            module.forward = convert_outputs_to_fp32(autocast(module.forward))
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # must be something; we count pictures ourselves
            "gradient_accumulation_steps": self.compute.accumulate,
            "gradient_clipping": self.adam.clip,
            # a bucket is allocated whole, and deepspeed's own is of 500 million numbers: 2 GB in each backward pass
            "zero_optimization": {
                "stage": self.stage,
                "reduce_bucket_size": num_parameters(module),
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
        """For one part's forward and backward passes: ranks share their gradients at the last one's end."""
        self.wrapped.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """Add one part's gradients; the engine divides by the number of parts."""
        self.wrapped.backward(loss * (1 + 0 * loss.detach()))

    def update(self) -> None:
        """One step of the engine, which above stage 0 leaves out by itself what is not finite."""
        before = self.wrapped.skipped_steps
        failed = self.stage == 0 and not bool(self._raw_norm().isfinite())
        if failed:
            self.wrapped.zero_grad()
        else:
            self.wrapped.step()
        self.skips.see(
            torch.tensor(
                float(failed or self.wrapped.skipped_steps > before),
                device=self.skips.counts.device,
            )
        )

    def adam_tensors(self) -> dict[str, Tensor]:
        """Adam's state, whole and by parameter name, as without DeepSpeed; all ranks call it."""
        if self.stage == 0:
            return super().adam_tensors()
        shares = (
            self.optimizer.optimizer.state
        )  # of the flat tensor that holds this rank's share of all parameters
        if not shares:  # no step yet
            return {}
        (share,) = shares.values()
        tensors = {}
        for name, parameter in self.module.named_parameters():
            tensors[f"step.{name}"] = torch.as_tensor(share["step"]).clone()
            for kind in _MOMENTS:
                tensors[f"{kind}.{name}"] = parameter.get_full_hp_param(kind)  # type: ignore[attr-defined]
        return tensors

    def load_adam(self, tensors: Tensors) -> None:
        """Put back what `adam_tensors` gave, here or without DeepSpeed, on any number of ranks."""
        if self.stage == 0:
            return super().load_adam(tensors)
        self.optimizer.refresh_fp32_params()  # the engine steps copies of its own; the weights were loaded just now
        if tensors:
            self._make_room(
                next(value for name, value in tensors.items() if name.startswith("step."))
            )
            for name, parameter in self.module.named_parameters():
                for kind in _MOMENTS:
                    value = tensors[f"{kind}.{name}"].to(parameter.device)
                    parameter.set_full_hp_param(value, kind)  # type: ignore[attr-defined]
        return None

    def _make_room(self, step: Tensor) -> None:
        """Adam's state as the first step would make it, after `step` steps, and linked to the parameters."""
        adam = self.optimizer.optimizer
        for flat in (flat for group in adam.param_groups for flat in group["params"]):
            count = step.clone().to(flat.device if self.fused else "cpu")
            adam.state[flat] = {
                "step": count,
                **{kind: torch.zeros_like(flat) for kind in _MOMENTS},
            }
        self.optimizer._lazy_init_hp_params_optimizer_state()

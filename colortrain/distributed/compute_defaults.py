"""Compute options that are chosen if the user has not chosen them.

The choices follow from how GPUs work; they have not been measured on one.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils._triton import has_triton

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.zero import zero_stage
from colortrain.models.norms import MinibatchStddev, PixelNorm

_LONG_RUN = 50_000  # steps; in shorter runs, compiling takes about as long as it saves
_OTHER_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, PixelNorm, MinibatchStddev)


def choose(
    compute: ComputeConfig, module: nn.Module, accelerator: Accelerator, steps: int
) -> ComputeConfig:
    """Return the options for a network, with True or False for those that are None.

    On GPUs in mixed precision, a network is in channels_last if its normalisation
    layers are all BatchNorm. On GPUs, networks are compiled if the run has at least
    50,000 steps and there is a compiler. `steps` is the length of the whole run.
    """
    # not the length of the rest: resuming would change how a run is computed
    gpu = accelerator.device.type == "cuda" and zero_stage() is None
    channels_last, compiles = compute.channels_last, compute.compile
    if channels_last is None:
        channels_last = gpu and accelerator.mixed_precision != "no" and _only_batch_norm(module)
    if compiles is None:
        excluded = compute.recompute or compute.deterministic
        compiles = gpu and not excluded and steps >= _LONG_RUN and has_compiler()
        if compiles:  # what the user has not chosen must not end a run
            torch._dynamo.config.suppress_errors = True
    return replace(compute, channels_last=channels_last, compile=compiles)


def _only_batch_norm(module: nn.Module) -> bool:
    # on GPUs, other layers work in the contiguous format and would convert their input
    return not any(isinstance(child, _OTHER_NORMS) for child in module.modules())


def has_compiler() -> bool:
    """Return whether `torch.compile` finds what it needs to compile for this GPU."""
    programs = (os.environ.get("CC", "cc"), "gcc", "clang")
    return has_triton() and any(map(shutil.which, programs))

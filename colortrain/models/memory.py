"""Refuse networks that are too large, before their memory is allocated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from colortrain.models.registry import CriticConfig, GeneratorConfig
from shards.errors import UserError

MAX_CHANNELS = 1 << 16  # of the fields `base_channels` and `inputs`
MAX_LAYERS = 256  # of all other whole numbers in a network's config
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
NetworkConfig = GeneratorConfig | CriticConfig


def check_fields(config: NetworkConfig) -> None:
    """Raise ValueError if a field of a network's config is absurdly large."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        most = MAX_CHANNELS if field.name in ("base_channels", "inputs") else MAX_LAYERS
        if isinstance(value, int) and value > most:
            raise ValueError(f"{field.name} must be at most {most:,}, got {value}")


def machine_memory() -> int:
    """Return how many bytes of the machine's memory this process may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # a container or a SLURM job has a cgroup, which may allow less
    limit = _CGROUP_LIMIT.read_text(encoding="utf-8").strip() if _CGROUP_LIMIT.is_file() else "max"
    return min(total, int(limit)) if limit.isdigit() else total


def build_network(config: NetworkConfig) -> nn.Module:
    """Return the network that a config from a file describes, on the CPU.

    Raises UserError if it needs more memory than the machine has.
    """
    try:
        check_fields(config)
    except ValueError as error:
        raise UserError(f"{type(config).__name__}: {error}") from None
    check_networks([config], f"{type(config).__name__}")
    return config.build()


def check_networks(configs: Sequence[NetworkConfig], what: str, copies: int = 1) -> None:
    """Raise UserError if this machine's memory is too small for networks.

    `what` names their use in the message. `copies` is how many values are stored per
    weight.
    """
    # nothing is allocated
    if torch.get_default_device().type == "meta":
        return
    needed, available = copies * sum(map(num_bytes, configs)), machine_memory()
    if needed > available:
        raise UserError(
            f"{what} takes at least {gigabytes(needed)}, this machine has {gigabytes(available)} "
            "of memory: use fewer base_channels or layers"
        )


def num_bytes(config: NetworkConfig) -> int:
    """Return the bytes of a network's weights and buffers, without allocating them."""
    with torch.device("meta"), _NoInitialisation():
        network = config.build()
    return sum(tensor.nbytes for tensor in network.state_dict().values())


class _NoInitialisation(TorchFunctionMode):
    """Leaves out functions that change a tensor in place."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        # initialisation takes long even on "meta"
        if name.endswith("_") and not name.startswith("_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def gigabytes(size: float) -> str:
    """Return a number of bytes as text, in GB (1e9 bytes)."""
    return f"{size / 1e9:,.1f} GB"


def check_batch(images: int, image_bytes: int) -> None:
    """Raise UserError if the images of a process's batch alone do not fit into memory.

    `images` is the number of images per process, `image_bytes` the size of one.
    """
    needed, available = images * image_bytes, machine_memory()
    if needed > available:
        raise UserError(
            f"{images:,} images per process and batch take {gigabytes(needed)}, this machine has "
            f"{gigabytes(available)} of memory: set a smaller batch_size"
        )

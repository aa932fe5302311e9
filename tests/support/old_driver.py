"""Run a module as if the driver of this machine's GPU were too old for torch.

python -m tests.support.old_driver launch.train --recipe ...
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from colortrain.distributed import device
from launch.processes import exit_process
from shards.errors import run_command

MESSAGE = "The NVIDIA driver on your system is too old (found version 11040)"


def pretend(replace: Callable[[Any, str, Any], None]) -> None:
    """Replace functions of torch as with an old driver; `replace` is like `setattr`."""
    replace(torch.cuda, "is_available", lambda: False)
    replace(torch.cuda, "device_count", lambda: 1)  # NVML, which torch asks, can still count
    replace(torch.cuda, "init", _init)
    replace(device, "_NVIDIA_DRIVER", (Path(__file__),))  # a file that exists


def _init() -> None:
    raise RuntimeError(f"{MESSAGE}. Please update your GPU driver by downloading and installing")


def main() -> int:
    """Run the module that the first argument names."""
    pretend(setattr)
    module, *argv = sys.argv[1:]
    return run_command(module, importlib.import_module(module).main, argv)


if __name__ == "__main__":
    exit_process(main())

"""Describe this machine: processor, cores, memory, GPUs, versions, load average."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from shards.__main__ import available_cores

PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "scikit-image",
    "webdataset",
    "litdata",
    "mosaicml-streaming",
)


def version(package: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_machine() -> dict[str, Any]:
    """Return the hardware, load averages and versions of this machine, for JSON."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": available_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": _gpus(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def format_machine(facts: dict[str, Any]) -> str:
    """Format the result of `describe_machine` as three lines of text."""
    versions = ", ".join(
        f"{name} {installed}" for name, installed in facts["versions"].items() if installed
    )
    gpus = ", ".join(facts["gpus"]) or "no GPU"
    load = ", ".join(f"{value:.2f}" for value in facts["load_average"])
    return "\n".join(
        [
            f"{facts['cpu']}, {facts['cores']} cores usable, {facts['memory_gb']} GB, {gpus}",
            f"{facts['date']}, load average {load}",
            f"Python {facts['python']}, {versions}",
        ]
    )


def _gpus() -> list[str]:
    # with an old driver, `device_count` counts GPUs that cannot be used
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(number) for number in range(count)]


def _cpu() -> str:
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []

"""Tests that need GPUs: `pytest -m gpu` runs them.

With `-m "gpu and ..."` they see GPUs too; any other selection of tests sees none
(tests/conftest.py). On a machine without a GPU `make gpu` runs them on stand-ins
(tests/support/gpu_stand_in).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

one_gpu = pytest.mark.skipif(
    torch.cuda.device_count() < 1, reason="needs a GPU, and `pytest -m gpu`"
)
two_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two GPUs, and `pytest -m gpu`"
)


@contextmanager
def error_on_sync() -> Iterator[None]:
    """Raise an error from any operation inside the block that waits for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let torch report `count` GPUs; accelerate may have requested the CPU before."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

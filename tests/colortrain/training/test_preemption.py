"""The stop flag and the running statistics of ranks, on one process.

`tests/slurm/test_preemption.py` tests signals, also with three processes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from colortrain.training import preemption
from colortrain.training.preemption import (
    SharedStopFlag,
    gather_bn_stats,
    handling_signals,
    restore_bn_stats,
)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A process group of one rank."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_without_a_process_group_the_flag_is_set_at_once() -> None:
    flag = SharedStopFlag(torch.device("cpu"))
    with handling_signals():
        assert not flag.is_set()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert flag.is_set()
    with handling_signals():
        assert not flag.is_set()


def test_in_a_process_group_the_flag_is_set_one_boundary_later(process_group: None) -> None:
    flag = SharedStopFlag(torch.device("cpu"))
    with handling_signals():
        assert not flag.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not flag.is_set()
        assert flag.is_set()


def test_in_another_thread_no_handler_is_set() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with handling_signals():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
    assert not preemption.stop_requested()


def test_running_statistics_of_a_rank_are_restored(process_group: None) -> None:
    module = nn.BatchNorm2d(2)
    module(torch.rand(2, 2, 3, 3))
    expected = {name: buffer.clone() for name, buffer in module.named_buffers()}
    gathered = gather_bn_stats(module)
    assert {name: tuple(buffer.shape) for name, buffer in gathered.items()} == {
        "running_mean": (1, 2),
        "running_var": (1, 2),
    }
    module.reset_running_stats()
    restore_bn_stats(module, gathered, rank=0)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            assert torch.equal(buffer, expected[name])

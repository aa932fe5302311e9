"""Lost ranks: which errors are those of collectives, and which ranks are named.

`tests/distributed/test_failures.py` tests the same with processes that die or hang.
"""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from typing import Any, cast

import pytest
import torch

from colortrain.distributed import rank_failures
from colortrain.distributed.rank_failures import (
    LostRanksError,
    Watchdog,
    describe_lost_ranks,
    detect_lost_ranks,
    is_collective_error,
)

NAMES = ["rank 0 (a, process 1)", "rank 1 (b, process 2)", "rank 2 (b, process 3)"]
KEY = "colortrain/0/{}"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> torch.distributed.TCPStore:
    """A store as the launcher hosts it, with its address in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(rank_failures, "_REPORT_SECONDS", 1.0)
    return torch.distributed.TCPStore(
        "127.0.0.1", port, is_master=True, timeout=timedelta(seconds=10)
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[gloo] Connection closed by peer"), True),
        (RuntimeError("NCCL error: unhandled system error"), True),
        (RuntimeError("Broken pipe"), True),
        (torch.distributed.DistBackendError("anything"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("gloo"), False),
    ],
)
def test_errors_of_collectives(error: Exception, expected: bool) -> None:
    assert is_collective_error(error) == expected


def test_ranks_that_do_not_report_are_named(store: torch.distributed.TCPStore) -> None:
    store.set(KEY.format(2), "alive")
    line = describe_lost_ranks(NAMES, 0)
    assert line.startswith("rank 1 (b, process 2) died or hangs: ")
    assert "\n" not in line


def test_a_rank_that_failed_has_printed_its_own_error(store: torch.distributed.TCPStore) -> None:
    store.set(KEY.format(1), "failed")
    assert describe_lost_ranks(NAMES, 0) == ""


NCCL_ERROR = """\
NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled system error
ncclSystemError: System call (e.g. socket, malloc) or external library call failed.
Last error:
socketStartConnect: Connect to 10.0.0.2<38191> failed : No route to host
Exception raised from getNCCLComm at NCCLUtils.cpp:94 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation)"""


class FakeAccelerator:
    """The first of three processes on GPUs."""

    num_processes, process_index = 3, 0
    device = torch.device("cuda", 0)


def test_an_error_of_nccl_is_printed_and_healthy_ranks_are_not_blamed(
    store: torch.distributed.TCPStore,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The other ranks wait for their GPUs and do not report themselves."""

    def all_reduce(tensor: torch.Tensor) -> None:
        raise torch.distributed.DistBackendError(NCCL_ERROR)

    monkeypatch.setattr(rank_failures, "gather_object", lambda _: NAMES)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with (
        pytest.raises(LostRanksError) as raised,
        detect_lost_ranks(cast(Any, FakeAccelerator()), timeout=60),
    ):
        torch.distributed.all_reduce(torch.ones(1))
    line = raised.value.line
    assert line.startswith("a collective operation failed: see the messages of the ranks")
    assert not any(name in line for name in NAMES)
    (printed,) = capfd.readouterr().err.splitlines()
    assert printed.startswith("rank 0 (a, process 1): NCCL error in: ")
    assert printed.endswith("Connect to 10.0.0.2<38191> failed : No route to host")


def test_without_a_lost_rank_the_connection_is_named(store: torch.distributed.TCPStore) -> None:
    for rank in (1, 2):
        store.set(KEY.format(rank), "alive")
    assert describe_lost_ranks(NAMES, 0).startswith("a connection between processes died or hangs")


def test_a_store_that_is_gone_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    line = describe_lost_ranks(NAMES, 1)
    assert line.startswith("rank 1 (b, process 2) lost the connection to the other ranks")


def test_the_watchdog_prints_the_stack_once_and_only_without_heartbeats(
    capfd: pytest.CaptureFixture[str],
) -> None:
    watchdog = Watchdog("rank 3", 0.2)
    time.sleep(1.5)
    watchdog.stopped.set()
    error = capfd.readouterr().err
    assert error.count("rank 3 has taken no step for 0 s; its stack:") == 1
    assert "test_rank_failures.py" in error

"""Memory that runs out becomes one line with the numbers that are known."""

from __future__ import annotations

import pytest
import torch

from colortrain.out_of_memory import describe_memory, explain_out_of_memory
from shards.errors import PermanentError

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.10 GiB of "
    "which 1.20 GiB is free. Process 7 has 77.90 GiB memory in use. Of the allocated memory ..."
)
NCCL = (
    "NCCL error in: NCCLUtils.cpp:94, unhandled cuda error (run with NCCL_DEBUG=INFO for details), "
    "NCCL version 2.27.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
    "Cuda failure 2 'out of memory'"
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch report a GPU with 1.5 of 80 GiB free."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * 2**29, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "2.00 GiB requested, 1.20 GiB of 79.10 GiB free on GPU 3",
        ),
        (  # of older versions of torch and of compiled code
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
            "20.00 MiB requested, 1.50 GiB of 80.00 GiB free on GPU 1",
        ),
        (
            torch.distributed.DistBackendError(NCCL),
            "Cuda failure 2 'out of memory'; 1.50 GiB of 80.00 GiB free on GPU 1",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`; "
            "1.50 GiB of 80.00 GiB free on GPU 1",
        ),
    ],
)
def test_the_line_has_the_numbers(gpu: None, error: Exception, text: str) -> None:
    assert describe_memory(error) == text


def test_a_gpu_that_cannot_be_asked_any_more_is_left_out(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mem_get_info() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    assert describe_memory(RuntimeError("CUDA error: out of memory")) == "CUDA error: out of memory"


def test_the_memory_of_the_machine() -> None:
    with (
        pytest.raises(PermanentError, match=r"for it \(.*allocate memory.*\): use less$") as raised,
        explain_out_of_memory("it", "use less"),
    ):
        torch.empty(2**58, dtype=torch.uint8)
    assert "\n" not in str(raised.value)


def fail_to_compile() -> None:
    try:
        raise torch.OutOfMemoryError(CUDA)
    except torch.OutOfMemoryError as error:
        raise ValueError("compiling failed") from error


def test_an_error_whose_cause_is_a_lack_of_memory() -> None:
    with (
        pytest.raises(PermanentError, match=r"it \(2.00 GiB requested, 1.20 GiB of 79.10 GiB free"),
        explain_out_of_memory("it", "use less"),
    ):
        fail_to_compile()


def test_other_errors_are_raised_unchanged() -> None:
    with pytest.raises(RuntimeError, match=r"^size mismatch$"), explain_out_of_memory("it", "x"):
        raise RuntimeError("size mismatch")

"""Turn errors about memory that is used up into one line that says what to lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from shards.errors import PermanentError, first_line, is_out_of_memory

# torch's message, such as "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a
# total capacity of 79.10 GiB of which 1.20 GiB is free. Process 7 has ..."
_NUMBERS = re.compile(
    r"Tried to allocate (?P<request>[\d.]+ \w+)\."
    r"( GPU (?P<gpu>\d+) has a total capacity of (?P<total>[\d.]+ \w+)"
    r" of which (?P<free>[\d.]+ \w+) is free)?"
)


@contextmanager
def explain_out_of_memory(what: str, advice: str) -> Iterator[None]:
    """Raise PermanentError if memory of the machine or a GPU runs out inside the block.

    what: what needs the memory; advice: what the user can do. The message also has the
    memory that was requested, and the free and the total memory of the GPU.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        details = describe_memory(error)
        raise PermanentError(f"not enough memory for {what} ({details}): {advice}") from None


def describe_memory(error: BaseException) -> str:
    """Return how much memory was requested, and what the GPU has, as far as known.

    Example: "2.00 GiB requested, 1.20 GiB of 79.10 GiB free on GPU 0". error: an error
    for which `is_out_of_memory` is true, or its consequence.
    """
    cause = _innermost(error)
    if not (found := _NUMBERS.search(str(cause))):
        return "; ".join([_short_message(cause), *_gpu_memory()])
    request = f"{found['request']} requested"
    if found["gpu"] is None:
        return ", ".join([request, *_gpu_memory()])
    return f"{request}, {found['free']} of {found['total']} free on GPU {found['gpu']}"


def _innermost(error: BaseException) -> BaseException:
    """Return the last error of the chain of causes that is about memory."""
    cause = error.__cause__ or error.__context__
    return _innermost(cause) if cause is not None and is_out_of_memory(cause) else error


def _short_message(error: BaseException) -> str:
    """Return the line of an error's message that is about memory, or its first line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if _is_about_memory(line)), first_line(error))


def _is_about_memory(line: str) -> bool:
    return is_out_of_memory(RuntimeError(line))


def _gpu_memory() -> list[str]:
    """Return one text about the memory of this process's GPU, or none if unknown."""
    if not torch.cuda.is_available():
        return []
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # after some errors, a process cannot use its GPU any more
        return []
    number = torch.cuda.current_device()
    return [f"{free / 2**30:.2f} GiB of {total / 2**30:.2f} GiB free on GPU {number}"]

"""A hook that measures named regions of a training step; by default it does nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

# The regions, nested where one runs inside another.
CRITIC = "critic"  # forward, backward and update of the critic
GENERATOR = "generator"  # the same for the generator, including its passes for the critic
AVERAGE = "average"  # the moving average of the generator's weights
LOGGING = "logging"  # losses and gradient norms, collected and written


class Profiler(Protocol):
    """Protocol of an object that measures named regions of the training step."""

    def region(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager inside which the region called `name` runs."""
        ...


class NoProfiler:
    """The default profiler: its regions do nothing."""

    _context = nullcontext()

    def region(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that does nothing."""
        return self._context


NO_PROFILER = NoProfiler()

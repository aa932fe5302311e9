"""Fixtures for tests of every package, and which devices tests see."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.support.browser import browser, page, script_errors
from tests.support.mark_expressions import requires_mark

__all__ = ["browser", "page", "script_errors"]


# A machine that others use stands still for longer than Hypothesis allows an example.
settings.register_profile("patient", settings.default, deadline=None)
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs unless only tests marked gpu are selected: others compare CPU bits."""
    if not requires_mark(config.option.markexpr, "gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

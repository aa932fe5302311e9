"""Fixtures for tests of every package, and which devices tests see."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.support.browser import browser, page, script_errors

__all__ = ["browser", "page", "script_errors"]


# A machine that others use stands still for longer than Hypothesis allows an example.
settings.register_profile("patient", settings.default, deadline=None)
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs except under `pytest -m gpu`: other tests compare bits of CPUs."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

"""Which selections of tests see GPUs."""

from __future__ import annotations

import pytest

from tests.support.mark_expressions import requires_mark


@pytest.mark.parametrize(
    ("expression", "required"),
    [
        ("gpu", True),
        ("gpu and not slow", True),
        ("distributed and gpu", True),
        ("not gpu", False),
        ("gpu or slow", False),
        ("slow and gpu or distributed", False),
        ("not (gpu and slow)", False),
        ("not slow and not cluster", False),
        ("", False),
    ],
)
def test_a_mark_is_required_only_by_a_conjunction(expression: str, required: bool) -> None:
    assert requires_mark(expression, "gpu") is required

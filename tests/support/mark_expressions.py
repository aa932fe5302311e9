"""What a mark expression of pytest (`-m`) selects."""

from __future__ import annotations


def requires_mark(expression: str, mark: str) -> bool:
    """Return whether each test that `pytest -m EXPRESSION` selects has the mark.

    Only expressions without parentheses and without "or" are understood; for others the
    result is False.
    """
    words = expression.split()
    terms = " ".join(words).split(" and ")
    return "or" not in words and mark in terms

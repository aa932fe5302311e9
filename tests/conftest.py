"""Fixtures for tests of every package."""

from tests.browser import browser, complaints, page

__all__ = ["browser", "complaints", "page"]

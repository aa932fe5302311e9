"""A real browser for tests of pages: the system's headless Chromium, driven by Playwright.

A test takes the fixture `page`; it fails if the page's scripts complained. Where the complaints belong to what is
tested (a refused upload), it takes `complaints` as well, looks at them and clears them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 800}
PATIENCE_MS = 15_000  # for a machine that others use
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests; skips them where there is none."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here: `apt-get install chromium`")
    switches = (
        ["--no-sandbox"] if os.geteuid() == 0 else []
    )  # Chromium's sandbox refuses to run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=switches)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the page's scripts complained of: errors on the console and those that nothing caught."""
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str], tmp_path: Path) -> Iterator[Page]:
    """An empty page of a desk's width, without any state of an earlier test."""
    context = browser.new_context(viewport=DESK, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert not complaints

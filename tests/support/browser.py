"""A real browser for tests of pages: the system's headless Chromium, run by Playwright.

A test with the fixture `page` fails if the page's scripts reported errors. A test in
which errors are expected (a rejected upload) also uses `script_errors`, checks them and
clears them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
TIMEOUT_MS = 15_000  # long, for machines under load
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser per test module; skips its tests if Chromium is not installed."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed: `apt-get install chromium`")
    # Chromium's sandbox does not run as root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def script_errors() -> list[str]:
    """The errors of the page's scripts: on the console, and uncaught ones."""
    return []


@pytest.fixture
def page(browser: Browser, script_errors: list[str], tmp_path: Path) -> Iterator[Page]:
    """An empty page in a new context, as wide as a desktop screen."""
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            script_errors.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: script_errors.append(str(error)))
    yield page
    context.close()
    assert not script_errors

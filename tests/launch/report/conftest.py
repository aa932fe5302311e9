"""Fixtures of the report's tests: two short runs, and pages opened from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from launch.report.__main__ import main
from launch.train import main as train
from tests.support.small_run import SETTINGS
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and runs one and two of six steps with validations every two steps.

    Run one was resumed once, after three steps. report.html is of run one,
    both/report.html of both.
    """
    folder = tmp_path_factory.mktemp("report")
    small_set(folder / "shards", count=24, splits=("train", "val"))
    settings = [*SETTINGS, "batch_size=4", "log_every=1", "evaluate_every=2", "checkpoint_every=2"]
    for run, images, seed in (("one", 12, 0), ("one", 24, 0), ("two", 24, 1)):
        args = ["--recipe", "nampouri_unet", "--shards", str(folder / "shards")]
        args += ["--run", str(folder / run), "--images", str(images), "--tracker", "none"]
        args += [arg for setting in (*settings, f"seed={seed}") for arg in ("--set", setting)]
        assert train(args) == 0
    assert main([str(folder / "one"), "--out", str(folder)]) == 0
    assert main([str(folder / "one"), str(folder / "two"), "--out", str(folder / "both")]) == 0
    return folder


@pytest.fixture
def open_page(page: Page) -> Callable[[Path], Page]:
    """A function that opens a page from disk and fails on any other request."""

    def open_file(path: Path) -> Page:
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_timeout(200)
        assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]
        return page

    return open_file

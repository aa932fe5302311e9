"""The `colortrain report` command: errors, and runs with unusual contents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from launch.report.__main__ import main
from launch.report.run_history import read_history
from shards.errors import UserError


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"contains no run \(no recipe.json\)"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_out_must_be_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(UserError, match="is a file: give a folder"):
        main([str(folder / "one"), "--out", str(tmp_path / "report")])
    assert (tmp_path / "report").read_text() == "mine"


def test_a_run_without_journal_has_a_page(
    open_page: Callable[[Path], Page], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_bytes((folder / "one" / "recipe.json").read_bytes())
    assert main([str(tmp_path / "run"), "--out", str(tmp_path)]) == 0
    page = open_page(tmp_path / "report.html")
    assert page.locator("#summary").get_by_text("No held-out scores yet.").count() == 1


def test_a_run_that_diverged_has_a_page(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "one", run)
    last = read_history(run, "run").validation[-1]
    none = {name: dict.fromkeys(values) | {"grey": 0.1} for name, values in last["metrics"].items()}
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({**last, "step": 7, "metrics": none}) + "\n")
    assert main([str(run), str(folder / "two"), "--out", str(tmp_path)]) == 0
    assert "No held-out scores yet." in (tmp_path / "report.html").read_text()

"""The report's tables: sorting, intervals and the flattened recipe."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from launch.evaluate import main as evaluate
from launch.report.__main__ import main
from launch.report.run_history import read_history
from launch.report.tables import comparison, flatten, metric_rows, recipe_rows


def numbers(page: Page, table: str, column: int) -> list[float]:
    cells = page.locator(f"{table} tbody tr td:nth-of-type({column})").all_inner_texts()
    return [float(text.replace(",", "")) for text in cells if text]


def test_a_click_on_a_column_head_sorts(open_page: Callable[[Path], Page], folder: Path) -> None:
    page = open_page(folder / "both" / "report.html")
    table = "#runs table"
    head = page.locator(f"{table} th button", has_text="PSNR, pooled")
    column = 5
    head.focus()
    page.keyboard.press("Enter")
    ascending = numbers(page, table, column)
    assert len(ascending) == 4  # two runs, grayscale and median colour; truth has none
    assert ascending == sorted(ascending)
    head.click()
    assert numbers(page, table, column) == ascending[::-1]
    assert page.locator(f"{table} th[aria-sort=descending]").count() == 1


def test_scores_of_an_evaluation_are_shown_with_their_intervals(
    open_page: Callable[[Path], Page], folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "one", run)
    args = ["--run", str(run), "--shards", str(folder / "shards"), "--vgg16", "random"]
    assert evaluate(args) == 0
    scores = json.loads((run / "evaluation.json").read_text())
    assert main([str(run), "--out", str(tmp_path)]) == 0
    page = open_page(tmp_path / "report.html")
    row = page.locator("table.metrics tbody tr", has_text="L1 of ab").first
    low, high = scores["intervals"]["l1"]["generated"]
    assert f"{low:.4f} to {high:.4f}" in row.inner_text()
    assert page.get_by_text("VGG-16, random: comparable with nothing published").count() == 1
    assert page.get_by_text("not computed: fid").count() == 1
    page.locator("table.metrics th button", has_text="vs. grayscale").click()
    texts = page.locator("table.metrics tbody tr td:nth-of-type(4)").all_inner_texts()
    comparisons = [text for text in texts if text]
    assert comparisons == sorted(comparisons)
    assert texts[: len(comparisons)] == comparisons  # empty cells come last in both orders


def test_a_deviation_follows_its_value(folder: Path) -> None:
    scores = {
        "step": 1,
        "metrics": {"inception_score": {"generated": 4.3125, "grey": 2.0, "truth": 4.3412}},
        "deviations": {"inception_score": {"generated": 1.8372, "truth": 1.7963}},
    }
    history = dataclasses.replace(read_history(folder / "one", "one"), scores=scores)
    generated, *_, grey, _, truth, paper = (
        cell["text"] for cell in metric_rows(history)[0]["cells"]
    )
    assert (generated, grey, truth, paper) == ("4.312 ± 1.837", "2.000", "4.341 ± 1.796", "")
    rows = {row["name"]: row["cells"][-1] for row in comparison([history])["rows"]}
    assert rows["one"] == {"text": "4.312 ± 1.837", "value": 4.3125}
    assert rows["truth"]["text"] == "4.341 ± 1.796"


def test_nested_fields_have_the_names_of_set() -> None:
    plain = {"a": {"b": [{"c": 1}, {"c": None}]}, "d": [1, 2]}
    assert flatten(plain) == {"a.b.0.c": "1", "a.b.1.c": "none", "d": "[1, 2]"}


def test_changed_fields_of_a_recipe_come_first(folder: Path) -> None:
    rows = recipe_rows(read_history(folder / "one", "one"))
    changed = {row["field"]: row["published"] for row in rows if row["published"] is not None}
    assert list(changed) == [row["field"] for row in rows[: len(changed)]]
    assert changed["batch_size"] != "4"
    assert next(row["value"] for row in rows if row["field"] == "batch_size") == "4"

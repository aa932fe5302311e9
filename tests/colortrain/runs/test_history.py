"""Reading a run's journal and other JSON files, also incomplete and missing ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colortrain.runs.history import (
    last_scores,
    parse_journal_line,
    read_document,
    read_evaluation,
    read_journal,
    read_lines,
)
from colortrain.runs.layout import evaluation_file, journal_file


def write(run: Path, *lines: dict[str, Any], end: str = "") -> None:
    journal_file(run).write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def test_the_incomplete_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"kind": "train", "step": 1, "images": 4},
        {"kind": "validation", "step": 1, "images": 4, "metrics": {}},
    ]
    write(tmp_path, *lines, end='{"kind": "tra')
    assert read_journal(tmp_path) == lines
    assert read_journal(tmp_path, "validation") == lines[1:]


def test_lines_without_an_object_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('[1]\n\nnull\n{"a": 1}\n3\n')
    assert read_lines(tmp_path / "lines") == [{"a": 1}]
    assert read_lines(tmp_path / "missing") == []


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_a_document_without_an_object_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "document").write_text(text)
    assert read_document(tmp_path / "document") == read_document(tmp_path / "missing") == {}


def test_last_scores_are_those_of_the_last_validation_without_null(tmp_path: Path) -> None:
    assert last_scores(tmp_path) == {}
    first = {"l1": {"generated": 0.5, "grey": 0.25}}
    last = {"l1": {"generated": None, "grey": 0.25}, "psnr": {"generated": 19.5, "grey": 20.0}}
    write(
        tmp_path,
        {"kind": "validation", "step": 1, "images": 4, "metrics": first},
        {"kind": "validation", "step": 2, "images": 8, "metrics": last},
        {"kind": "train", "step": 3, "images": 12},
    )
    assert last_scores(tmp_path) == {"psnr": 19.5, "grey l1": 0.25}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"kind": "train", "step": "7", "images": 4}', None),
        ('{"kind": "train", "step": 7}', None),
        ('{"kind": "validation", "step": 7, "images": 4, "metrics": []}', None),
        ('{"kind": "train", "step": 7, "step": 8, "images": 4}', None),
        ('{"kind": "warning", "step": 7}', None),
        ('{"kind": "stop", "step": 7, "time": 1e300}', {"kind": "stop", "step": 7}),
        (
            '{"kind": "train", "step": 7, "images": 4, "lr": "x", "losses": {"l1": NaN}}',
            {"kind": "train", "step": 7, "images": 4, "losses": {"l1": None}},
        ),
    ],
)
def test_values_of_another_type_are_left_out(text: str, expected: dict[str, Any] | None) -> None:
    assert parse_journal_line(text.encode()) == expected


def test_scores_of_another_type_are_left_out(tmp_path: Path) -> None:
    scores = {"step": 3, "ema": "yes", "metrics": {"l1": {"grey": None}}, "intervals": {"l1": 3}}
    evaluation_file(tmp_path).write_text(json.dumps(scores))
    assert read_evaluation(tmp_path) == {"step": 3, "metrics": {"l1": {"grey": None}}}

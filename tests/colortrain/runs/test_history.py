"""Reading a run's journal and other JSON files, also incomplete and missing ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colortrain.runs.history import last_scores, read_document, read_journal, read_lines
from colortrain.runs.layout import journal_file


def write(run: Path, *lines: dict[str, Any], end: str = "") -> None:
    journal_file(run).write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def test_the_incomplete_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    lines = [{"kind": "train", "step": 1}, {"kind": "validation", "step": 1}]
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
        {"kind": "validation", "step": 1, "metrics": first},
        {"kind": "validation", "step": 2, "metrics": last},
        {"kind": "train", "step": 3},
    )
    assert last_scores(tmp_path) == {"psnr": 19.5, "grey l1": 0.25}

"""The journal: lines and warnings in metrics.jsonl, also of resumed runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest

from colortrain.recipes import get_recipe
from colortrain.training.journal import Journal
from tests.support.fake_accelerator import FakeAccelerator, start_journal


def scores(ratio: float) -> dict[str, Any]:
    return {"metrics": {"colourfulness_ratio": {"generated": ratio}}}


def read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_warning_is_one_line_on_stderr_and_one_in_metrics_jsonl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = start_journal(tmp_path, FakeAccelerator())
    for step in range(1, 6):
        journal.write("validation", step, scores(0.3))
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("warning: step 3: colourfulness has been below 0.6")
    lines = read(tmp_path)
    others = [line for line in lines if line["kind"] != "validation"]
    assert [(line["kind"], line["step"]) for line in others] == [("warning", 3)]
    assert lines[3]["about"] == "sepia"
    # after a restart, a warning that still applies is not given again
    resumed = start_journal(tmp_path, FakeAccelerator(), step=4)
    resumed.write("validation", 5, scores(0.3))
    assert capsys.readouterr().err == ""


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = start_journal(tmp_path, FakeAccelerator(main=False))
    for step in range(1, 6):
        journal.write("validation", step, scores(0.3))
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_resumed_run_drops_later_and_incomplete_lines(tmp_path: Path) -> None:
    journal = start_journal(tmp_path, FakeAccelerator())
    for step in range(1, 6):
        journal.write("train", step, {"images": 4 * step, "losses": {"l1": 0.5}})
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "train", "st')
    start_journal(tmp_path, FakeAccelerator(), step=3)
    assert [line["step"] for line in read(tmp_path)] == [1, 2, 3]


def test_a_run_that_repeats_a_validation_drops_what_it_logged(tmp_path: Path) -> None:
    """The third validation warned; the run was killed after it."""
    journal = start_journal(tmp_path, FakeAccelerator())
    for step in range(1, 4):
        journal.write("train", step, {"images": 4 * step, "losses": {"l1": 0.5}})
        journal.write("checkpoint", step, {"images": 4 * step})
        if step == 3:
            journal.write("warning", step, {"about": "plateau", "text": "about the losses"})
        journal.write("validation", step, {"images": 4 * step, **scores(0.3)})
    before = read(tmp_path)
    assert [line["kind"] for line in before[-5:]] == [
        "train",
        "checkpoint",
        "warning",
        "validation",
        "warning",
    ]
    journal = Journal(tmp_path, cast(Any, FakeAccelerator()))
    journal.start(get_recipe("nampouri_unet"), 3, validation_due=True)
    assert read(tmp_path) == [*before[:-5], before[-5], before[-3]]
    journal.write("validation", 3, scores(0.3))
    assert [line["kind"] for line in read(tmp_path)[-2:]] == ["validation", "warning"]


def test_trackers_get_the_numbers_of_training_and_validation_by_path(tmp_path: Path) -> None:
    accelerator = FakeAccelerator()
    journal = start_journal(tmp_path, accelerator)
    journal.write("train", 1, {"lr": 0.1, "losses": {"l1": 0.5}, "device": "cpu"})
    journal.write("checkpoint", 1, {"bytes": 3})
    assert accelerator.logged == [({"train/lr": 0.1, "train/losses/l1": 0.5}, 1)]


def test_values_that_json_has_no_number_for_are_null(tmp_path: Path) -> None:
    start_journal(tmp_path, FakeAccelerator()).write("train", 1, {"losses": {"l1": math.inf}})
    assert read(tmp_path)[0]["losses"] == {"l1": None}

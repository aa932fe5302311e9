"""Run histories: what the report reads from a run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from launch.report.run_history import read_histories, read_history, split_sessions
from shards.errors import UserError


def test_the_history_contains_what_the_run_folder_contains(folder: Path) -> None:
    history = read_history(folder / "one", "one")
    assert (len(history.train), len(history.validation), history.images) == (6, 4, 24)
    assert [(s.first, s.last, s.end) for s in history.sessions] == [
        (0, 12, "finished"),
        (12, 24, "finished"),
    ]
    assert history.metrics == history.validation[-1]["metrics"]
    assert [step for step, _ in history.samples] == [2, 3, 4, 6]


def test_sessions_end_in_four_ways() -> None:
    def line(kind: str, images: int) -> dict[str, object]:
        return {"kind": kind, "step": images, "images": images, "time": 100.0 + images}

    lines = [
        line("start", 0),
        line("train", 4),
        line("stop", 4),
        line("start", 4),
        line("train", 8),
    ]
    lines += [line("start", 6), line("end", 9), line("start", 9)]
    sessions = split_sessions(lines)
    assert [session.end for session in sessions] == ["stopped", "killed", "finished", "open"]
    assert [(session.started, session.ended) for session in sessions[:2]] == [
        (100.0, 104.0),
        (104.0, 108.0),
    ]


@pytest.mark.parametrize(("step", "is_used"), [(5, False), (6, True), (8, True)])
def test_an_evaluation_older_than_the_last_validation_is_not_used(
    step: int, is_used: bool, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "one", tmp_path / "run")
    evaluated = {"step": step, "metrics": {"l1": {"generated": 0.5}}}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluated))
    history = read_history(tmp_path / "run", "run")
    assert history.validation[-1]["step"] == 6
    assert history.scores == (evaluated if is_used else history.validation[-1])


def test_runs_get_the_shortest_distinct_names(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "two", tmp_path / "one")
    histories = read_histories([folder / "one", tmp_path / "one"])
    assert [history.name for history in histories] == [f"{folder.name}/one", f"{tmp_path.name}/one"]
    with pytest.raises(UserError, match="given twice"):
        read_histories([folder / "one", folder / "one"])

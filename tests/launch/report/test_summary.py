"""The report's summary: durations, comparisons in words, and warnings."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from launch.report.run_history import RunHistory, read_history
from launch.report.summary import cards, duration, facts, sentences, warnings


@pytest.fixture
def history(folder: Path) -> RunHistory:
    return read_history(folder / "one", "one")


def with_scores(history: RunHistory, **metrics: dict[str, float]) -> RunHistory:
    return dataclasses.replace(history, scores={"metrics": metrics})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12, "12 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_facts_count_earlier_sessions(history: RunHistory) -> None:
    values = dict(facts(history))
    assert values["images seen"] == "24"
    assert values["processes"] == "1 on cpu"
    assert values["state"].endswith("UTC; once resumed after its end")
    twelve = dataclasses.replace(history, sessions=(history.sessions[0],) * 12)
    assert dict(facts(twelve))["state"].endswith("; 11 times resumed after its end")


def test_sentences_compare_with_the_baselines(history: RunHistory) -> None:
    l1 = {"generated": 0.09, "grey": 0.1, "median": 0.09}
    scored = with_scores(history, l1=l1, colourfulness_ratio={"generated": 0.5})
    assert sentences(scored) == [
        "L1 is 10.0 % below that of the grayscale baseline, equal to that of one median colour.",
        "The images are 0.50 times as colourful as the photographs.",
    ]
    assert sentences(with_scores(history)) == ["No held-out scores yet."]


def test_cards_show_the_baselines_and_the_paper(history: RunHistory) -> None:
    (card,) = cards(with_scores(history, l1={"generated": 0.09, "grey": 0.1, "median": 0.08}))
    assert card["value"] == "0.0900"
    assert card["references"] == "grayscale 0.1000 · median colour 0.0800 · paper 0.0917"


def test_warnings_of_the_journal_are_shown(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "one", run)
    with open(run / "metrics.jsonl", "a") as stream:
        for step in (4, 5):
            line = {
                "kind": "warning",
                "step": step,
                "images": 4,
                "about": "critic",
                "text": f"it wins {step}",
            }
            stream.write(json.dumps(line) + "\n")
    lines = warnings(read_history(run, "run"))
    assert "At step 5: it wins 5." in lines
    assert "At step 4: it wins 4." not in lines


def test_a_constant_colour_with_a_lower_l1_is_a_warning(history: RunHistory) -> None:
    worse = with_scores(history, l1={"generated": 0.1, "grey": 0.2, "median": 0.09})
    assert any("One constant colour has a lower L1" in line for line in warnings(worse))
    better = with_scores(history, l1={"generated": 0.08, "grey": 0.2, "median": 0.09})
    assert warnings(better) == []

"""The report of a benchmark as text, JSON and chart."""

from __future__ import annotations

import argparse
import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from launch.benchmark.report import Report, format_number, settings_of
from launch.benchmark.timing import Measurements
from tests.support.benchmark_reports import check_report


def test_goals_at_least_and_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("test", {})
    rates = Measurements((10.0, 12.0, 11.0))
    report.add_row("reading", "colortrain", rates, "samples/s", sample_bytes=1000)
    report.add_goal("fast", Measurements((11.0,)), 10)
    report.add_goal("slow", Measurements((11.0,)), 10, at_most=True, unit="ms")
    report.publish(tmp_path / "out" / "report.json")
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    check_report(document)
    assert [goal["met"] for goal in document["goals"]] == [True, False]
    assert document["rows"][0]["bytes_per_second"] == 11_000
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["slow", "<=", "10", "ms", "11", "ms", "11", "..", "11", "MISSED"] in lines
    assert ["fast", ">=", "10", "x", "11", "x", "11", "..", "11", "met"] in lines


@pytest.mark.parametrize(("load", "notes"), [(1.0, 0), (1.1, 1)])
def test_a_busy_machine_is_noted(load: float, notes: int) -> None:
    assert len(Report("test", {}, {"load_average": [load, 9.0, 9.0], "cores": 4}).notes) == notes


def test_numbers_have_three_significant_digits() -> None:
    numbers = [format_number(value) for value in (0.012345, 99.94, 100.4, 12345.6)]
    assert numbers == ["0.0123", "99.9", "100", "12,346"]


def test_settings_are_ready_for_json() -> None:
    settings = settings_of(argparse.Namespace(shards=Path("set"), seconds=2.0, json=None))
    assert settings == {"shards": "set", "seconds": 2.0, "json": None}


def test_a_report_is_written_and_printed_even_if_one_of_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("test", {})
    report.add_goal("größer →", Measurements((11.0,)), 10)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        report.publish(tmp_path / "file" / "report.json")
    assert "größer →" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), "ascii"))
    with pytest.raises(UnicodeEncodeError):
        report.publish(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_bytes())["goals"][0]["met"]

"""The benchmark of reading: all rows are measured, and the report is consistent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.benchmark import main
from launch.benchmark.loading import loader
from launch.benchmark.timing import Measurements
from tests.support.benchmark_reports import check_report
from tests.support.processes import run_command
from tests.support.small_shard_set import small_set


def test_all_methods_are_measured(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=16, count=20)
    argv = [
        *("loader", "--shards", shards, "--seconds", 0.04, "--rounds", 2, "--batch-size", 4),
        *("--workers", 0, 1, "--torch-threads", 1, "--sections", "cold", "reading", "floats"),
        *("--json", tmp_path / "out.json"),
    ]
    done = run_command("launch.benchmark", argv)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    check_report(document)
    rows = {(row["section"].split()[-1], row["name"]): row for row in document["rows"]}
    both = {loader.PAGE_CACHE, loader.DECODE, loader.DECODE_BATCHES, loader.FIRST_PASS}
    assert {name for section, name in rows if section == "cold"} >= both
    floats = {
        f"{name}, {workers}"
        for name in ("colortrain", "webdataset + DataLoader")
        for workers in ("0", "1")
    }
    warm = {name.split(" worker")[0] for section, name in rows if section == "warm"}
    assert warm >= both | floats | {loader.TRAINING_ORDER, loader.MEMCPY}
    later_passes = rows.pop(("warm", "later passes over the first"))
    assert later_passes["unit"] == "x"
    for row in rows.values():
        assert row["bytes_per_second"] == pytest.approx(row["value"] * 3 * 16 * 16)
    assert [goal["goal"] for goal in document["goals"]] == [20, 5]
    assert "20 of 20 samples" in done.stdout


def test_seeking_reports_time_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loader, "_NUM_SAMPLES", (32_000, 64_000))
    out = tmp_path / "out.json"
    options = ["--sections", "seek", "--scratch", str(tmp_path), "--json", str(out)]
    assert main(["loader", *options]) == 0
    document = json.loads(out.read_text())
    seeks, memory = (
        [row for row in document["rows"] if row["section"].startswith(prefix)]
        for prefix in ("Seek", "Memory")
    )
    assert [row["unit"] for row in seeks] == ["ms"] * 3 + ["MB"]
    assert len(memory) == 6
    assert len(document["goals"]) == 3
    assert list(tmp_path.iterdir()) == [out]  # nothing is left in scratch


def test_the_fastest_row_is_that_of_the_largest_median() -> None:
    rates = {
        "a, 0 workers": Measurements((1.0, 9.0, 2.0)),
        "a, 1 worker": Measurements((3.0, 3.0, 3.0)),
        "b, 0 workers": Measurements((8.0, 8.0, 8.0)),
    }
    assert loader.fastest(rates, "a") == "a, 1 worker"

"""Benchmarks: rounds in turns, ratios within a round, every row there, JSON that agrees with itself."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from launch.__main__ import main as colortrain
from launch.benchmark import BENCHMARKS, main
from launch.benchmark.loading import build, loader, seek
from launch.benchmark.loading.shard_sets import (
    cached_share,
    drop_cached,
    first_shards,
    synthetic_set,
    tars_of,
)
from launch.benchmark.machine import VERSIONS
from launch.benchmark.report import Report
from launch.benchmark.timing import Contestant, Figures, Stream, in_turns, measure
from shards.errors import UserError
from shards.read.dataset import Split
from tests.support.processes import run_command
from tests.support.small_shard_set import cut_outs, small_set


class Clock:
    """Time that passes when a stream says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def stream(self, seconds: Sequence[float]) -> Stream:
        for each in seconds:
            self.now += each
            yield 10


def check_agrees(document: dict[str, Any]) -> None:
    """Raise unless a report's figures lie between their least and greatest and its goals are judged rightly."""
    for each in [*document["rows"], *document["goals"]]:
        assert 0 < each["low"] <= each["value"] <= each["high"], each
    for goal in document["goals"]:
        assert goal["met"] == (
            goal["value"] <= goal["goal"] if goal["at_most"] else goal["value"] >= goal["goal"]
        )
    assert set(document["machine"]["versions"]) == set(VERSIONS)


def test_rates_count_what_came_in_the_time() -> None:
    clock = Clock()
    steady = Contestant("steady", lambda: clock.stream([0.5] * 9), settle=False, clock=clock)
    assert measure(steady, seconds=2) == 40 / 2
    assert measure(replace(steady, most=25), seconds=9) == 30 / 1.5


def test_settling_is_outside_the_clock() -> None:
    clock = Clock()
    slow_start = Contestant(
        "slow start", lambda: clock.stream([60, 0.5, 0.5, 0.5, 0.5]), clock=clock
    )
    assert measure(slow_start, seconds=1) == 20 / 1  # not the minute before


def test_everyone_has_a_turn_each_round() -> None:
    turns: list[str] = []

    def contestant(name: str) -> Contestant:
        clock = Clock()
        return Contestant(
            name,
            lambda: clock.stream([1]),
            settle=False,
            before=lambda: turns.append(name),
            clock=clock,
        )

    found = in_turns("turns", [contestant("a"), contestant("b")], seconds=1, rounds=3)
    assert turns == ["a", "b"] * 3
    assert found["a"].rounds == (10, 10, 10)


def test_ratios_are_taken_within_rounds() -> None:
    ratio = Figures((10.0, 40.0, 90.0)).over(Figures((1.0, 2.0, 3.0)))
    assert ratio.rounds == (10, 20, 30)
    assert (ratio.median, ratio.low, ratio.high) == (20, 10, 30)


def test_goals_at_least_and_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("test", {})
    report.add("reading", "ours", Figures((10.0, 12.0, 11.0)), "samples/s", sample_bytes=1000)
    report.judge("fast", Figures((11.0,)), 10)
    report.judge("slow", Figures((11.0,)), 10, at_most=True, unit="ms")
    report.publish(tmp_path / "out" / "report.json")
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    check_agrees(document)
    assert [goal["met"] for goal in document["goals"]] == [True, False]
    assert document["rows"][0]["bytes_per_second"] == 11_000
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split() == ["slow", "<=", "10", "ms", "11", "ms", "11", "..", "11", "MISSED"]
        for line in lines
    )


def test_loader_measures_everyone(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=16, count=20)
    words = [
        "--shards",
        shards,
        "--seconds",
        0.04,
        "--rounds",
        2,
        "--batch-size",
        4,
        "--workers",
        0,
        1,
        "--torch-threads",
        1,
    ]
    asked = [*words, "--sections", "cold", "reading", "floats", "--json", tmp_path / "out.json"]
    done = run_command("launch.benchmark", ["loader", *asked])
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    check_agrees(document)
    rows = {(row["section"].split()[-1], row["name"]): row for row in document["rows"]}
    both = {loader.PAGE_CACHE, loader.DECODE, loader.DECODE_BATCHES, loader.FIRST_PASS}
    assert {name for section, name in rows if section == "cold"} >= both
    floats = {
        f"{name}, {workers}"
        for name in ("colortrain", "webdataset + DataLoader")
        for workers in ("0", "1")
    }
    warm = {name.split(" worker")[0] for section, name in rows if section == "warm"}
    assert warm >= both | floats | {loader.OURS, loader.MEMCPY}
    later = rows.pop(("warm", "later passes over the first"))
    assert later["unit"] == "x"
    for row in rows.values():
        assert row["bytes_per_second"] == pytest.approx(row["value"] * 3 * 16 * 16)
    assert [goal["goal"] for goal in document["goals"]] == [20, 5]
    assert "20 of 20 samples" in done.stdout


def test_seeking_reports_time_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loader, "_SCALES", (32_000, 64_000))
    assert (
        main(
            [
                "loader",
                "--sections",
                "seek",
                "--scratch",
                str(tmp_path),
                "--json",
                str(tmp_path / "out.json"),
            ]
        )
        == 0
    )
    document = json.loads((tmp_path / "out.json").read_text())
    seeks, memory = (
        [row for row in document["rows"] if row["section"].startswith(word)]
        for word in ("Seek", "Memory")
    )
    assert [row["unit"] for row in seeks] == ["ms"] * 3 + ["MB"]
    assert len(memory) == 6
    assert len(document["goals"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.json"
    ]  # nothing is left in scratch


def test_synthetic_sets_are_read_and_take_no_room(tmp_path: Path) -> None:
    samples = 400_000
    wanted = seek.positions(samples, batches=3)
    synthetic_set(tmp_path, samples, wanted)
    split = Split(tmp_path)
    assert len(split) == samples
    assert (split.read(wanted)[:, 0, 0, 0] == wanted % seek.SHARD_SAMPLES % 256).all()
    index = (tmp_path / "index.npy").stat()
    assert index.st_blocks * 512 < index.st_size / 4


def test_first_shards_hold_the_same_samples(tmp_path: Path) -> None:
    split = Split(small_set(tmp_path / "set", count=12))  # shards of 5, 5 and 2
    assert first_shards(split, tmp_path / "all", most_bytes=1e9) is split
    part = first_shards(split, tmp_path / "part", most_bytes=2 * split.shards[0].bytes)
    assert len(part) == 10
    assert (part.read(range(10)) == split.read(range(10))).all()
    assert len(first_shards(split, tmp_path / "one", most_bytes=1)) == 5


def test_the_page_cache_is_looked_into(tmp_path: Path) -> None:
    tars = tars_of(Split(small_set(tmp_path / "set", count=12)))
    for tar in tars:
        tar.read_bytes()
    assert cached_share(tars) == 1
    drop_cached(tars)
    assert 0 <= cached_share(tars) <= 1  # 1 on file systems that live in memory


def test_build_is_measured_beside_a_loop(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, rgb in enumerate(cut_outs(48, 16)):
        Image.fromarray(rgb).save(tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    asked = [
        "--source",
        tmp_path / "photos",
        "--size",
        16,
        "--rounds",
        2,
        "--json",
        tmp_path / "out.json",
    ]
    done = run_command("launch.benchmark", ["build", *asked])
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    check_agrees(document)
    rows = {row["name"]: row for row in document["rows"]}
    assert set(rows) == {build.ONE, build.TWO, build.DECODE, build.LOOP}
    assert [goal["goal"] for goal in document["goals"]][:2] == [4, 1.35]
    overhead = document["goals"][
        1
    ]  # decoding alone over the build: its rounds lie between the rows' extremes
    assert rows[build.DECODE]["low"] / rows[build.ONE]["high"] <= overhead["value"]
    assert overhead["value"] <= rows[build.DECODE]["high"] / rows[build.ONE]["low"]
    assert "16 images" in done.stdout  # the broken one is nobody's


def test_the_loop_makes_what_the_build_makes(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(cut_outs(64, 1)[0]).crop((0, 0, 64, 48)).save(path)
    next(build.plain_loop([str(path)], 24, tmp_path / "loop"))
    next(build.packed([str(path)], 24, 1, tmp_path / "build"))
    stored = Split(tmp_path / "build" / "out").read([0])[0]
    lab = np.load(tmp_path / "loop" / "000000000.npy").transpose(2, 0, 1)
    error = np.abs(
        lab
        - (stored - np.array([0, 128, 128])[:, None, None]) / np.array([2.55, 1, 1])[:, None, None]
    )
    assert error.mean() < 3  # two filters of the same square


@pytest.mark.parametrize(
    ("two", "judged"), [({build.TWO: Figures((19.0,))}, [True, True, True]), ({}, [True, True])]
)
def test_two_workers_are_judged_where_they_were_measured(
    two: dict[str, Figures], judged: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "available_cores", lambda: 2)
    rates = {
        build.ONE: Figures((10.0,)),
        build.DECODE: Figures((13.0,)),
        build.LOOP: Figures((2.0,)),
        **two,
    }
    report = Report("build", {})
    build.judge(report, rates)
    assert [goal.met for goal in report.goals] == judged
    assert any("CPU time" in note for note in report.notes) == (not two)


def test_one_thread_is_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with build.one_thread():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no benchmark named; valid: loader"),
        (["lodaer"], "unknown benchmark 'lodaer'; valid, nearest first: loader"),
        (["loader"], "--shards is missing"),
        (["loader", "--shards", "nowhere"], "no folder nowhere"),
        (
            ["loader", "--sections", "reeding"],
            "unknown section 'reeding'; valid, nearest first: reading",
        ),
        (["loader", "--shards", "nowhere", "--seconds", "0"], "--seconds 0.0: give more than 0"),
        (["loader", "--shards", "nowhere", "--workers", "-1"], "--workers -1: give 0 or more"),
        (["build", "--source", "nowhere"], "no such source nowhere"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        main([*words, "--json", "out.json"] if words[1:] else words)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_ends_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "benchmark",
        "loader",
        "--shards",
        str(tmp_path / "no"),
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert colortrain(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"python -m launch.benchmark {name}" in capsys.readouterr().out.split("example:")[-1]

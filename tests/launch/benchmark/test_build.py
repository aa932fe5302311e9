"""The benchmark of building shards, and the methods that it compares."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.benchmark import build
from launch.benchmark.report import Report
from launch.benchmark.timing import Measurements
from shards.errors import UserError
from shards.read.dataset import Split
from tests.support.benchmark_reports import check_report
from tests.support.processes import run_command
from tests.support.small_shard_set import cut_outs


def test_all_methods_are_measured(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out.json"
    photos.mkdir()
    for number, rgb in enumerate(cut_outs(48, 16)):
        Image.fromarray(rgb).save(photos / f"{number}.jpg")
    (photos / "broken.jpg").write_bytes(b"not an image")
    options = ["--source", photos, "--size", 16, "--rounds", 2, "--json", out]
    done = run_command("launch.benchmark", ["build", *options])
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    check_report(document)
    rows = {row["name"]: row for row in document["rows"]}
    assert set(rows) == {build.ONE_WORKER, build.TWO_WORKERS, build.DECODE, build.LOOP}
    assert [goal["goal"] for goal in document["goals"]][:2] == [4, 1.35]
    # The ratio of any round is between the ratios of the extremes.
    overhead = document["goals"][1]["value"]
    decode, one_worker = rows[build.DECODE], rows[build.ONE_WORKER]
    assert decode["low"] / one_worker["high"] <= overhead
    assert overhead <= decode["high"] / one_worker["low"]
    assert "16 images" in done.stdout  # without the broken one


def test_the_loop_computes_what_the_build_computes(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(cut_outs(64, 1)[0]).crop((0, 0, 64, 48)).save(path)
    next(build.scikit_image_loop([str(path)], 24, tmp_path / "loop"))
    next(build.build_shards([str(path)], 24, 1, tmp_path / "build"))
    stored = Split(tmp_path / "build" / "out").read([0])[0]
    offset, scale = np.array([0, 128, 128]), np.array([2.55, 1, 1])
    built = (stored - offset[:, None, None]) / scale[:, None, None]
    lab = np.load(tmp_path / "loop" / "000000000.npy").transpose(2, 0, 1)
    assert np.abs(lab - built).mean() < 3  # the filters differ, the square is the same


@pytest.mark.parametrize(
    ("two_workers", "met"),
    [({build.TWO_WORKERS: Measurements((19.0,))}, [True, True, True]), ({}, [True, True])],
)
def test_two_workers_have_a_goal_where_they_were_measured(
    two_workers: dict[str, Measurements], met: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "available_cores", lambda: 2)
    rates = {
        build.ONE_WORKER: Measurements((10.0,)),
        build.DECODE: Measurements((13.0,)),
        build.LOOP: Measurements((2.0,)),
        **two_workers,
    }
    report = Report("build", {})
    build.add_goals(report, rates)
    assert [goal.met for goal in report.goals] == met
    assert any("CPU time" in note for note in report.notes) == (not two_workers)


def test_the_count_of_threads_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with build.one_thread():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_images_are_evenly_spaced_and_enough(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, rgb in enumerate(cut_outs(16, 17)):
        Image.fromarray(rgb).save(photos / f"{number:02d}.png")
    images = build.select_images(str(photos), 9, tmp_path / "out")
    assert [Path(image).stem for image in images] == [f"{number:02d}" for number in range(0, 17, 2)]
    with pytest.raises(UserError, match="holds 7 readable RGB or grayscale images: give at least"):
        build.select_images(str(photos), 7, tmp_path / "out")

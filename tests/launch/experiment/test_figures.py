"""The figures of an experiment: which curves are drawn, from which journals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from launch.experiment.figures import _curve, _loss_panels, _metric_panels, draw_curves, open_photos
from shards.errors import UserError
from tests.support.small_shard_set import small_set

TRAIN = {"kind": "train", "step": 1, "images": 8, "epoch": 0.5, "losses": {"l1": 0.25}}
AGAIN = {**TRAIN, "step": 2, "images": 16, "epoch": 1.0, "losses": {"l1": 0.125, "critic": None}}
SCORES = {"psnr": {"generated": 20.0, "grey": 21.0}}
VALIDATION = {"kind": "validation", "step": 2, "images": 16, "epoch": 1.0, "metrics": SCORES}
JOURNALS = {"one": [TRAIN, AGAIN, VALIDATION], "two": [{**TRAIN, "losses": {"critic": 2.0}}]}


def test_there_is_a_panel_for_each_loss_with_a_curve_for_each_network_that_has_it() -> None:
    panels = dict(_loss_panels(JOURNALS))
    assert list(panels) == ["training: critic", "training: l1"]
    epochs, values = panels["training: l1"]["one"]
    assert (epochs.tolist(), values.tolist()) == ([0.5, 1.0], [0.25, 0.125])
    assert panels["training: l1"]["two"][0].size == 0
    assert panels["training: critic"]["two"][1].tolist() == [2.0]
    assert _curve([AGAIN], "losses", "critic")[0].size == 0  # it was not finite


def test_metrics_without_validations_have_no_panel() -> None:
    panels = dict(_metric_panels(JOURNALS, ("psnr", "vgg_distance")))
    assert list(panels) == ["validation: PSNR, mean over images, dB"]
    epochs, values = panels["validation: PSNR, mean over images, dB"]["one"]
    assert (epochs.tolist(), values.tolist()) == ([1.0], [20.0])
    assert panels["validation: PSNR, mean over images, dB"]["grayscale"][1].tolist() == [21.0]


def test_curves_are_drawn_in_rows_of_three(tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in JOURNALS}
    for name, run in runs.items():
        run.mkdir()
        text = "".join(json.dumps(line) + "\n" for line in JOURNALS[name])
        (run / "metrics.jsonl").write_text(text)
    draw_curves(runs, (), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1500, 420)  # critic, l1 and psnr
        colors = {color for _, color in image.convert("RGB").getcolors(10**6) or ()}
    assert {(31, 119, 180), (255, 127, 14)} <= colors  # a line of each network


def test_photos_of_another_size_are_rejected(tmp_path: Path) -> None:
    shards = small_set(tmp_path / "set", size=32, count=4, splits=("train", "val"))
    assert open_photos(shards, 32).name == "val"
    with pytest.raises(UserError, match="has samples of 32 px, but the networks are trained at 64"):
        open_photos(shards, 64)

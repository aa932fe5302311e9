"""The networks of a table: their recipes, costs, and rows with another classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from colortrain.models.classifier import Classifier
from colortrain.runs.checkpoint import save_checkpoint
from launch.experiment import entries
from launch.experiment.entries import (
    TableEntry,
    evaluate,
    finished_rows,
    is_finished,
    make_entries,
    measured_cost,
)
from launch.experiment.feature_classifier import FeatureClassifier
from launch.experiment.options import Network, Plan, unchanged
from launch.experiment.prepare import prepare_recipe
from launch.experiment.sets import Sets
from shards.errors import UserError
from tests.launch.reproduce.cifar import make_options
from tests.support.small_run import small_run


def test_rows_have_runs_of_their_own(tmp_path: Path) -> None:
    deeper = Network(recipe="flagship", name="deeper", settings=("generator.levels=3",))
    options = make_options(tmp_path, networks=(*unchanged("flagship"), deeper))
    rows = make_entries(options, Plan(100, None, 1), 32)
    assert [(entry.recipe.seed, entry.run.name) for entry in rows] == [
        (0, "flagship-0"),
        (0, "deeper-0"),
        (1, "flagship-1"),
        (1, "deeper-1"),
    ]
    assert rows[1].name == "deeper, seed 0"


def test_costs_are_summed_over_all_starts(tmp_path: Path) -> None:
    start = {"kind": "start", "step": 0, "mixed_precision": "no", "world": 2}
    again = {**start, "mixed_precision": "bf16"}
    trained = [{"kind": "train", "step": 1, "images": 4, "seconds": each} for each in (2, 3)]
    lines = [start, trained[0], again, trained[1]]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "peak.json").write_text('{"peak_mb": 7, "peak_of": "GPU memory"}')
    assert measured_cost(tmp_path) == {
        "seconds": 5,
        "mixed_precision": ["bf16", "no"],
        "processes": [2],
        "peak_mb": 7,
        "peak_of": "GPU memory",
    }


def test_a_run_whose_last_validation_was_interrupted_is_not_finished(tmp_path: Path) -> None:
    options = make_options(tmp_path, "nazeri_gan")
    entry = make_entries(options, Plan(128, None, 1), 1000)[0]
    assert not is_finished(entry, 1000)
    for due in (True, False):
        state = {"images": 128, **({"validation_due": True} if due else {})}
        save_checkpoint(entry.run, 1, {}, entry.recipe, state)
        assert is_finished(entry, 1000) is not due


def test_rows_scored_with_another_classifier_are_returned_separately(tmp_path: Path) -> None:
    for name, digest in (("flagship-1", "new"), ("flagship-0", "new"), ("nazeri_gan-0", "old")):
        (tmp_path / name).mkdir()
        result = {"recipe": name[:-2], "network": name[:-2], "seed": int(name[-1]), "metrics": {}}
        scores = {"request": {"classifier": digest}, "result": result}
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
        (tmp_path / name / "cost.json").write_text('{"seconds": 1}')
    classifier = FeatureClassifier(Classifier(), 0.5, "new", torch.device("cpu"))
    rows, others = finished_rows(tmp_path, classifier)
    assert [(row["recipe"], row["seed"], row["seconds"]) for row in rows] == [
        ("flagship", 0, 1),
        ("flagship", 1, 1),
    ]
    assert others == ["nazeri_gan-0"]
    assert finished_rows(tmp_path, None) == ([], ["flagship-0", "flagship-1", "nazeri_gan-0"])


def test_runs_with_more_images_are_rejected(tmp_path: Path) -> None:
    options = make_options(tmp_path)
    run = tmp_path / "run"
    small_run(run, step=100)  # 100 steps of 16 images

    def entry(images: int) -> TableEntry:
        network = unchanged("nazeri_unet_l2")[0]
        return TableEntry(network, prepare_recipe(network, options, images, 1000), run)

    with pytest.raises(UserError, match="trained on 1,600 images, more than the 1,000 of this"):
        is_finished(entry(1000), 1000)
    assert not is_finished(entry(1600), 1000)  # it is of another recipe


def test_scores_are_of_the_split_and_by_the_weights_that_the_options_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[list[str]] = []
    monkeypatch.setattr(entries, "_run_process", lambda _, line: lines.append(line))
    monkeypatch.setattr(entries, "_read_result", lambda *_: {})
    options = make_options(tmp_path, scoring=("--inception", "file.pth"))
    entry = make_entries(options, Plan(1, None, 1), 8)[0]
    evaluate(entry, Sets(tmp_path, tmp_path, split="train"), 7, options)
    assert lines[0][-6:] == ["--split", "train", "--limit", "7", "--inception", "file.pth"]

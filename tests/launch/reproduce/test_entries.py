"""The networks of a table: their recipes, costs, and rows with another classifier."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from colortrain.models.classifier import Classifier
from colortrain.runs.checkpoint import save_checkpoint
from launch.reproduce.budget import FULL
from launch.reproduce.entries import (
    finished_rows,
    is_finished,
    make_entries,
    measured_cost,
)
from launch.reproduce.feature_classifier import FeatureClassifier
from launch.reproduce.options import Plan
from tests.launch.reproduce.cifar import make_options


def test_nazeris_table_has_the_published_size(tmp_path: Path) -> None:
    options = make_options(tmp_path, table="nazeri", recipes=("nazeri_gan",), base_channels=None)
    entries = make_entries(options, Plan(FULL["nazeri"], None, 1), 32)
    assert [(entry.recipe.seed, entry.run.name) for entry in entries] == [
        (0, "nazeri_gan-0"),
        (1, "nazeri_gan-1"),
    ]
    recipe = entries[0].recipe
    assert (recipe.generator.base_channels, recipe.batch_size) == (64, 128)
    assert recipe.total_images(1) == 200 * 50_000
    assert (recipe.plateau.patience, recipe.evaluate_every) == (30, 391)  # so the rates fall


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
    options = make_options(tmp_path, table="nazeri", recipes=("nazeri_gan",))
    entry = make_entries(options, Plan(128, None, 1), 32)[0]
    assert not is_finished(entry)
    for due in (True, False):
        state = {"images": 128, **({"validation_due": True} if due else {})}
        save_checkpoint(entry.run, 1, {}, entry.recipe, state)
        assert is_finished(entry) is not due


def test_rows_scored_with_another_classifier_are_returned_separately(tmp_path: Path) -> None:
    for name, digest in (("flagship-1", "new"), ("flagship-0", "new"), ("nazeri_gan-0", "old")):
        (tmp_path / name).mkdir()
        result = {"recipe": name[:-2], "seed": int(name[-1]), "metrics": {}}
        scores = {"asked": {"judge": digest}, "result": result}
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

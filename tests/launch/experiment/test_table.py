"""The table as Markdown: baselines, best values, empty cells and papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS
from launch.experiment import table


def test_every_column_is_a_registered_metric() -> None:
    assert set(table.HEADS) <= set(METRICS)


FACTS = {
    "base_channels": 4,
    "left_out": {},
    "images": 1000,
    "training_images": 1,
    "size": 32,
    "scored_images": 1,
    "scored": "val",
    "note": "",
    "metrics": [],
    "machine": {"gpus": [], "load_average": [1.0], "cpu": "c", "cores": 2, "date": "d"},
    "commit": None,
    "trained_at": [],
    "mixed_precision": [],
    "processes": [1, 4],
    "peak_of": [],
    "classifier": None,
    "other_classifiers": [],
}


def row(name: str, recipe: str = "", lacks: Sequence[str] = (), **values: float) -> dict[str, Any]:
    """Return a network's row with scores that are also those of truth and baseline."""
    metrics = {metric: {"generated": value, "grey": 9.0} for metric, value in values.items()}
    cost = {"seconds": 1, "peak_mb": 2, "parameters": 3, "differences": list(lacks)}
    return {"network": name, "recipe": recipe or name, "seed": 0, "metrics": metrics, **cost}


def test_metrics_missing_from_a_result_are_empty_cells() -> None:
    facts = {**FACTS, "classifier": "features of a classifier", "other_classifiers": ["flagship-7"]}
    results = [row("old", mae=1.0), row("new", mae=2.0, sepia=0.5)]
    lines = table.markdown(results, facts).splitlines()
    assert lines[2:10] == [
        "| network | seed | MAE | sepia | seconds | peak MB | parameters |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        "| better |  | ↓ | → truth |  |  |  |",
        "| *grayscale* |  | 9.00 | 9.000 |  |  |  |",
        "| *median colour* |  |  |  |  |  |  |",
        "| *truth* |  |  |  |  |  |  |",
        "| `old` | 0 | **1.00** |  | 1 | 2 | 3 |",
        "| `new` | 0 | 2.00 | **0.500** | 1 | 2 | 3 |",
    ]
    assert "processes per network: 1, 4; peak MB" in "\n".join(lines)
    assert lines[-1] == (
        "Not in the table, because they were scored with another classifier: flagship-7."
    )


def test_rows_name_what_they_lack_of_their_papers() -> None:
    results = [row("a", lacks=["random VGG-16"], l1=0.5), row("b", l1=0.5)]
    lines = table.markdown(results, FACTS).splitlines()
    assert "| `a` (random VGG-16) | 0 | **0.5000** | 1 | 2 | 3 |" in lines
    assert "| `b` | 0 | **0.5000** | 1 | 2 | 3 |" in lines
    assert "not their papers' systems as published" in lines[-1]
    assert "as published" not in table.markdown(results[1:], FACTS)


def test_papers_have_rows_and_their_metrics_come_first() -> None:
    results = [
        row("drouilhet_gan", mae=1.0, psnr=20.0),
        row("narrow", "drouilhet_gan", mae=1.0, psnr=21.0),
        row("valentini_cgan", mae=2.0, psnr=22.0),
    ]
    facts = {**FACTS, "metrics": ["psnr", "vgg_distance"]}
    text = table.markdown(results, facts)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0].startswith("| network | seed | PSNR | VGG distance | MAE | seconds |")
    assert [line for line in lines if "the paper's" in line] == [
        "| drouilhet_gan, the paper's table 3 |  | 19.63 | 4.2968 |  |  |  |  |"
    ]
    assert "comparable with the rows below only as far as data, size" in text
    assert "valentini_cgan: figure 5: no numbers, only curves" in text
    assert "VGG distance 4.2968; the layers and the scale of the paper's VGG are not given" in text
    assert "the paper's" not in table.markdown([row("valentini_cgan", mae=2.0)], facts)


def test_the_best_value_is_the_highest_the_lowest_or_closest_to_the_truth() -> None:
    def scores(**values: float) -> dict[str, Any]:
        return {
            "metrics": {name: {"generated": value, "truth": 0.7} for name, value in values.items()}
        }

    rows = [scores(psnr=21.0, mae=5.0, sepia=0.9), scores(psnr=23.0, mae=6.0, sepia=0.6)]
    assert [table.best_value(metric, rows) for metric in ("psnr", "mae", "sepia")] == [
        23.0,
        5.0,
        0.6,
    ]
    ratios = [
        {"metrics": {"colourfulness_ratio": {"generated": value}}} for value in (0.5, 1.2, 3.0)
    ]
    assert table.best_value("colourfulness_ratio", ratios) == 1.2


def test_a_network_that_has_diverged_is_never_the_best() -> None:
    for value in (math.nan, math.inf):
        results = [row("diverged", psnr=value, mae=value), row("good", psnr=20.0, mae=2.0)]
        lines = table.markdown(results, FACTS).splitlines()
        assert f"| `diverged` | 0 | {value} | {value} | 1 | 2 | 3 |" in lines
        assert "| `good` | 0 | **2.00** | **20.00** | 1 | 2 | 3 |" in lines
    assert "**" not in table.markdown([row("diverged", psnr=math.nan)], FACTS)


def test_scores_have_their_deviation_over_parts_of_the_images() -> None:
    spread = {"inception_score": {"generated": 1.25, "grey": 0.5}}
    results = [{**row("arun_wgan_gp", inception_score=4.0), "deviations": spread}]
    lines = table.markdown(results, FACTS).splitlines()
    assert "| `arun_wgan_gp` | 0 | **4.000 ± 1.250** | 1 | 2 | 3 |" in lines
    assert "| *grayscale* |  | 9.000 ± 0.500 |  |  |  |" in lines

"""The table as Markdown: baselines, best values, empty cells and training curves."""

from __future__ import annotations

from typing import Any

from colortrain.metrics.registry import METRICS
from launch.reproduce import table


def test_training_curves_are_a_second_table_if_there_are_any() -> None:
    point = {"images": 2560, "mae": 6.123, "accuracy_2": 10.04, "accuracy_5": 30.06}
    lines = table.curves([{"recipe": "nazeri_gan", "curve": [point]}, {"recipe": "flagship"}])
    assert lines[-1] == "| `nazeri_gan` | 2,560 | 6.12 | 10.0 | 30.1 |"
    assert table.curves([{"recipe": "flagship"}]) == []


def test_every_column_is_a_registered_metric() -> None:
    assert set(table.HEADS) <= set(METRICS)


def test_metrics_missing_from_a_result_are_empty_cells() -> None:
    def row(name: str, **values: float) -> dict[str, Any]:
        metrics = {metric: {"generated": value, "grey": 9.0} for metric, value in values.items()}
        return {
            "recipe": name,
            "seed": 0,
            "metrics": metrics,
            "seconds": 1,
            "peak_mb": 2,
            "parameters": 3,
        }

    facts = {
        "base_channels": 4,
        "left_out": {},
        "images": 1,
        "training_pictures": 1,
        "size": 32,
        "held_out_pictures": 1,
        "held_out": "val",
        "machine": {"gpus": [], "load_average": [1.0], "cpu": "c", "cores": 2, "date": "d"},
        "commit": None,
        "trained_at": [],
        "mixed_precision": [],
        "processes": [1, 4],
        "peak_of": [],
        "judge": "features of a classifier",
        "another_judges": ["flagship-7"],
    }
    lines = table.markdown(
        "cifar10", [row("old", mae=1.0), row("new", mae=2.0, sepia=0.5)], facts
    ).splitlines()
    assert "| *grayscale* |  | 9.00 | 9.000 |  |  |  |" in lines
    assert "| `old` | 0 | **1.00** |  | 1 | 2 | 3 |" in lines
    assert "| `new` | 0 | 2.00 | **0.500** | 1 | 2 | 3 |" in lines
    assert "processes per network: 1, 4; peak MB" in "\n".join(lines)
    assert lines[-1] == (
        "Not in the table, because they were scored with another classifier: flagship-7."
    )


def test_the_best_value_is_the_highest_the_lowest_or_closest_to_the_truth() -> None:
    def row(**values: float) -> dict[str, Any]:
        return {
            "metrics": {name: {"generated": value, "truth": 0.7} for name, value in values.items()}
        }

    rows = [row(psnr=21.0, mae=5.0, sepia=0.9), row(psnr=23.0, mae=6.0, sepia=0.6)]
    assert [table.best_value(metric, rows) for metric in ("psnr", "mae", "sepia")] == [
        23.0,
        5.0,
        0.6,
    ]
    ratios = [
        {"metrics": {"colourfulness_ratio": {"generated": value}}} for value in (0.5, 1.2, 3.0)
    ]
    assert table.best_value("colourfulness_ratio", ratios) == 1.2

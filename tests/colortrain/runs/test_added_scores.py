"""Metrics that are added to earlier scores of the same images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colortrain.runs.added_scores import add_scores, read_comparable
from shards.errors import UserError

FACTS: dict[str, Any] = {"step": 8, "ema": False, "samples": 19, "protocol": {"split": "val"}}


def document(metrics: dict[str, float], **protocol: Any) -> dict[str, Any]:
    return {
        **FACTS,
        "metrics": {name: {"generated": value} for name, value in metrics.items()},
        "protocol": {"split": "val", "left_out": {}, **protocol},
    }


def test_new_values_replace_old_ones_in_the_order_of_tables() -> None:
    facts = {"extractor": "SqueezeNet 1.1", "weights": "w", "resize": "none"}
    missing = {"lpips, vgg_distance": "--vgg16", "lpips_squeeze": "--squeezenet", "fid": "--inc"}
    old = document({"l1": 1, "sepia": 2, "of another version": 3}, left_out=missing)
    old["intervals"] = {"l1": {"generated": [0, 2]}}
    new = document({"lpips_squeeze": 4, "l1": 5}, extractors={"lpips_squeeze": facts})
    new["deviations"] = {"kid": {"generated": 6}}
    scores = add_scores(old, new)
    values = {name: each["generated"] for name, each in scores["metrics"].items()}
    assert list(values.items()) == [
        ("l1", 5),
        ("lpips_squeeze", 4),
        ("sepia", 2),
        ("of another version", 3),
    ]
    assert scores["intervals"] == old["intervals"]
    assert scores["deviations"] == new["deviations"]
    assert scores["protocol"]["extractors"] == {"lpips_squeeze": facts}
    assert list(scores["protocol"]["left_out"]) == ["lpips, vgg_distance", "fid"]
    assert add_scores({}, new) == new | {"metrics": {"l1": {"generated": 5}} | new["metrics"]}


def test_scores_of_the_same_images_are_read(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    assert read_comparable(path, FACTS) == {}
    path.write_text(json.dumps(document({"l1": 1}, seed=0)))
    assert read_comparable(path, FACTS) == document({"l1": 1}, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 9}, "scores of step 9, not 8"),
        ({"samples": None}, "is damaged"),
        ({"protocol": {"split": "test"}}, "scores of split test, not val"),
        ({"protocol": {}}, "scores of split None, not val"),
        ({"metrics": 1}, "is damaged"),
    ],
)
def test_other_scores_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(document({"l1": 1}) | change))
    with pytest.raises(UserError, match=message):
        read_comparable(path, FACTS)

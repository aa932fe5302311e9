"""The model card: facts of the run, scores only if they fit it, and runnable usage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import colortrain
from colortrain.inference.model_card import is_model_card, model_card
from colortrain.models.initialise import num_parameters
from colortrain.runs.history import read_document
from colortrain.runs.layout import evaluation_file, journal_file
from tests.support.small_run import small_run

SCORES: dict[str, Any] = {
    "step": 3,
    "ema": False,
    "samples": 74,
    "protocol": {"split": "val", "size": 32, "dataset_id": "feed"},
    "metrics": {
        "psnr": {"generated": 20.126, "grey": 19.0, "median": None},
        "fid": {"generated": 1.0},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    small_run(tmp_path / "run")
    return tmp_path / "run"


def card(run: Path, name: str = "old-photos") -> str:
    network = colortrain.load(run)
    return model_card(name, network, small_run(run), run)


def test_training_is_described_by_the_checkpoint(run: Path) -> None:
    text = card(run)
    network = colortrain.load(run)
    for row in (
        f"| generator | UNetConfig, {num_parameters(network.generator):,} parameters |",
        "| image size | 32 x 32 pixels |",
        f"| images seen | {network.description.images:,} (step 3) |",
        "| weights | of the last step |",
        "| dropout when colorizing | on |",
    ):
        assert row in text.splitlines()
    assert "| time |" not in text
    assert text.startswith("---\nlibrary_name: colortrain\n")
    assert "recipe `nampouri_unet` of colortrain" in text


def test_the_time_is_the_sum_over_the_journal(run: Path) -> None:
    start = {"kind": "start", "step": 0, "world": 2, "device": "cuda:0", "mixed_precision": "bf16"}
    train = {"kind": "train", "step": 1, "images": 4, "seconds": 90.0}
    journal_file(run).write_text("\n".join(map(json.dumps, [start, train, train])))
    assert "| time | 3 minutes on 2 x cuda, precision bf16 |" in card(run).splitlines()


@pytest.mark.parametrize("change", [{}, {"step": 4}, {"ema": True}])
def test_scores_are_shown_only_if_they_fit_step_and_weights(
    run: Path, change: dict[str, object]
) -> None:
    evaluation_file(run).write_text(json.dumps({**SCORES, **change}))
    assert read_document(evaluation_file(run))
    lines = card(run).splitlines()
    assert ("| PSNR, mean over images, dB ↑ | 20.13 | 19.00 |  |" in lines) is (not change)
    assert ("On 74 photographs of split `val`, 32 px, dataset `feed`:" in lines) is (not change)
    unscored = "This checkpoint has not been scored with `colortrain evaluate`."
    assert (unscored in lines) is bool(change)
    assert not any("FID" in line for line in lines)


def test_a_repository_is_downloaded_in_the_usage(run: Path) -> None:
    assert 'colortrain.load("FOLDER")' in card(run)
    assert 'colortrain.load(snapshot_download("me/old-photos"))' in card(run, "me/old-photos")
    assert "\n# me/old-photos\n" in card(run, "me/old-photos")


def test_only_its_own_cards_are_recognised(run: Path) -> None:
    assert is_model_card(card(run))
    assert not is_model_card("---\nlibrary_name: diffusers\n---\n")

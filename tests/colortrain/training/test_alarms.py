"""Warnings during training: when they are given, and that each is given once."""

from __future__ import annotations

from typing import Any

import pytest

from colortrain.losses.adversarial import BCE, LSGAN, Wasserstein
from colortrain.losses.registry import AdversarialLoss
from colortrain.recipe import Objective
from colortrain.schedule import Schedule
from colortrain.training.alarms import Alarms


def scores(ratio: float = 0.9, spots: float = 0.0) -> dict[str, Any]:
    return {
        "metrics": {
            "colourfulness_ratio": {"generated": ratio},
            "bright_spots": {"generated": spots},
        }
    }


def warnings_of(alarms: Alarms, kind: str, lines: list[dict[str, Any]]) -> list[list[str]]:
    """Return the subjects of the warnings that each line causes."""
    return [sorted(alarms.update(kind, line)) for line in lines]


def test_sepia_is_reported_after_three_validations_and_again_after_recovery() -> None:
    ratios = [0.2, 0.5, 0.7, 0.5, 0.59, 0.3, 0.2, 0.8, 0.1, 0.1, 0.1]
    alarms = Alarms(Objective())
    result = warnings_of(alarms, "validation", [scores(ratio) for ratio in ratios])
    assert result == [[], [], [], [], [], ["sepia"], [], [], [], [], ["sepia"]]


def test_dull_colours_are_expected_before_the_adversarial_loss_starts() -> None:
    """As in flagship; without any adversarial loss, as in arun, they are reported."""
    late, never = (
        Objective(adversarial_weight=Schedule(points))
        for points in (((0, 0.0), (8, 2.0)), ((0, 0.0),))
    )
    four = [scores(0.2)] * 4
    assert warnings_of(Alarms(never), "validation", four) == [[], [], ["sepia"], []]
    alarms = Alarms(late)
    assert warnings_of(alarms, "validation", four) == [[]] * 4
    alarms.update("train", {"losses": {"adversarial": 0.7}})
    assert warnings_of(alarms, "validation", four) == [[], [], ["sepia"], []]


def test_bright_spots_are_reported_when_they_double_in_three_validations() -> None:
    spots = [0.01, 0.02, 0.04, 0.3, 0.2, 0.21, 0.22, 0.3, 0.5, 0.7]
    lines = [scores(spots=percent) for percent in spots]
    result = warnings_of(Alarms(Objective()), "validation", lines)
    assert [index for index, subjects in enumerate(result) if subjects] == [3, 8]
    assert result[3] == ["bright_spots"]


def trained(real: float, fake: float, wait: float = 0.0) -> dict[str, Any]:
    return {"losses": {"score_real": real, "score_fake": fake}, "data_wait": wait}


@pytest.mark.parametrize(
    ("adversarial", "real", "fake", "wins"),
    [
        (BCE(), 4.0, -4.0, True),
        (BCE(), 4.0, -1.0, False),
        (BCE(), 1.0, -4.0, False),
        (BCE(real_label=0.8, fake_label=0.2), 1.4, -1.4, True),
        (LSGAN(), 0.99, 0.01, True),
        (LSGAN(), 0.7, 0.2, False),
        (Wasserstein(), 90.0, -90.0, False),
        (BCE(), float("nan"), -4.0, False),
        (BCE(), 9e9, -9e9, True),
    ],
)
def test_a_critic_is_reported_when_its_scores_equal_its_labels(
    adversarial: AdversarialLoss, real: float, fake: float, wins: bool
) -> None:
    alarms = Alarms(Objective(adversarial=adversarial))
    result = warnings_of(alarms, "train", [trained(real, fake)] * 12)
    assert result == [[]] * 9 + [["critic"] if wins else []] + [[]] * 2


def test_a_critic_that_fails_once_in_a_while_is_reported_once() -> None:
    won, lost = trained(4, -4), trained(0, 0)
    lines = [*[won] * 10, lost, *[won] * 12, *[lost] * 10, *[won] * 10]
    result = warnings_of(Alarms(Objective()), "train", lines)
    assert [index for index, subjects in enumerate(result) if subjects] == [9, 42]


def test_data_waiting_time_is_averaged_over_ten_lines() -> None:
    """It is 4 % in the first ten lines, then 3 %, then 6 %."""
    waits = [0.4, *[0.0] * 9, 0.3, 0.3]
    result = warnings_of(Alarms(Objective()), "train", [trained(0, 0, wait) for wait in waits])
    assert result == [[]] * 11 + [["data_wait"]]


def test_processes_that_differ_by_more_than_rounding_are_reported() -> None:
    lines = [{"difference": each} for each in (1e-6, 0.5, None, 1e-6)]
    assert warnings_of(Alarms(Objective()), "resync", lines) == [[], ["resync"], [], []]

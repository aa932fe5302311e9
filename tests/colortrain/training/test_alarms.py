"""Warnings along a training: said when a trouble lasts, once, and again only after it was over."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from colortrain.losses.adversarial import BCE, LSGAN, Adversarial, Wasserstein
from colortrain.recipe import Objective
from colortrain.recipes import get_recipe
from colortrain.schedule import Schedule
from colortrain.training.alarms import Alarms
from colortrain.training.journal import Journal
from colortrain.training.trackers import known_names


def scores(ratio: float = 0.9, spots: float = 0.0) -> dict[str, Any]:
    return {
        "metrics": {
            "colourfulness_ratio": {"generated": ratio},
            "bright_spots": {"generated": spots},
        }
    }


def said(alarms: Alarms, kind: str, lines: list[dict[str, Any]]) -> list[list[str]]:
    """What each line brings up."""
    return [sorted(alarms.see(kind, line)) for line in lines]


def test_sepia_is_told_after_three_validations_and_again_after_it_was_over() -> None:
    ratios = [0.2, 0.5, 0.7, 0.5, 0.59, 0.3, 0.2, 0.8, 0.1, 0.1, 0.1]
    found = said(Alarms(Objective()), "validation", [scores(ratio) for ratio in ratios])
    assert found == [[], [], [], [], [], ["sepia"], [], [], [], [], ["sepia"]]


def test_a_recipe_is_dull_by_design_until_its_game_begins() -> None:
    """As flagship's and arun's: nothing is said before the adversarial term counts, or where it always will be 0."""
    late, never = (
        Objective(adversarial_weight=Schedule(points))
        for points in (((0, 0.0), (8, 2.0)), ((0, 0.0),))
    )
    assert said(Alarms(never), "validation", [scores(0.2)] * 4) == [[], [], ["sepia"], []]
    alarms = Alarms(late)
    assert said(alarms, "validation", [scores(0.2)] * 4) == [[]] * 4
    alarms.see("train", {"losses": {"adversarial": 0.7}})
    assert said(alarms, "validation", [scores(0.2)] * 4) == [[], [], ["sepia"], []]


def test_bright_spots_are_told_when_they_double_in_three_validations() -> None:
    spots = [0.01, 0.02, 0.04, 0.3, 0.2, 0.21, 0.22, 0.3, 0.5, 0.7]
    found = said(Alarms(Objective()), "validation", [scores(spots=share) for share in spots])
    assert [place for place, about in enumerate(found) if about] == [3, 8]
    assert found[3] == ["bright_spots"]


def trained(real: float, fake: float, wait: float = 0.0) -> dict[str, Any]:
    return {"losses": {"score_real": real, "score_fake": fake}, "data_wait": wait}


@pytest.mark.parametrize(
    ("game", "real", "fake", "wins"),
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
def test_a_critic_has_won_when_its_scores_are_its_labels(
    game: Adversarial, real: float, fake: float, wins: bool
) -> None:
    found = said(Alarms(Objective(adversarial=game)), "train", [trained(real, fake)] * 12)
    assert found == [[]] * 9 + [["critic"] if wins else []] + [[]] * 2


def test_a_critic_that_slips_now_and_then_is_told_of_once() -> None:
    won, lost = trained(4, -4), trained(0, 0)
    found = said(
        Alarms(Objective()), "train", [*[won] * 10, lost, *[won] * 12, *[lost] * 10, *[won] * 10]
    )
    assert [place for place, about in enumerate(found) if about] == [9, 42]


def test_waiting_for_data_counts_over_ten_lines() -> None:
    found = said(
        Alarms(Objective()), "train", [trained(0, 0, wait) for wait in [0.4, *[0.0] * 9, 0.3, 0.3]]
    )
    assert found == [[]] * 11 + [["data_wait"]]  # 4 % in the first ten, 3 % after it, 6 % at last


class Machine:
    """An accelerator as far as the journal looks at it."""

    def __init__(self, *trackers: Any, main: bool = True) -> None:
        self.is_main_process, self.trackers = main, list(trackers)
        self.words: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, float], int]] = []

    def init_trackers(
        self, project: str, config: dict[str, Any], init_kwargs: dict[str, Any]
    ) -> None:
        self.words, self.config = init_kwargs, config

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))


def journal(run: Path, machine: Machine, step: int = 0) -> Journal:
    written = Journal(run, machine)
    written.begin(get_recipe("nampouri_unet"), step)
    return written


def test_a_warning_is_one_line_on_stderr_and_one_in_the_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = journal(tmp_path, Machine())
    for step in range(1, 6):
        book.write("validation", step, scores(0.3))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("warning: step 3: colourfulness has been below 0.6")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines if line["kind"] != "validation"] == [
        ("warning", 3)
    ]
    assert lines[3]["about"] == "sepia"
    again = journal(
        tmp_path, Machine(), step=4
    )  # it was told before the restart, and it still lasts
    again.write("validation", 5, scores(0.3))
    assert capsys.readouterr().err == ""


def test_other_ranks_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = journal(tmp_path, Machine(main=False))
    for step in range(1, 6):
        book.write("validation", step, scores(0.3))
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_resumed_run_stays_one_run_of_its_trackers(tmp_path: Path) -> None:
    run = tmp_path / "first"
    wandb = SimpleNamespace(name="wandb", run=SimpleNamespace(id="abc"))
    mlflow = SimpleNamespace(
        name="mlflow", active_run=SimpleNamespace(info=SimpleNamespace(run_id="def"))
    )
    first, second = Machine(wandb, mlflow), Machine(wandb, mlflow)
    journal(run, first)
    assert first.words["mlflow"] == {"run_name": "first"}
    assert known_names(run) == {"wandb": "abc", "mlflow": "def"}
    journal(run, second, step=7)
    assert second.words["mlflow"] == {"run_id": "def"}
    assert second.words["wandb"] == {
        "id": "abc",
        "resume": "allow",
        "name": "first",
        "dir": str(run),
    }
    assert second.words["tensorboard"] == {"purge_step": 8}
    assert "epochs" in first.config
    assert (
        "epochs" not in second.config
    )  # may change when a run goes on, and MLflow admits no other value


def test_sample_grids_go_to_every_tracker_that_takes_pictures(tmp_path: Path) -> None:
    shown: list[tuple[Any, ...]] = []
    writer = SimpleNamespace(
        add_image=lambda name, picture, step, dataformats: shown.append((name, step, dataformats))
    )
    trackers = [
        SimpleNamespace(name="tensorboard", writer=writer),
        SimpleNamespace(
            name="wandb",
            run=SimpleNamespace(id="a"),
            log_images=lambda values, step: shown.append((list(values), step)),
        ),
        SimpleNamespace(
            name="mlflow",
            active_run=SimpleNamespace(info=SimpleNamespace(run_id="b")),
            log_artifact=lambda path, folder: shown.append((Path(path).name, folder)),
        ),
    ]
    journal(tmp_path, Machine(*trackers)).picture("samples", 5, np.zeros((4, 4, 3), np.uint8))
    assert shown == [("samples", 5, "HWC"), (["samples"], 5), ("step-000000005.png", "samples")]

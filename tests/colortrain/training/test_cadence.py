"""When a run validates and saves: its fraction of the time, what is not skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from colortrain.recipe import Recipe, override
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import load_tensors
from colortrain.runs.folder import open_data
from colortrain.runs.history import read_journal
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from colortrain.training.cadence import (
    Cadence,
    Due,
    Overhead,
    PacedTask,
    divided,
    with_shorter_intervals,
)
from colortrain.training.trainer import Trainer
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set

ALMOST_NONE = Overhead(validation=1e-9, saving=1e-9)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def simulate(every: int, limit: float, step: float, cost: float, steps: int) -> tuple[int, float]:
    """Return how often a task runs, and the fraction of the time that it takes."""
    clock = Clock()
    task, times = PacedTask(every, limit, clock), 0
    for number in range(1, steps + 1):
        clock.seconds += step
        if task.is_due(number) and task.fits():
            with task.timed():
                clock.seconds += cost
            times += 1
    return times, times * cost / clock.seconds


@pytest.mark.parametrize(
    ("limit", "step", "cost", "times"),
    [
        (0.025, 0.007, 30, 3),  # a GPU: validation takes nine times as long as 500 steps
        (0.025, 0.007, 0.05, 400),  # it takes 1.4 %
        (0.025, 1, 30, 133),  # a CPU: 6 %, so that every third one takes place
        (1, 0.007, 30, 400),
    ],
)
def test_a_task_takes_at_most_its_fraction_of_the_time(
    limit: float, step: float, cost: float, times: int
) -> None:
    """In 200,000 steps. The first time comes in addition: its cost is not known."""
    counted, fraction = simulate(500, limit, step, cost, 200_000)
    assert counted == pytest.approx(times, abs=1)
    assert fraction <= limit + cost / (200_000 * step)


def make_cadence(overhead: Overhead, *changes: str, accelerator: Any = None) -> Cadence:
    fields = ["evaluate_every=4", "checkpoint_every=2", *changes]
    recipe = override(get_recipe("nampouri_unet"), fields)
    return Cadence(recipe, overhead, accelerator or Accelerator(cpu=True))


def run_tasks(cadence: Cadence, steps: int) -> list[Due]:
    """Return what is due at each step, for tasks that take one second."""
    clock = Clock()
    for task in cadence.tasks.values():
        task.clock, task.ended = clock, 0
    dues = []
    for step in range(1, steps + 1):
        dues.append(due := cadence.due(step, last=step == steps))
        for runs, task in ((due.validate, cadence.validation), (due.save, cadence.saving)):
            if runs:
                with task.timed():
                    clock.seconds += 1
    return dues


def chosen(dues: list[Due]) -> tuple[list[int], list[int]]:
    """Return the steps that validate, and those that save."""
    steps = [(step, due) for step, due in enumerate(dues, 1)]
    return [s for s, due in steps if due.validate], [s for s, due in steps if due.save]


def test_without_limits_everything_scheduled_takes_place() -> None:
    dues = run_tasks(make_cadence(Overhead()), 9)
    assert chosen(dues) == ([4, 8, 9], [2, 4, 6, 8, 9])
    assert [step for step, due in enumerate(dues, 1) if due.scheduled] == [2, 4, 6, 8, 9]


def test_only_the_first_and_the_last_time_do_not_depend_on_the_limit() -> None:
    cadence = make_cadence(ALMOST_NONE)
    dues = run_tasks(cadence, 13)
    assert chosen(dues) == ([4, 13], [2, 13])
    # what is skipped is scheduled nevertheless
    assert [step for step, due in enumerate(dues, 1) if due.scheduled] == [2, 4, 6, 8, 10, 12, 13]


@pytest.mark.parametrize("rule", ["plateau.patience=3", "keep_best=l1"])
def test_validation_is_exact_if_the_result_depends_on_it(rule: str) -> None:
    cadence = make_cadence(ALMOST_NONE, rule)
    assert chosen(run_tasks(cadence, 9)) == ([4, 8, 9], [2, 9])
    assert f"validates every 4 steps exactly, because {rule[:6]}" in cadence.describe(True)


def test_checkpoints_that_are_kept_are_never_skipped() -> None:
    assert chosen(run_tasks(make_cadence(ALMOST_NONE, "keep_every=4"), 9))[1] == [2, 4, 8, 9]


def test_rank_0_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """This rank's clock lets it validate and save, that of rank 0 only save."""

    class OneOfTwo:
        num_processes, device = 2, torch.device("cpu")

    sent = []

    def broadcast(flags: torch.Tensor, source: int) -> None:
        sent.append((flags.tolist(), source))
        flags.copy_(torch.tensor([0, 1]))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    cadence = make_cadence(divided(0.05), accelerator=OneOfTwo())
    assert cadence.due(4, last=False) == Due(scheduled=True, validate=False, save=True)
    assert sent == [([1, 1], 0)]
    assert (cadence.validation.skipped, cadence.saving.skipped) == (1, 0)
    # where no time is needed to decide, the ranks exchange nothing
    assert cadence.due(5, last=False) == Due(scheduled=False, validate=False, save=False)
    assert cadence.due(8, last=True) == Due(scheduled=True, validate=True, save=True)
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ([], set(), (180, 180)),
        (["evaluate_every=100"], set(), (100, 180)),
        ([], {"evaluate_every", "seed"}, (2500, 180)),
        (["plateau.patience=2"], set(), (2500, 180)),
        (["keep_every=5000"], set(), (180, 2500)),
        (["images=24"], set(), (1, 1)),
    ],
)
def test_a_short_run_validates_and_saves_ten_times(
    changes: list[str], given: set[str], expected: tuple[int, int]
) -> None:
    """Intervals of 2,500 steps in a run of 1,800 steps."""
    fields = ["batch_size=8", "images=14400", "evaluate_every=2500", "checkpoint_every=2500"]
    recipe = override(get_recipe("flagship"), [*fields, *changes])
    shorter = with_shorter_intervals(recipe, 50_000, given)
    assert (shorter.evaluate_every, shorter.checkpoint_every) == expected
    assert shorter.digest == recipe.digest  # runs of both are the same run


def make_trainer(shards: Path, run: Path, overhead: Overhead | None, *changes: str) -> Trainer:
    fields = ["evaluate_every=2", "checkpoint_every=2", "keep_checkpoints=9", *changes]
    recipe: Recipe = override(scaled(get_recipe("nampouri_unet"), steps=8), fields)
    accelerator = Accelerator(cpu=True)
    return Trainer(recipe, open_data(shards, recipe), run, accelerator, overhead=overhead)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("set"), size=32, count=16, splits=("train", "val"))


def skipped_tasks(run: Path) -> list[tuple[int, str, int]]:
    """Return step, task and number of times of each "skipped" line."""
    lines = read_journal(run, "skipped")
    return [(line["step"], line["task"], line["times"]) for line in lines]


def test_skipping_changes_no_weight_and_is_logged(shards: Path, tmp_path: Path) -> None:
    for name, overhead in (("exact", None), ("paced", ALMOST_NONE)):
        assert make_trainer(shards, tmp_path / name, overhead).train()
    exact, paced = tmp_path / "exact", tmp_path / "paced"
    assert checkpoint_steps(exact) == [2, 4, 6, 8]
    assert checkpoint_steps(paced) == [2, 8]
    assert [line["step"] for line in read_journal(paced, "validation")] == [2, 8]
    for part in ("generator", "generator_adam", "critic", "critic_adam"):
        one, other = (load_tensors(checkpoint_folder(run, 8), part) for run in (exact, paced))
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert skipped_tasks(paced) == [(8, "validation", 2), (8, "saving", 2)]
    assert skipped_tasks(exact) == []
    (start,) = read_journal(paced, "start")
    assert start["overhead"] == {"validation": 1e-9, "saving": 1e-9}


def test_a_stop_saves_a_step_whose_checkpoint_was_skipped(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    trainer = make_trainer(shards, run, ALMOST_NONE)
    flag = "colortrain.training.preemption.stop_requested"
    monkeypatch.setattr(flag, lambda: trainer.step == 4)
    assert not trainer.train()
    assert checkpoint_steps(run) == [2, 4]
    assert skipped_tasks(run) == [(4, "saving", 1), (4, "validation", 1)]


def test_a_start_says_where_and_how_often(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    make_trainer(shards, run, divided(0.05)).train()
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{run}: no checkpoint yet, starting at step 0 of 8; "
        "validates every 2 steps (at most 2.5 % of the time), "
        "saves every 2 steps (at most 2.5 % of the time)"
    )
    make_trainer(shards, run, None, "images=48").train()
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{run}: resuming from step 8 of 12; validates every 2 steps, saves every 2 steps"
    )

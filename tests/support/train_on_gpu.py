r"""Train scaled-down recipes on GPU stand-ins, and list what made the host wait.

    python -m tests.support.gpu_stand_in \
        python -m tests.support.train_on_gpu REQUEST.json

Each case of the request (`Case`) trains, is stopped by a signal, resumes in a new
trainer and trains to its end, in OUT/<name of the case>. OUT/events-RANK.json has the
number of events of each kind and place, by case.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.lab import Batch
from colortrain.recipe import Recipe
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.preemption import handling_signals
from colortrain.training.trainer import Trainer
from launch.processes import exit_process
from tests.support.gpu_stand_in import events
from tests.support.scaled_recipes import scaled

STOP_AT = 1  # the step in which the last rank gets a stop request


@dataclass(frozen=True)
class Case:
    """A run: its recipe, precision, compute options, and a fault in each of its steps.

    `fault` is one of `FAULTS`.
    """

    recipe: str
    precision: str = "no"
    compute: dict[str, Any] = field(default_factory=dict)
    fault: str = ""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return "-".join([self.recipe, self.precision, *self.compute, *self.fault.split()])


def write_request(folder: Path, shards: Path, cases: Sequence[Case]) -> Path:
    """Write the request to train `cases` in `folder`; return the path of its file."""
    request = {"out": str(folder), "shards": str(shards), "cases": [asdict(c) for c in cases]}
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    return path


def _wait(batch: Batch) -> None:
    batch.L.mean().item()


def _mix_devices(batch: Batch) -> None:
    batch.L @ torch.ones(batch.L.shape[-1], 1)


def _copy_unpinned(batch: Batch) -> None:
    torch.ones(3).to(batch.L.device, non_blocking=True)


FAULTS: dict[str, Callable[[Batch], None]] = {
    "": lambda batch: None,
    "wait": _wait,
    "mix devices": _mix_devices,
    "copy unpinned": _copy_unpinned,
}


def recipe_of(name: str) -> Recipe:
    """Return the scaled-down recipe: four updates of both networks, all tasks due."""
    recipe = scaled(get_recipe(name))
    cycle = max(recipe.n_critic, recipe.n_generator)
    return dataclasses.replace(
        recipe,
        images=recipe.batch_size * 4 * cycle,
        log_every=2,
        checkpoint_every=4 * cycle,
        evaluate_every=4 * cycle,
    )


def stopping_trainer(fault: str) -> type[Trainer]:
    """Return a trainer that gets a stop request and has a fault in each step."""

    class StoppingTrainer(Trainer):
        def take_step(self, batch: Batch) -> None:
            if self.step == STOP_AT and self.accelerator.is_last_process:
                os.kill(os.getpid(), signal.SIGUSR2)
            FAULTS[fault](batch)
            super().take_step(batch)

    return StoppingTrainer


def train(kind: type[Trainer], case: Case, shards: Path, run: Path) -> bool:
    """Start or resume a run; return whether it was completed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    recipe = recipe_of(case.recipe)
    accelerator = make_accelerator(mixed_precision=case.precision)
    assert accelerator.device.type == "cuda"
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    compute = ComputeConfig(**case.compute)
    data = open_data([str(shards)], recipe)
    with handling_signals():
        return kind(recipe, data, run, accelerator, compute=compute).train()


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Yield a counter of the events inside the block, as "phase | what | where"."""
    counter: Counter[str] = Counter()
    with events.recorded() as found:
        yield counter
    counter.update(f"{phase(event)} | {event.what} | {''.join(event.stack[:1])}" for event in found)


def phase(event: events.Event) -> str:
    """Return which part of training an event belongs to.

    It is "step" for all that happens in every step, "log" for the steps that log, and
    "other" for starting, validating and saving.
    """
    functions = {name.partition(":")[2] for name in event.stack}
    if "_log" in functions:
        return "log"
    in_every_step = "_loop" in functions and not functions & {"_run_due_tasks", "_save_early"}
    return "step" if in_every_step else "other"


def train_and_resume(case: Case, shards: Path, run: Path) -> Counter[str]:
    """Train, stop and resume a recipe; return the events, or the error of a fault."""
    with counted() as counter:
        try:
            assert not train(stopping_trainer(case.fault), case, shards, run)
        except RuntimeError as error:
            if not case.fault:
                raise
            return Counter([str(error)])
        assert train(Trainer, case, shards, run)
    return counter


def main() -> None:
    """Train all cases of the request, and write the events."""
    request = json.loads(Path(sys.argv[1]).read_text())
    out, shards = Path(request["out"]), Path(request["shards"])
    warnings.simplefilter("ignore")
    result = {}
    # Each run ends by destroying its process group. A launch can create a group only
    # once, so the runs share it.
    with patch("torch.distributed.destroy_process_group"):
        for case in (Case(**fields) for fields in request["cases"]):
            result[case.name] = train_and_resume(case, shards, out / case.name)
    rank = os.environ.get("RANK", "0")
    (out / f"events-{rank}.json").write_text(json.dumps(result, indent=1))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
    exit_process(0)  # a normal shutdown of gloo aborts sometimes

"""Checks of what runs on GPU stand-ins did, from the events that they recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from colortrain.runs.checkpoint import load_tensors
from colortrain.runs.layout import checkpoint_folder
from tests.support.train_on_gpu import STOP_AT, Case, recipe_of

Events = Mapping[str, int]  # by "phase | what | where"
NUM_STARTS = 2  # of each run

# Steps that log read the losses, the gradient norms and the counts of skipped updates.
_MEAN_LOSSES = "colortrain/training/train_metrics.py:_mean_losses"
_WAITS_OF_LOGGING = {
    _MEAN_LOSSES: 1,
    "colortrain/distributed/trainable.py:mean_grad_norm": 2,
    "colortrain/distributed/trainable.py:read": 4,
}
# DDP rebuilds its buckets once, in the first forward pass after a backward pass; for
# that the ranks exchange two lists of indices, for each network.
_DDP_FORWARD = "colortrain/distributed/trainable.py:__call__"
_COPIES_OF_DDP = 2 * 2


def events_of(folder: Path, case: Case, rank: int = 0) -> Events:
    """Return the events of a run."""
    document: dict[str, dict[str, int]] = json.loads((folder / f"events-{rank}.json").read_text())
    return document[case.name]


def split(events: Events, phase: str) -> dict[tuple[str, str], int]:
    """Return the events of a phase: (what, where) -> number."""
    parts = {tuple(key.split(" | ")): count for key, count in events.items()}
    return {(what, where): count for (kind, what, where), count in parts.items() if kind == phase}


def check_steps(events: Events) -> None:
    """Raise AssertionError if a step waited or copied memory that is not pinned."""
    steps = split(events, "step")
    assert sum(count for (what, _), count in steps.items() if what == "copy to device, pinned")
    for (what, where), count in steps.items():
        if what.startswith("wait") or what.endswith("unpinned"):
            allowed = NUM_STARTS * _COPIES_OF_DDP if where == _DDP_FORWARD else 0
            assert count <= allowed, (what, where)
    waits: Counter[str] = Counter()
    for (what, where), count in split(events, "log").items():
        if what.startswith("wait"):
            waits[where] += count
    assert waits[_MEAN_LOSSES]
    for where, count in waits.items():
        assert count <= _WAITS_OF_LOGGING.get(where, 0) * waits[_MEAN_LOSSES], where


def check_run(folder: Path, case: Case) -> None:
    """Raise AssertionError unless a run stopped, resumed and ended, all finite."""
    run, recipe = folder / case.name, recipe_of(case.recipe)
    journal = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    starts = [entry["step"] for entry in journal if entry["kind"] == "start"]
    assert len(starts) == NUM_STARTS
    # Several ranks agree on a stop at the next step boundary.
    assert starts[0] == 0
    assert starts[1] in (STOP_AT + 1, STOP_AT + 2)
    last = -(-(recipe.images or 0) // recipe.batch_size)
    for part in ("generator", "critic")[: 1 + (recipe.critic is not None)]:
        tensors = load_tensors(checkpoint_folder(run, last), part)
        assert all(tensor.isfinite().all() for tensor in tensors.values())

"""Choose the checkpoint from which all ranks of a run resume."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from colortrain.distributed.from_rank_0 import on_rank_0
from colortrain.runs.checkpoint import latest_checkpoint, restore_replaced
from colortrain.runs.layout import checkpoint_folder, checkpoint_steps, step_of
from shards.errors import UserError

# A client of NFS may show a folder as it was up to 60 s ago, with default options.
_MAX_WAIT = 120.0  # seconds
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class _Choice:
    """What rank 0 sends to the other ranks."""

    step: int | None = None  # None: there is no checkpoint
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of each file in its folder


def choose_checkpoint(run: Path, accelerator: Accelerator) -> Path | None:
    """Return the newest intact checkpoint of a run, the same on all ranks.

    The result is None if there is none. Only rank 0 verifies hashes; the others wait
    until they see files of the same sizes. All ranks must call it. Raises UserError, on
    all ranks, if all checkpoints are damaged, or if the ranks see different files.
    """
    if accelerator.is_main_process:
        restore_replaced(run)
    if accelerator.num_processes == 1:
        return latest_checkpoint(run)
    newest = gather_object([(max(checkpoint_steps(run), default=0), socket.gethostname())])
    choice = on_rank_0(lambda: _choose(run, *max(newest)), accelerator)
    if choice.step is None:
        return None
    folder = checkpoint_folder(run, choice.step)
    _wait_on_all_ranks(folder, choice.sizes, accelerator.process_index)
    return folder


def _choose(run: Path, newest: int, host: str) -> _Choice:
    """Choose on rank 0; `newest` is the newest step that any rank, on `host`, found."""
    if not _wait_until(lambda: max(checkpoint_steps(run), default=0) >= newest):
        missing = checkpoint_folder(run, newest)
        raise UserError(_not_shared(f"rank 0 on {socket.gethostname()}", missing, host))
    folder = latest_checkpoint(run)
    return _Choice() if folder is None else _Choice(step_of(folder), _sizes(folder))


def _wait_on_all_ranks(folder: Path, sizes: dict[str, int], rank: int) -> None:
    """Wait until all ranks see files of these sizes in `folder`.

    Raises UserError, on all ranks, if they do not within two minutes.
    """
    name = f"rank {rank} on {socket.gethostname()}"
    complete = _wait_until(lambda: _sizes(folder) == sizes)
    names = gather_object([(name, complete)])
    incomplete = [each for each, seen in names if not seen]
    if incomplete:
        raise UserError(_not_shared(", ".join(incomplete), folder, names[0][0]))


def _wait_until(condition: Callable[[], bool]) -> bool:
    """Return True as soon as the condition is true, False after `_MAX_WAIT` seconds."""
    until = time.monotonic() + _MAX_WAIT
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file in a folder; {} if there is no folder."""
    try:
        return {path.name: path.stat().st_size for path in folder.iterdir()}
    except OSError:  # the view of a network file system may be incomplete
        return {}


def _not_shared(ranks: str, folder: Path, other: str) -> str:
    return (
        f"{ranks}: {folder} is missing or incomplete, but it is complete on {other}; "
        "--run must be a folder on a file system that all machines share"
    )

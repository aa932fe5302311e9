"""Rank 0 chooses the checkpoint to resume from; the others wait until they see it.

One rank runs here; what the others send is fixed.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colortrain.distributed import from_rank_0, resume
from colortrain.distributed.resume import choose_checkpoint
from colortrain.runs import checkpoint
from colortrain.runs.layout import checkpoint_folder, checkpoints_folder
from shards.errors import UserError
from tests.support.small_run import small_run


def accelerator(rank: int, world: int = 2) -> Any:
    return SimpleNamespace(is_main_process=rank == 0, process_index=rank, num_processes=world)


class OtherRank:
    """Stands in for accelerate's collective operations: the other rank of two."""

    def __init__(self, rank: int, gathered: list[Any]) -> None:
        self.rank, self.gathered = rank, list(gathered)
        self.sent: list[Any] = []  # by rank 0

    def gather_object(self, own: list[Any]) -> list[Any]:
        """Return this rank's object and the next one of the other rank, in order."""
        other = [self.gathered.pop(0)]
        return other + own if self.rank == 0 else own + other

    def broadcast_object_list(self, own: list[Any]) -> list[Any]:
        """Return what rank 0 sends."""
        if self.rank == 1:
            self.sent = own
        return self.sent


def connect(monkeypatch: pytest.MonkeyPatch, other: OtherRank, max_wait: float = 20.0) -> OtherRank:
    monkeypatch.setattr(resume, "gather_object", other.gather_object)
    monkeypatch.setattr(from_rank_0, "broadcast_object_list", other.broadcast_object_list)
    monkeypatch.setattr(resume, "_MAX_WAIT", max_wait)
    monkeypatch.setattr(resume, "_POLL", 0.01)
    return other


def sent_by_rank_0(monkeypatch: pytest.MonkeyPatch, run: Path) -> list[Any]:
    """Return what rank 0 sends to the other ranks of a run."""
    with monkeypatch.context() as patch:
        other = connect(patch, OtherRank(1, [(0, "b"), ("rank 1 on b", True)]))
        choose_checkpoint(run, accelerator(0))
    return other.sent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 3 and 8."""
    for step in (3, 8):
        small_run(tmp_path / "run", step)
    return tmp_path / "run"


def test_one_process_takes_the_newest_checkpoint(run: Path, tmp_path: Path) -> None:
    assert choose_checkpoint(run, accelerator(0, 1)) == checkpoint_folder(run, 8)
    assert choose_checkpoint(tmp_path / "new", accelerator(0, 1)) is None


def test_a_rank_with_an_older_listing_waits_and_hashes_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = connect(monkeypatch, OtherRank(0, [(8, "a"), ("rank 0 on a", True)]))
    other.sent = sent_by_rank_0(monkeypatch, run)
    monkeypatch.setattr(checkpoint, "sha256_of", lambda path: pytest.fail(f"hashed {path}"))
    folder = checkpoint_folder(run, 8)
    hidden = folder.rename(run / "hidden")
    appears = threading.Timer(0.3, lambda: hidden.rename(folder))
    appears.start()
    started = time.monotonic()
    assert choose_checkpoint(run, accelerator(1)) == folder
    assert time.monotonic() > started + 0.2
    appears.join()


@pytest.mark.parametrize("name", ["generator.safetensors", "MANIFEST.json"])
def test_a_file_that_only_one_rank_sees_truncated_ends_all_ranks(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Rank 1 sees it truncated, rank 0 as it is."""
    sent = sent_by_rank_0(monkeypatch, run)
    message = r"rank 1 on \S+: \S+step-000000008 is missing or incomplete, but .* on rank 0 on a;"
    with monkeypatch.context() as patch:
        connect(patch, OtherRank(0, [(8, "a"), ("rank 0 on a", True)]), max_wait=0.1).sent = sent
        path = checkpoint_folder(run, 8) / name
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        with pytest.raises(UserError, match=message):
            choose_checkpoint(run, accelerator(1))
        path.write_bytes(data)
    with monkeypatch.context() as patch:
        connect(patch, OtherRank(1, [(8, "b"), ("rank 1 on b", False)]))
        with pytest.raises(UserError, match=r"rank 1 on b: .* all machines share"):
            choose_checkpoint(run, accelerator(0))


def test_rank_0_waits_for_a_newer_checkpoint_that_another_rank_sees(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, OtherRank(1, [(8, "b"), ("rank 1 on b", True)]))
    folder = checkpoint_folder(run, 8)
    hidden = folder.rename(run / "hidden")
    appears = threading.Timer(0.3, lambda: hidden.rename(folder))
    appears.start()
    assert choose_checkpoint(run, accelerator(0)) == folder
    appears.join()


def test_a_folder_that_is_not_shared_ends_all_ranks(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has the checkpoints; rank 0 has an empty folder."""
    new = tmp_path / "new"
    other = connect(monkeypatch, OtherRank(1, [(8, "b")]), max_wait=0.1)
    message = r"rank 0 on \S+: \S+step-000000008 is missing or incomplete, but .* on b; --run must"
    with pytest.raises(UserError, match=message):
        choose_checkpoint(new, accelerator(0))
    connect(monkeypatch, OtherRank(0, [(0, "a")])).sent = other.sent
    with pytest.raises(UserError, match=message):
        choose_checkpoint(run, accelerator(1))


@pytest.mark.filterwarnings("ignore:.* is damaged")
def test_all_ranks_know_that_all_checkpoints_are_damaged(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (3, 8):
        (checkpoint_folder(run, step) / "critic.safetensors").unlink()
    other = connect(monkeypatch, OtherRank(1, [(8, "b")]))
    with pytest.raises(UserError, match="all checkpoints are damaged"):
        choose_checkpoint(run, accelerator(0))
    connect(monkeypatch, OtherRank(0, [(8, "a")])).sent = other.sent
    with pytest.raises(UserError, match="all checkpoints are damaged"):
        choose_checkpoint(run, accelerator(1))


def test_a_checkpoint_whose_replacement_was_interrupted_is_restored(run: Path) -> None:
    folder = checkpoint_folder(run, 8)
    folder.rename(folder.with_name(f"{folder.name}.tmp-replaced"))
    assert choose_checkpoint(run, accelerator(0, 1)) == folder
    assert len(list(checkpoints_folder(run).iterdir())) == 2

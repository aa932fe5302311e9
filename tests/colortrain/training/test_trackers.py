"""Trackers: a resumed run stays the same run there, and images reach them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from colortrain.training.trackers import saved_run_ids
from tests.support.fake_accelerator import FakeAccelerator, start_journal


def test_a_resumed_run_stays_one_run_in_its_trackers(tmp_path: Path) -> None:
    run = tmp_path / "first"
    wandb = SimpleNamespace(name="wandb", run=SimpleNamespace(id="abc"))
    mlflow = SimpleNamespace(
        name="mlflow", active_run=SimpleNamespace(info=SimpleNamespace(run_id="def"))
    )
    first, second = FakeAccelerator(wandb, mlflow), FakeAccelerator(wandb, mlflow)
    start_journal(run, first)
    assert first.init_kwargs["mlflow"] == {"run_name": "first"}
    assert saved_run_ids(run) == {"wandb": "abc", "mlflow": "def"}
    start_journal(run, second, step=7)
    assert second.init_kwargs["mlflow"] == {"run_id": "def"}
    assert second.init_kwargs["wandb"] == {
        "id": "abc",
        "resume": "allow",
        "name": "first",
        "dir": str(run),
    }
    assert second.init_kwargs["tensorboard"] == {"purge_step": 8}
    # a field that may change on resume is not logged again: MLflow refuses another
    # value
    assert "epochs" in first.config
    assert "epochs" not in second.config


def test_damaged_ids_are_ignored(tmp_path: Path) -> None:
    assert saved_run_ids(tmp_path) == {}
    (tmp_path / "trackers.json").write_text("[1")
    assert saved_run_ids(tmp_path) == {}


def test_sample_grids_go_to_every_tracker_that_takes_images(tmp_path: Path) -> None:
    logged: list[tuple[Any, ...]] = []
    writer = SimpleNamespace(
        add_image=lambda name, image, step, dataformats: logged.append((name, step, dataformats))
    )
    trackers = [
        SimpleNamespace(name="tensorboard", writer=writer),
        SimpleNamespace(
            name="wandb",
            run=SimpleNamespace(id="a"),
            log_images=lambda values, step: logged.append((list(values), step)),
        ),
        SimpleNamespace(
            name="mlflow",
            active_run=SimpleNamespace(info=SimpleNamespace(run_id="b")),
            log_artifact=lambda path, folder: logged.append((Path(path).name, folder)),
        ),
    ]
    journal = start_journal(tmp_path, FakeAccelerator(*trackers))
    journal.log_image("samples", 5, np.zeros((4, 4, 3), np.uint8))
    assert logged == [
        ("samples", 5, "HWC"),
        (["samples"], 5),
        ("step-000000005.png", "samples"),
    ]

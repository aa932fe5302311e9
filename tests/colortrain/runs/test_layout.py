"""The layout of a run folder: names of steps round-trip, and torch is not imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from colortrain.runs import layout
from tests.support.processes import ROOT


@given(st.integers(0, 10**12))
def test_step_names_round_trip(step: int) -> None:
    run = Path("run")
    assert layout.step_of(layout.checkpoint_folder(run, step)) == step
    assert layout.step_of(layout.sample_file(run, step).with_suffix("")) == step


def test_other_names_are_not_steps(tmp_path: Path) -> None:
    for name in ("step-000000002", "step-10", "step-000000003.tmp-77", "step-x", "best.json"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert layout.checkpoint_steps(tmp_path) == [2, 10]
    assert layout.checkpoint_steps(tmp_path / "nothing here") == []


def test_a_checkpoint_is_written_once_it_has_its_manifest(tmp_path: Path) -> None:
    for step in (4, 8):
        layout.checkpoint_folder(tmp_path, step).mkdir(parents=True)
    (layout.checkpoint_folder(tmp_path, 4) / layout.MANIFEST).write_text("{}")
    assert layout.written_checkpoints(tmp_path) == {4: layout.checkpoint_folder(tmp_path, 4)}


def test_sample_grids_are_listed_by_step(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("step-000000100.png", "step-000000020.png", "step-1.jpg", "mine.png"):
        (tmp_path / "samples" / name).touch()
    assert layout.sample_files(tmp_path) == [
        (step, layout.sample_file(tmp_path, step)) for step in (20, 100)
    ]


def test_reading_a_run_does_not_import_torch() -> None:
    """Login nodes may not have torch: no module may import it, even indirectly."""
    code = (
        "import sys, colortrain.runs.layout, colortrain.runs.history; print('torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "False\n"), process.stderr

"""What is read from run folders, torn last lines and killed starts included; and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from colortrain.runs.history import last_scores
from slurm import code, runs, status, sweep
from tests.support.processes import ROOT


def write(run: Path, *lines: dict[str, Any], torn: str = "") -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


def start(step: int) -> dict[str, Any]:
    return {"kind": "start", "step": step, "images": 4 * step}


def train(step: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "images": 4 * step,
        "epoch": step / 10,
        "images_per_second": 2.0,
    }


def checkpoint(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
    (run / "checkpoints" / f"step-{step:09d}" / "MANIFEST.json").touch()


def test_starts_that_saved_no_step_are_counted(tmp_path: Path) -> None:
    """Three in a row, among them one that was killed before it trained; an earlier job's do not count."""
    (tmp_path / "slurm").mkdir()
    for _ in range(4):
        runs.note_start(tmp_path, "11")
    assert runs.fruitless_starts(tmp_path, "12") == 0
    runs.note_start(tmp_path, "12")
    assert runs.fruitless_starts(tmp_path, "12") == 1
    checkpoint(tmp_path, 9)
    (tmp_path / "checkpoints" / "step-000000020.tmp-1").mkdir()  # a killed save
    assert runs.fruitless_starts(tmp_path, "12") == 0
    for count in (1, 2, 3):
        runs.note_start(tmp_path, "12")
        assert runs.fruitless_starts(tmp_path, "12") == count
    checkpoint(tmp_path, 100)
    assert runs.fruitless_starts(tmp_path, "12") == 0


def test_progress_of_a_running_run(tmp_path: Path) -> None:
    write(tmp_path, start(0), train(5), start(5), train(10), torn='{"kind": "train", "st')
    (tmp_path / "recipe.json").write_text('{"images": 100, "epochs": 3.0}')
    found = runs.progress(tmp_path)
    assert (found.step, found.seen, found.images, found.starts, found.ended) == (
        10,
        40,
        100,
        2,
        False,
    )
    assert found.left == 30.0
    assert found.saved is None


def test_scores_of_a_diverged_run_are_left_out(tmp_path: Path) -> None:
    """The journal has null for NaN; the sweep's table stands, with the scores that are numbers."""
    (tmp_path / "a=1").mkdir()
    metrics = {
        "l1": {"generated": None, "grey": 0.25},
        "psnr": {"generated": 19.5, "grey": 20.0},
        "best": {},
    }
    write(tmp_path / "a=1", {"kind": "validation", "step": 5, "images": 20, "metrics": metrics})
    assert last_scores(tmp_path / "a=1") == {"psnr": 19.5, "grey l1": 0.25}
    table = sweep.table(tmp_path, {"a=1": ("a=1",)})
    assert [next(iter(column.cells)) for column in table.columns] == [
        "1",
        "no job",
        "5",
        "",
        "19.5",
        "",
        "0.25",
    ]


def test_length_in_epochs_and_the_end(tmp_path: Path) -> None:
    write(tmp_path, start(0), train(10), {"kind": "end", "step": 10, "images": 40})
    (tmp_path / "recipe.json").write_text('{"images": null, "epochs": 1.0}')
    found = runs.progress(tmp_path)
    assert (found.images, found.ended, found.left) == (40, True, None)


def test_an_empty_folder_is_a_run_that_has_not_begun(tmp_path: Path) -> None:
    assert runs.progress(tmp_path).step == 0
    assert runs.job_of(tmp_path) is None


def test_spans() -> None:
    assert [status.span(seconds) for seconds in (0, 99, 100, 5999, 9000)] == [
        "0 s",
        "99 s",
        "2 min",
        "100 min",
        "2.5 h",
    ]


def test_status_needs_no_torch() -> None:
    """A login node's Python: any import of torch would fail."""
    text = "import sys; sys.modules['torch'] = None; import slurm.status, slurm.queue, slurm.devcluster.__main__"
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True, timeout=120)


def test_the_copy_of_the_code_is_known_by_its_content(tmp_path: Path) -> None:
    one, other = code.snapshot(tmp_path), code.snapshot(tmp_path)
    assert one == other
    assert [path.name for path in tmp_path.iterdir()] == [f"code-{one.digest}"]
    assert (one.folder / "launch/accelerate/cpu.yaml").is_file()
    (one.folder / "colortrain/training/step.py").write_text("pass\n")
    assert code.digest_of(one.folder) != one.digest

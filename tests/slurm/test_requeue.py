"""Which jobs go back to the queue: the batch scripts themselves under bash, with stubs for SLURM's commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm import batch, jobs, runs
from slurm.cluster import Cluster
from slurm.code import Code
from tests.support.processes import ROOT

Script = Callable[[Path, int], list[str]]
# A letter a start: told to leave or failed, a capital if a step was saved. Then whether each goes back to the queue.
CASES = [
    ("ttt", 3, "yyn"),  # told to leave before the first save: tried again, but not for ever
    ("TTTT", 1, "yyyy"),
    ("tTtt", 2, "yyyn"),  # a save begins the count anew
    ("ftf", 3, "yyn"),
    ("FFf", 1, "yyn"),
]
STUBS = {
    "squeue": "echo RUNNING",
    "scancel": "",
    "scontrol": 'case $1 in show) echo node1 ;; requeue) [ -z "$REFUSED" ] && : >requeued ;; esac',
    "srun": 'mkdir -p "$MADE"; [ -z "$TOLD" ] || kill -USR2 $PPID; exit $STATUS',
}


def plain(folder: Path, most: int) -> list[str]:
    """slurm/train.sbatch: USR2 comes to it, and accelerate's launchers end with 1 when their processes say 75."""
    (folder / "slurm").symlink_to(ROOT / "slurm")
    return [
        "env",
        f"MAX_RESTARTS={most}",
        "bash",
        "slurm/train.sbatch",
        "--recipe",
        "any",
        "--run",
        "run",
    ]


def submitted(folder: Path, most: int) -> list[str]:
    """The script that slurm.submit sends: USR2 comes to its processes alone, whose status it sees."""
    (folder / "code").symlink_to(ROOT)
    code, run = Code(folder / "code", "1"), folder / "run"
    told = batch.parameters(
        Cluster(max_restarts=most), code, name="any", comment="", again="again", runs=[run]
    )
    (folder / "script").write_text(batch.text(Cluster(), folder, told))
    return ["bash", "script"]


def start(
    folder: Path, line: list[str], letter: str, *, refused: str = ""
) -> subprocess.CompletedProcess[str]:
    """One start of a job, in `folder`; the letters are those of `CASES`."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "requeued").unlink(missing_ok=True)
    kept, to_script = len(list(folder.glob("run/checkpoints/*"))), "script" not in line
    told = letter in "tT"
    facts = {
        "MADE": f"run/checkpoints/step-{kept + 1:09d}" if letter.isupper() else "bin",
        "TOLD": "yes" if told and to_script else "",
        "STATUS": "75" if told and not to_script else "1",
        "REFUSED": refused,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1",
    }
    env = {**os.environ, **facts}
    return subprocess.run(
        line, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("letters", "most", "decided"), CASES)
@pytest.mark.parametrize("script", [plain, submitted])
def test_scripts_requeue_until_starts_in_a_row_saved_no_step(
    tmp_path: Path, script: Script, letters: str, most: int, decided: str
) -> None:
    line = script(tmp_path, most)
    if "f" in letters.lower():  # what fails before it has begun is a mistake
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "metrics.jsonl").touch()
    for letter, back in zip(letters, decided, strict=True):
        done = start(tmp_path, line, letter)
        assert (tmp_path / "requeued").exists() == (back == "y"), done.stderr
    assert (f"{most} starts in a row saved no step" in done.stderr) == (back == "n")


@pytest.mark.parametrize(
    ("letters", "most", "decided"), [case for case in CASES if "f" not in case[0].lower()]
)
def test_processes_that_ask_slurm_themselves_decide_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters: str, most: int, decided: str
) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(jobs, "leave", leave)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "slurm").mkdir()
    training = jobs.Training((), tmp_path, jobs.Place(tmp_path, Code(tmp_path, "1")), most)
    for number, (letter, back) in enumerate(zip(letters, decided, strict=True), 1):
        runs.note_start(tmp_path, "7")
        if letter.isupper():
            (tmp_path / f"checkpoints/step-{number:09d}").mkdir(parents=True)
            (tmp_path / f"checkpoints/step-{number:09d}/MANIFEST.json").touch()
        if back == "y":
            assert training.checkpoint().function is training
        else:
            with pytest.raises(SystemExit, match="2"):
                training.checkpoint()


@pytest.mark.parametrize(("letter", "status"), [("T", 0), ("t", 1)])
def test_a_refused_requeue_is_an_end_in_order_only_if_a_step_was_saved(
    tmp_path: Path, letter: str, status: int
) -> None:
    """accelerate's launchers end with 1 both times."""
    done = start(tmp_path, plain(tmp_path, 5), letter, refused="yes")
    assert done.returncode == status
    assert "go on with: sbatch slurm/train.sbatch --recipe any --run run" in done.stdout


def test_a_run_that_fails_before_it_has_begun_is_a_mistake(tmp_path: Path) -> None:
    done = start(tmp_path, plain(tmp_path, 5), "f")
    assert done.returncode == 1
    assert not (tmp_path / "requeued").exists()

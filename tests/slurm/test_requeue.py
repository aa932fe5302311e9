"""Which jobs are requeued: the batch scripts under bash, with stubs of SLURM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm import batch
from slurm.cluster import Cluster
from slurm.code import CodeSnapshot
from tests.support.processes import ROOT
from tests.support.requeue_cases import CASES
from tests.support.slurm_commands import write_commands

Script = Callable[[Path, int], list[str]]
STUBS = {
    "squeue": "echo RUNNING",
    "scancel": "",
    "scontrol": 'case $1 in show) echo node1 ;; requeue) [ -z "$REFUSED" ] && : >requeued ;; esac',
    "srun": 'mkdir -p "$CREATE"; [ -z "$SIGNAL" ] || kill -USR2 $PPID; exit $STATUS',
}


def plain_script(folder: Path, max_restarts: int) -> list[str]:
    """Return the command of slurm/train.sbatch.

    USR2 is sent to the script itself. accelerate's launchers end with status 1 when
    their processes end with 75.
    """
    (folder / "slurm").symlink_to(ROOT / "slurm")
    return [
        "env",
        f"MAX_RESTARTS={max_restarts}",
        *("bash", "slurm/train.sbatch", "--recipe", "any", "--run", "run"),
    ]


def submitted_script(folder: Path, max_restarts: int) -> list[str]:
    """Return the command of the script that `colortrain submit` sends.

    USR2 is sent only to its processes; the script gets their exit status.
    """
    (folder / "code").symlink_to(ROOT)
    parameters = batch.job_parameters(
        Cluster(max_restarts=max_restarts),
        CodeSnapshot(folder / "code", "1"),
        name="any",
        comment="",
        resume_command="the command",
        runs=[folder / "run"],
    )
    (folder / "script").write_text(batch.script_text(Cluster(), folder, parameters))
    return ["bash", "script"]


def start(
    folder: Path, command: list[str], letter: str, *, refused: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one start of a job in `folder`; the letters are those of `CASES`."""
    write_commands(folder / "bin", STUBS)
    (folder / "requeued").unlink(missing_ok=True)
    checkpoints = len(list(folder.glob("run/checkpoints/*")))
    signals_script = "script" not in command
    signalled = letter in "sS"
    variables = {
        "CREATE": f"run/checkpoints/step-{checkpoints + 1:09d}" if letter.isupper() else "bin",
        "SIGNAL": "yes" if signalled and signals_script else "",
        "STATUS": "75" if signalled and not signals_script else "1",
        "REFUSED": refused,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1",
    }
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("letters", "max_restarts", "decisions"), CASES)
@pytest.mark.parametrize("script", [plain_script, submitted_script])
def test_scripts_requeue_until_consecutive_starts_saved_no_checkpoint(
    tmp_path: Path, script: Script, letters: str, max_restarts: int, decisions: str
) -> None:
    command = script(tmp_path, max_restarts)
    if "f" in letters.lower():  # a run that fails before it has started is a user error
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "metrics.jsonl").touch()
    for letter, requeued in zip(letters, decisions, strict=True):
        done = start(tmp_path, command, letter)
        assert (tmp_path / "requeued").exists() == (requeued == "y"), done.stderr
    gave_up = f"{max_restarts} consecutive starts saved no checkpoint (max_restarts)" in done.stderr
    assert gave_up == (requeued == "n")


@pytest.mark.parametrize(("letter", "status"), [("S", 0), ("s", 1)])
def test_a_refused_requeue_succeeds_only_if_a_checkpoint_was_saved(
    tmp_path: Path, letter: str, status: int
) -> None:
    """accelerate's launchers end with status 1 in both cases."""
    done = start(tmp_path, plain_script(tmp_path, 5), letter, refused="yes")
    assert done.returncode == status
    assert "resume with: sbatch slurm/train.sbatch --recipe any --run run" in done.stdout


def test_a_run_that_fails_before_it_has_started_is_not_requeued(tmp_path: Path) -> None:
    done = start(tmp_path, plain_script(tmp_path, 5), "f")
    assert done.returncode == 1
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("options", [["--run", "run"], ["--run=run"]])
def test_the_plain_script_finds_the_run_folder_among_its_arguments(
    tmp_path: Path, options: list[str]
) -> None:
    command = [*plain_script(tmp_path, 5)[:4], *options]
    for _ in range(2):
        start(tmp_path, command, "S")
        assert (tmp_path / "requeued").exists()
    starts = (tmp_path / "slurm-7.starts").read_text().splitlines()
    assert starts == ["the beginning", "step-000000001"]

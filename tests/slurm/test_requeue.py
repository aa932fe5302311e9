"""Which jobs are requeued: the batch scripts under bash, with stubs of SLURM."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm import batch
from slurm.cluster import Cluster
from slurm.code import CodeSnapshot, digest_of
from tests.support.processes import ROOT
from tests.support.requeue_cases import CASES
from tests.support.slurm_commands import write_commands

Script = Callable[[Path, int], list[str]]
STUBS = {
    "squeue": "echo RUNNING",
    "scancel": "",
    "scontrol": 'case $1 in show) echo node1 ;; requeue) [ -z "$REFUSED" ] && : >requeued ;; esac',
    "srun": """\
{ env; shift; printf '%s\\n' "$@"; } >srun.log
[ -z "$PERMANENT" ] || : >"$COLORTRAIN_PERMANENT_ERROR_FILE"
mkdir -p "$CREATE"; [ -z "$SIGNAL" ] || kill -USR2 $PPID; exit $STATUS""",
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
        CodeSnapshot(folder / "code", digest_of(ROOT)),
        name="any",
        comment="",
        resume_command="the command",
        runs=[folder / "run"],
    )
    (folder / "script").write_text(batch.script_text(Cluster(), folder, parameters))
    return ["bash", "script"]


def start(
    folder: Path, command: list[str], letter: str, *, refused: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one start of a job in `folder`; the letters are those of `CASES`.

    `more` are further environment variables.
    """
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
        "PERMANENT": "",
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_CPUS_ON_NODE": "16",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1",
        **more,
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


@pytest.mark.parametrize("script", [plain_script, submitted_script])
def test_an_error_that_a_restart_would_not_fix_is_not_requeued(
    tmp_path: Path, script: Script
) -> None:
    """One process ended with status 2; the status of srun is that of another."""
    command = script(tmp_path, 5)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    done = start(tmp_path, command, "F", PERMANENT="yes")
    assert done.returncode == 2
    assert not (tmp_path / "requeued").exists()
    start(tmp_path, command, "F")  # the user resubmits; another failure is requeued again
    assert (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("letter", "status"), [("S", 0), ("s", 1)])
def test_a_refused_requeue_succeeds_only_if_a_checkpoint_was_saved(
    tmp_path: Path, letter: str, status: int
) -> None:
    """accelerate's launchers end with status 1 in both cases."""
    done = start(tmp_path, plain_script(tmp_path, 5), letter, refused="yes")
    assert done.returncode == status
    resume = f"cd {tmp_path} && sbatch --nodes 1 slurm/train.sbatch --recipe any --run run"
    assert f"resume with: {resume}\n" in done.stdout


def test_a_job_whose_code_was_modified_ends_before_its_processes_start(tmp_path: Path) -> None:
    command = submitted_script(tmp_path, 5)
    script = tmp_path / "script"
    script.write_text(script.read_text().replace(digest_of(ROOT), "0" * 16))
    done = start(tmp_path, command, "S")
    assert done.returncode == 2
    assert "was modified after submission" in done.stderr
    assert not (tmp_path / "requeued").exists()
    assert not (tmp_path / "srun.log").exists()


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


@pytest.mark.parametrize(
    ("variables", "processes", "threads", "config"),
    [
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_GPU": "4"}, 8, 4, "multi_node"),
        ({"PROCESSES_PER_NODE": "32"}, 64, 1, "cpu"),
        ({"OMP_NUM_THREADS": "3"}, 2, 3, "cpu"),
    ],
)
def test_the_plain_script_shares_the_cpus_of_a_node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    processes: int,
    threads: int,
    config: str,
) -> None:
    """One task per node gets all CPUs of the node, which has 16 here."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    start(tmp_path, plain_script(tmp_path, 5), "S", SLURM_JOB_NUM_NODES="2", **variables)
    log = (tmp_path / "srun.log").read_text().splitlines()
    assert {"SRUN_CPUS_PER_TASK=16", f"OMP_NUM_THREADS={threads}"} <= set(log)
    assert not any(line.startswith("SLURM_CPUS_PER_GPU=") for line in log)
    arguments = log[log.index(f"launch/accelerate/{config}.yaml") :]
    assert arguments[1:3] == ["2", str(processes)]
    assert arguments[5:] == ["", "--recipe", "any", "--run", "run"]


def test_the_plain_script_passes_on_the_precision(tmp_path: Path) -> None:
    start(tmp_path, plain_script(tmp_path, 5), "S", ACCELERATE_MIXED_PRECISION="no")
    assert "--mixed_precision=no" in (tmp_path / "srun.log").read_text().splitlines()


def test_the_plain_script_prints_a_command_that_a_shell_understands(tmp_path: Path) -> None:
    """Arguments with blanks stay arguments, and the job gets as many GPUs again."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    command = [*plain_script(folder, 5)[:4], "--run", "a run", "--set", "a='b'"]
    gpus = {"SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NUM_NODES": "3"}
    done = start(folder, command, "s", refused="yes", **gpus)
    (resume,) = re.findall("resume with: cd (.*)", done.stdout)
    assert shlex.split(resume) == [
        *(str(folder), "&&", "sbatch", "--nodes", "3", "--gpus-per-node", "4"),
        *("slurm/train.sbatch", "--run", "a run", "--set", "a='b'"),
    ]

"""The sbatch script and the parameters of submitit that a site file becomes."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from slurm import batch
from slurm.cluster import EXAMPLES, Cluster, Container, load_cluster
from slurm.code import CodeSnapshot
from tests.support.slurm_commands import install_commands

CODE = CodeSnapshot(Path("/shared/run/slurm/code-1"), "1")


def parameters(cluster: Cluster, **more: Any) -> dict[str, Any]:
    return batch.job_parameters(
        cluster,
        CODE,
        **{
            "name": "first",
            "comment": "colortrain:/shared/run",
            "resume_command": "the command",
            **more,
        },
    )


def script(cluster: Cluster) -> list[str]:
    return batch.script_text(cluster, Path("/shared/run/slurm"), parameters(cluster)).splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_example_site_files_give_valid_scripts(path: Path) -> None:
    cluster = load_cluster(path)
    lines = script(cluster)
    assert f"#SBATCH --partition={cluster.partition}" in lines
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True, timeout=60)


def test_each_gpu_gets_a_process() -> None:
    cluster = Cluster(
        nodes=2,
        gpus=4,
        cpus=8,
        memory=1.5,
        account="vision",
        options=("--exclusive", "--nice=5"),
    )
    options = [
        line.removeprefix("#SBATCH --") for line in script(cluster) if line.startswith("#SBATCH")
    ]
    assert {
        "nodes=2",
        "ntasks-per-node=4",
        "gpus-per-node=4",
        "cpus-per-task=8",
        "mem=1536M",
        "account=vision",
        "exclusive",
        "nice=5",
        "requeue",
        "signal=USR2@120",
        "open-mode=append",
    } <= set(options)


def test_an_option_may_choose_the_type_of_the_gpus() -> None:
    lines = script(Cluster(gpus=4, options=("--gpus-per-node=a100:4",)))
    assert [line for line in lines if "gpus-per-node" in line] == ["#SBATCH --gpus-per-node=a100:4"]


def test_an_option_may_forbid_requeues() -> None:
    lines = script(Cluster(options=("--no-requeue",)))
    assert "#SBATCH --no-requeue" in lines
    assert "#SBATCH --requeue" not in lines


def test_containers_are_started_through_srun() -> None:
    container = Container(
        image="/images/a b.sqsh",
        mounts=("/data:/data", "/home:/home"),
        options=("--no-container-x",),
    )
    cluster = Cluster(container=container, python="python3")
    (line,) = (line for line in script(cluster) if line.startswith("srun"))
    assert "'--container-image=/images/a b.sqsh' --container-mounts=/data:/data,/home:/home" in line
    assert "--no-container-x sh -c " in line
    assert " python3 -u -m submitit.core._submit /shared/run/slurm" in line
    assert "--chdir=/shared/run/slurm/code-1" in line


def test_omitted_fields_are_left_to_the_site() -> None:
    text = "\n".join(script(Cluster()))
    assert not any(
        f"--{name}" in text for name in ("partition", "account", "qos", "constraint", "mem", "gpus")
    )


# Every field of Cluster with a value that is not its default, except `scratch`, which
# `JobContext` uses.
CHANGED_FIELDS: dict[str, Any] = {
    "partition": "gpu",
    "account": "vision",
    "qos": "high",
    "constraint": "a100",
    "nodes": 2,
    "gpus": 3,
    "processes": 4,
    "cpus": 5,
    "memory": 6.0,
    "minutes": 7,
    "warning": 8,
    "parallel": 9,
    "max_restarts": 10,
    "setup": ("module load cuda",),
    "python": "/opt/python",
    "options": ("--exclusive",),
    "container": Container(image="/images/a.sqsh"),
}


def test_every_field_of_a_site_file_is_used() -> None:
    """Every field changes the script of a job array, except `scratch`."""
    fields = [field.name for field in dataclasses.fields(Cluster)]
    assert fields == [name for name in fields if name in CHANGED_FIELDS or name == "scratch"]

    def array_script(cluster: Cluster) -> str:
        return batch.script_text(cluster, Path("/run/slurm"), parameters(cluster), array_size=100)

    default = array_script(Cluster())
    unused = [
        name
        for name, value in CHANGED_FIELDS.items()
        if array_script(Cluster(**{name: value})) == default
    ]
    assert unused == []


def test_each_array_task_counts_the_starts_of_its_own_run_folder() -> None:
    cluster = Cluster(max_restarts=7)
    folders = [Path("/shared/a b"), Path("/shared/c")]
    array = parameters(cluster, resume_command="cd / && it's", runs=folders)
    lines = batch.script_text(Cluster(), Path("/shared/run/slurm"), array, 2).splitlines()
    assert lines.index("run=${runs[${SLURM_ARRAY_TASK_ID:-0}]}") > lines.index(
        "runs=('/shared/a b' /shared/c)"
    )
    assert 'starts=/shared/run/slurm/starts-"$SLURM_JOB_ID"' in lines
    assert ". /shared/run/slurm/code-1/slurm/requeue.sh" in lines
    assert shlex.split(lines[-1]) == ["requeue", "$status", "$run", "$starts", "7", "cd / && it's"]


class RefusingExecutor:
    """Stands in for submitit's executor: records the environment, then sbatch fails."""

    environment: dict[str, str]

    def __init__(self, *args: object, **kwargs: object) -> None:
        RefusingExecutor.environment = dict(os.environ)

    def update_parameters(self, **parameters: object) -> None:
        pass

    def submit(self, call: object) -> None:
        raise subprocess.CalledProcessError(1, "sbatch", stderr=b"sbatch: error:\n no such qos \n")


def test_a_refusal_of_sbatch_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch gets none of an outer job's variables except SLURM_CONF."""
    monkeypatch.setattr(batch.submitit, "SlurmExecutor", RefusingExecutor)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    with pytest.raises(UserError, match=r"^sbatch refused the job: sbatch: error: no such qos$"):
        batch.submit(Cluster(), tmp_path, {}, [print])
    assert "SLURM_JOB_ID" not in RefusingExecutor.environment
    assert RefusingExecutor.environment["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_a_path_that_the_script_cannot_hold_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_commands(tmp_path, monkeypatch, {"srun": "", "sbatch": "echo Submitted 1"})
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    cluster = Cluster()
    with pytest.raises(UserError, match=r"cannot write: set LC_ALL=C.UTF-8, and give paths that"):
        batch.submit(cluster, folder, parameters(cluster), [print])

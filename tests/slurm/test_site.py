"""Site files: read, and what is wrong with them said in one line; and what becomes of them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import batch, submit
from slurm.cluster import EXAMPLES, Cluster, Container, load_cluster
from slurm.code import Code

CODE = Code(Path("/shared/run/slurm/code-1"), "1")


def script(cluster: Cluster) -> list[str]:
    told = batch.parameters(
        cluster, CODE, name="first", comment="colortrain:/shared/run", again="the command"
    )
    return batch.text(cluster, Path("/shared/run/slurm"), told).splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    cluster = load_cluster(path)
    assert f"#SBATCH --partition={cluster.partition}" in script(cluster)
    assert cluster.world == cluster.nodes * cluster.tasks > 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitoin = 'gpu'", "unknown field 'partitoin'; valid, nearest first: partition"),
        ("nodes = 'two'", "nodes: needs a whole number, got 'two'"),
        ("nodes = 0", "nodes = 0: needs at least 1"),
        ("gpus = -1", "gpus = -1: needs at least 0"),
        ("minutes = 2\nwarning = 120", "warning = 120 s is not shorter than minutes = 2"),
        ("options = ['reservation=x']", "'reservation=x' is no option of sbatch"),
        ("[container]\nmounts = []", "container: missing image"),
        ("nodes = ", "is not TOML"),
    ],
)
def test_mistakes_name_the_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_cluster(path)
    assert said in str(error.value)
    assert "site.toml" in str(error.value)


def test_the_help_names_every_field() -> None:
    said = (
        submit.parser()
        .format_help()
        .partition("A site file (TOML) has:")[2]
        .partition("example:")[0]
    )
    fields = [field.name for kind in (Cluster, Container) for field in dataclasses.fields(kind)]
    assert [name for name in fields if not re.search(rf"\b{name}\b", said)] == []


def test_a_missing_file_names_the_examples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write one after an example in"):
        load_cluster(tmp_path / "none.toml")


def test_gpus_get_a_process_each() -> None:
    lines = script(
        Cluster(
            nodes=2,
            gpus=4,
            cpus=8,
            memory=1.5,
            account="vision",
            options=("--exclusive", "--nice=5"),
        )
    )
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    wanted = {
        "ntasks-per-node=4",
        "gpus-per-node=4",
        "cpus-per-task=8",
        "mem=1536M",
        "account=vision",
        "nodes=2",
    }
    assert wanted | {
        "exclusive",
        "nice=5",
        "requeue",
        "signal=USR2@120",
        "open-mode=append",
    } <= set(asked)


def test_containers_come_through_srun() -> None:
    image = Container(
        image="/images/a b.sqsh",
        mounts=("/data:/data", "/home:/home"),
        options=("--no-container-x",),
    )
    (line,) = (
        line
        for line in script(Cluster(container=image, python="python3"))
        if line.startswith("srun")
    )
    assert "'--container-image=/images/a b.sqsh' --container-mounts=/data:/data,/home:/home" in line
    assert "--no-container-x sh -c " in line
    assert " python3 -u -m submitit.core._submit /shared/run/slurm" in line
    assert "--chdir=/shared/run/slurm/code-1" in line


def test_what_is_left_out_is_left_to_the_site() -> None:
    text = "\n".join(script(Cluster()))
    assert not any(
        f"--{word}" in text for word in ("partition", "account", "qos", "constraint", "mem", "gpus")
    )


def test_each_element_of_an_array_is_judged_by_its_own_run_folder() -> None:
    folders = [Path("/shared/a b"), Path("/shared/c")]
    told = batch.parameters(
        Cluster(max_restarts=7), CODE, name="sweep", comment="", again="cd / && it's", runs=folders
    )
    lines = batch.text(Cluster(), Path("/shared/run/slurm"), told, 2).splitlines()
    assert lines.index("run=${runs[${SLURM_ARRAY_TASK_ID:-0}]}") > lines.index(
        "runs=('/shared/a b' /shared/c)"
    )
    assert 'notes=/shared/run/slurm/starts-"$SLURM_JOB_ID"' in lines
    assert ". /shared/run/slurm/code-1/slurm/requeue.sh" in lines
    assert shlex.split(lines[-1]) == ["requeue", "$status", "$run", "$notes", "7", "cd / && it's"]

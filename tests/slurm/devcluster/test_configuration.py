"""The configuration files and client commands of a development cluster."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from slurm.devcluster import configuration
from slurm.devcluster.configuration import MARK, MAX_GPUS
from slurm.devcluster.plan import Plan
from slurm.devcluster.programs import CLIENTS


def settings(text: str) -> dict[str, str]:
    """Return the key=value lines of a slurm.conf whose keys occur once."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value for key, _, value in pairs if key}


def test_nodes_have_the_planned_size() -> None:
    plan = Plan(folder=Path("/c"), nodes=3, cpus=8, gpus=2)
    lines = configuration.slurm_conf(plan).splitlines()
    (nodes,) = (line for line in lines if line.startswith("NodeName"))
    assert nodes == (
        "NodeName=node[1-3] NodeAddr=10.77.0.[11-13] Port=6818 "
        "CPUs=8 RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
    )


def test_nodes_on_the_loopback_share_one_address() -> None:
    plan = Plan(folder=Path("/c"), nodes=3, gpus=0, base_port=12000)
    lines = configuration.slurm_conf(plan).splitlines()
    (nodes,) = (line for line in lines if line.startswith("NodeName"))
    assert nodes.startswith("NodeName=127.0.0.[11-13] NodeAddr=127.0.")
    assert " Port=[12011-12013] " in nodes
    assert "Gres" not in nodes


@pytest.mark.parametrize("accounting", [True, False])
@pytest.mark.parametrize("user_signal", [True, False])
def test_options_of_a_plan_are_settings_of_slurm(accounting: bool, user_signal: bool) -> None:
    plan = Plan(folder=Path("/c"), accounting=accounting, user_signal=user_signal)
    values = settings(configuration.slurm_conf(plan))
    storage = "slurmdbd" if accounting else "none"
    assert values["AccountingStorageType"] == f"accounting_storage/{storage}"
    assert ("SlurmctldParameters" in values) == user_signal


def test_secrets_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path, nodes=2, gpus=3)
    configuration.write_files(plan)
    for name in ("slurmdbd.conf", "database.sql", "munge.key"):
        assert stat.S_IMODE((tmp_path / "etc" / name).stat().st_mode) == 0o600
    assert len((tmp_path / "etc/munge.key").read_bytes()) == 1024
    assert (tmp_path / "etc/gres.conf").read_text().count("/dev/") == 3 < MAX_GPUS
    assert (tmp_path / "etc/hosts").read_text().splitlines() == [
        "127.0.0.1 localhost",
        "10.77.0.1 head",
        "10.77.0.11 node1",
        "10.77.0.12 node2",
    ]
    assert sorted(path.name for path in (tmp_path / "nodebin").iterdir()) == sorted(CLIENTS)
    assert list((tmp_path / "bin").iterdir()) == []  # these need the head's process id
    configuration.write_outside_wrappers(plan, 4711)
    assert "nsenter -t 4711 --net" in (tmp_path / "bin/squeue").read_text()


def test_the_environment_of_a_shell_hides_an_outer_job(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(configuration.shell_lines(Plan(folder=tmp_path)))
    script = f'. {tmp_path}/env; echo "$SLURM_JOB_ID,$SBATCH_X,$SLURM_CONF,${{PATH%%:*}}"'
    outer = {**os.environ, "SLURM_JOB_ID": "7", "SBATCH_X": "x", "SLURM_CONF": "/etc/slurm.conf"}
    done = subprocess.run(
        ["bash", "-ec", script], env=outer, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f",,{tmp_path}/etc/slurm.conf,{tmp_path}/bin\n"


def test_commands_on_nodes_are_marked_and_scontrol_ignores_signals() -> None:
    plan = Plan(folder=Path("/c"))
    scontrol = configuration.node_wrapper(plan, "scontrol")
    assert f"{MARK}=/c" in scontrol
    assert 'trap "" TERM USR1 USR2 CONT' in scontrol
    assert "trap" not in configuration.node_wrapper(plan, "squeue")


def test_sacct_without_accounting_queries_squeue(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path, accounting=False)
    for name, text in {
        "sacct": configuration.node_wrapper(plan, "sacct"),
        "squeue": '#!/bin/sh\nprintf "%s\\n" "$@"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    command = [str(tmp_path / "sacct"), "-o", "JobID", "-j", "7", "--jobs=8", "--parsable2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        "JobID|State|NodeList",
        "--noheader",
        "--states=all",
        "--jobs=7,8",
        "--format=%i|%T|%N",
    ]

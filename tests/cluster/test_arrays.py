"""Job arrays on a real SLURM: builds in parts, sweeps, and the plain scripts."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from PIL import Image

from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from slurm import sweep
from tests.support.dev_cluster import (
    STEPS,
    DevCluster,
    steps_of,
    training_argv,
    wait_until,
    weights,
)
from tests.support.processes import ROOT, run_command
from tests.support.small_shard_set import cut_outs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
BUILD = ["--size", "32", "--shard-size", "2"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Nine files, one of which is not an image."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, rgb in enumerate(cut_outs(48, 8)):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every tar, index, table and manifest."""
    suffixes = (".tar", ".npy", ".json", ".tsv")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in suffixes
    }


def assert_same_set(tmp_path: Path) -> None:
    built, plain = contents(tmp_path / "set"), contents(tmp_path / "plain")
    assert {name: built.get(name) == plain[name] for name in plain} == dict.fromkeys(plain, True)


def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text("partition = 'low'\nminutes = 20\n")
    return file


def test_parts_built_by_an_array_equal_a_plain_build(
    cluster: DevCluster, photographs: Path, tmp_path: Path
) -> None:
    """Three tasks, then merge and verify; a broken image does not fail the dependent
    job.
    """
    done = run_command("shards", ["build", photographs, tmp_path / "plain", *BUILD])
    assert done.returncode == 1  # one image was left out
    options = ["--cluster", site(tmp_path), "--parts", 3, "--wait"]
    # relative paths refer to the folder from which the job was submitted
    done = cluster.run_module(
        "slurm.build_shards", *options, "--", "photographs", "set", *BUILD, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 parts" in done.stdout
    assert_same_set(tmp_path)


def test_a_killed_part_is_requeued(cluster: DevCluster, tmp_path: Path) -> None:
    """After SIGKILL to one of two parts the set has the bytes of a plain build."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, rgb in enumerate(cut_outs(32, 120)):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    assert run_command("shards", ["build", folder, tmp_path / "plain", *BUILD]).returncode == 0
    options = ["--cluster", site(tmp_path), "--parts", 2]
    build = [folder, tmp_path / "set", *BUILD, "--workers", 1]
    assert cluster.run_module("slurm.build_shards", *options, "--", *build).returncode == 0
    logs = tmp_path / "set-slurm"
    wait_until("the first part's process", lambda: bool(first_task(logs)), 120)
    (process,) = first_task(logs)
    tar = tmp_path / "set" / "000000.tar"
    wait_until("its first tar", tar.exists, 60, interval=0.001)
    process.kill()
    wait_until("the end", lambda: (tmp_path / "set" / "manifest.json").exists(), 120)
    wait_until("an empty queue", lambda: not cluster.output("squeue", "-h"), 60)
    assert_same_set(tmp_path)
    errors = "".join(path.read_text() for path in logs.glob("*_log.err"))
    message = "the processes ended with status 137; requeued, to resume from the beginning"
    assert errors.count(message) == 1


def first_task(logs: Path) -> list[psutil.Process]:
    """Return the process of an array's first task, once it runs."""
    processes = []
    for process in psutil.process_iter(["name", "cmdline", "environ"]):
        info = process.info
        if str(logs) in (info["cmdline"] or []) and info["name"].startswith("python"):
            processes += [process] if info["environ"].get("SLURM_ARRAY_TASK_ID") == "0" else []
    return processes


def test_a_failed_part_stops_the_merge(
    cluster: DevCluster, photographs: Path, tmp_path: Path
) -> None:
    """After an error on the nodes the dependent job is cancelled; it does not wait
    forever.
    """
    options = ["--cluster", site(tmp_path), "--parts", 2, "--wait"]
    build = [photographs, tmp_path / "set", "--size", "-3"]
    done = cluster.run_module("slurm.build_shards", *options, "--", *build)
    assert done.returncode == 1
    assert "cancelled" in done.stdout
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_sweep_is_a_table(
    cluster: DevCluster,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three by three points; the second time it submits nothing and prints the same
    table.
    """
    monkeypatch.chdir(ROOT)
    out = tmp_path / "sweep"
    changes = [
        "size=32",
        "images=12",
        "batch_size=4",
        "generator.base_channels=4",
        "critic.base_channels=4",
        "critic.strided_layers=2",
    ]
    argv = [
        *("--cluster", str(site(tmp_path)), "--out", str(out)),
        *("--recipe", "valentini_wgan", "--shards", str(shards)),
        *("--grid", "generator.depth=2,3,4"),
        *("--grid", "objective.penalties.0.weight=0,.1,.3"),
        *("--wait", "--tracker", "none"),
        *(argument for change in changes for argument in ("--set", change)),
    ]
    with cluster.on_login_node():
        assert sweep.main(argv) == 0
        first = capsys.readouterr().out
        assert sweep.main(argv) == 0
        second = capsys.readouterr().out
    points = list(json.loads((out / "sweep.json").read_text()))
    assert points[1] == "generator.depth=2,objective.penalties.0.weight=.1"
    assert [checkpoint_steps(out / name)[-1] for name in points] == [3] * 9
    recipe = json.loads((out / points[1] / "recipe.json").read_text())
    assert (recipe["generator"]["depth"], recipe["objective"]["penalties"][0]["weight"]) == (2, 0.1)
    assert sum("completed" in line for line in first.splitlines()) == 9
    assert {"generator.depth", "objective.penalties.0.weight", "l1", "grey"} <= set(first.split())
    assert f"9 points in {out}" in first
    assert second.splitlines() == first.splitlines()[1:]  # without the line of the submission


def test_the_plain_script_trains_and_is_requeued(
    cluster: DevCluster, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """srun of accelerate launch on two nodes.

    After a killed process and an eviction the run ends with the same bytes.
    """
    run, log = tmp_path / "run", tmp_path / "log"
    options = ["-p", "low", "-N2", "-t", "30", "-o", str(log)]
    options.append("--export=ALL,PROCESSES_PER_NODE=2")
    text = (ROOT / "slurm/train.sbatch").read_text()
    edited = tmp_path / "train.sbatch"
    edited.write_text(text.replace("--cpus-per-gpu=8", "--cpus-per-task=2"))  # as it says
    script = [str(edited), *training_argv(shards), "--run", str(run)]
    job_id = cluster.output("sbatch", "--parsable", *options, *script)
    wait_until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    launched_process(run, rank=1).kill()
    wait_until("a second start", lambda: len(steps_of(run, "start")) == 2, 120)
    cluster.wait_for_step(run, steps_of(run, "start")[1] + 7)
    evict = ["-p", "high", "-N4", "--exclusive", "-t", "5", "-o", "/dev/null"]
    cluster.output("sbatch", *evict, "--wrap", "sleep 2")
    wait_until(
        "the end of the run",
        lambda: bool(steps_of(run, "end")) or cluster.state(job_id) == "FAILED",
        240,
    )
    assert cluster.wait_for_end(job_id, run) == "COMPLETED", log.read_text()[-3000:]
    assert steps_of(run, "start")[-1] == steps_of(run, "stop")[-1] > 0
    assert steps_of(run, "train") == list(range(1, STEPS + 1))
    assert weights(run) == weights(undisturbed)
    (ROOT / f"slurm-{job_id}.starts").unlink()


def launched_process(run: Path, rank: int) -> psutil.Process:
    """Return the process that accelerate launch has started for a rank."""
    for process in psutil.process_iter(["name", "cmdline", "environ"]):
        of_run = str(run) in (process.info["cmdline"] or [])
        if of_run and (process.info["environ"] or {}).get("RANK") == str(rank):
            return process
    raise AssertionError(f"there is no rank {rank} of {run}")


def test_the_plain_array_builds_shards(
    cluster: DevCluster, photographs: Path, tmp_path: Path
) -> None:
    """build_shards.sbatch twice, as its first lines say."""
    assert run_command("shards", ["build", photographs, tmp_path / "plain", *BUILD]).returncode == 1
    options = ["-p", "low", "--cpus-per-task=1", "-o", str(tmp_path / "log-%j")]
    script, out = str(ROOT / "slurm/build_shards.sbatch"), str(tmp_path / "set")
    build = [script, str(photographs), out, *BUILD]
    array = cluster.output("sbatch", "--parsable", *options, "--array=1-3", *build)
    dependency = f"--dependency=afterok:{array}"
    cluster.output("sbatch", "--wait", *options, dependency, script, "merge", out)
    assert_same_set(tmp_path)

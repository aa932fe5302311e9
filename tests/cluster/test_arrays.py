"""Job arrays on a real SLURM: packing in parts, sweeps of a recipe, and the plain scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from colortrain.checkpoint import checkpoint_steps
from tests.cluster.lab import STEPS, Lab, steps_of, training, until, weights
from tests.colortrain.small_set import cut_outs
from tests.distributed.processes import ROOT, run_door

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Nine files, one of them no picture."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, rgb in enumerate(cut_outs(48, 8)):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every tar, index and the manifest."""
    kinds = (".tar", ".npy", ".json", ".tsv")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix in kinds}


BUILD = ["--size", "32", "--shard-size", "2"]


def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text("partition = 'low'\nminutes = 20\n")
    return file


def test_parts_packed_by_an_array_are_one_plain_build(tidy: Lab, photographs: Path, tmp_path: Path) -> None:
    """Three elements, then merge and verify; a picture that is none does not fail the job after it."""
    assert run_door("shards", ["build", photographs, tmp_path / "plain", *BUILD]).returncode == 1  # one left out
    words = ["--cluster", site(tmp_path), "--parts", 3, "--wait", "--", "photographs", "set", *BUILD]
    done = tidy.door("slurm.build_shards", *words, cwd=tmp_path)  # relative to where it was submitted
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 parts" in done.stdout
    assert_same_set(tmp_path)


def assert_same_set(tmp_path: Path) -> None:
    made, plain = contents(tmp_path / "set"), contents(tmp_path / "plain")
    assert {name: made.get(name) == plain[name] for name in plain} == dict.fromkeys(plain, True)


def test_a_failed_part_stops_the_merge(tidy: Lab, photographs: Path, tmp_path: Path) -> None:
    """A mistake on the nodes: the job that depends on it is cancelled, it does not wait for ever."""
    words = ["--cluster", site(tmp_path), "--parts", 2, "--wait", "--", photographs, tmp_path / "set", "--size", "-3"]
    done = tidy.door("slurm.build_shards", *words)
    assert done.returncode == 1
    assert "cancelled" in done.stdout
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_sweep_is_a_table(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """Two by two points; the same command again starts nothing and prints the same table."""
    grid = ["--grid", "n_critic=1,2", "--grid", "objective.adversarial_weight=0,.1"]
    out = tmp_path / "sweep"
    words = ["--cluster", site(tmp_path), "--out", out, *grid, "--wait", *training(shards, steps=6)]
    done = tidy.door("slurm.sweep", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    points = json.loads((out / "sweep.json").read_text())
    assert list(points)[1] == "n_critic=1,objective.adversarial_weight=.1"
    assert [checkpoint_steps(out / name) for name in points] == [[6]] * 4
    weight = json.loads((out / list(points)[1] / "recipe.json").read_text())["objective"]["adversarial_weight"]
    assert weight == 0.1
    table = done.stdout.splitlines()
    assert sum("completed" in line for line in table) == 4
    assert {"n_critic", "objective.adversarial_weight", "l1", "grey"} <= set(" ".join(table).split())
    again = tidy.door("slurm.sweep", *words).stdout
    assert "points below" not in again
    assert again.splitlines() == table[1:]  # less the line of the submission


def test_the_plain_script_trains_and_comes_back(tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    """srun of accelerate launch on two nodes; evicted, it saves, comes back and ends with equal bytes."""
    run, log = tmp_path / "run", tmp_path / "log"
    options = ["-p", "low", "-N2", "--cpus-per-task=2", "-t", "30", "-o", str(log), "--export=ALL,PROCESSES_PER_NODE=2"]
    job = tidy.ask("sbatch", "--parsable", *options, "slurm/train.sbatch", *training(shards), "--run", str(run))
    tidy.until_step(run, 7)
    tidy.ask("sbatch", "-p", "high", "-N4", "--exclusive", "-t", "5", "-o", "/dev/null", "--wrap", "sleep 2")
    until("the end of the run", lambda: bool(steps_of(run, "end")) or tidy.state(job) == "FAILED", 240)
    assert tidy.until_ended(job, run) == "COMPLETED", log.read_text()[-3000:]
    assert steps_of(run, "start")[-1] == steps_of(run, "stop")[-1] > 0
    assert steps_of(run, "train") == list(range(1, STEPS + 1))
    assert weights(run) == weights(undisturbed)


def test_the_plain_array_packs(tidy: Lab, photographs: Path, tmp_path: Path) -> None:
    """build_shards.sbatch, twice, as its head says."""
    assert run_door("shards", ["build", photographs, tmp_path / "plain", *BUILD]).returncode == 1
    options = ["-p", "low", "--cpus-per-task=1", "-o", str(tmp_path / "log-%j")]
    script, made = str(ROOT / "slurm/build_shards.sbatch"), str(tmp_path / "set")
    array = tidy.ask("sbatch", "--parsable", *options, "--array=1-3", script, str(photographs), made, *BUILD)
    tidy.ask("sbatch", "--wait", *options, f"--dependency=afterok:{array}", script, "merge", made)
    assert_same_set(tmp_path)

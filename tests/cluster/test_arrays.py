"""Job arrays on a real SLURM: packing in parts, sweeps of a recipe, and the plain scripts."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from PIL import Image

from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from slurm import sweep
from tests.support.processes import ROOT, run_command
from tests.support.slurm_lab import STEPS, Lab, steps_of, training, until, weights
from tests.support.small_shard_set import cut_outs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


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
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in kinds
    }


BUILD = ["--size", "32", "--shard-size", "2"]


def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text("partition = 'low'\nminutes = 20\n")
    return file


def test_parts_packed_by_an_array_are_one_plain_build(
    tidy: Lab, photographs: Path, tmp_path: Path
) -> None:
    """Three elements, then merge and verify; a picture that is none does not fail the job after it."""
    assert (
        run_command("shards", ["build", photographs, tmp_path / "plain", *BUILD]).returncode == 1
    )  # one left out
    words = [
        "--cluster",
        site(tmp_path),
        "--parts",
        3,
        "--wait",
        "--",
        "photographs",
        "set",
        *BUILD,
    ]
    done = tidy.door(
        "slurm.build_shards", *words, cwd=tmp_path
    )  # relative to where it was submitted
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 parts" in done.stdout
    assert_same_set(tmp_path)


def test_a_killed_part_comes_back(tidy: Lab, tmp_path: Path) -> None:
    """SIGKILL in the middle of one of two parts: the job goes back to the queue by itself, the bytes are the same."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, rgb in enumerate(cut_outs(32, 120)):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    assert run_command("shards", ["build", folder, tmp_path / "plain", *BUILD]).returncode == 0
    words = [
        "--cluster",
        site(tmp_path),
        "--parts",
        2,
        "--",
        folder,
        tmp_path / "set",
        *BUILD,
        "--workers",
        1,
    ]
    assert tidy.door("slurm.build_shards", *words).returncode == 0
    until("the first part's process", lambda: bool(packer(tmp_path / "set-slurm")), 120)
    (process,) = packer(tmp_path / "set-slurm")
    first = tmp_path / "set" / "000000.tar"
    until("its first tar", first.exists, 60, every=0.001)
    process.kill()
    until("the end", lambda: (tmp_path / "set" / "manifest.json").exists(), 120)
    until("an empty queue", lambda: not tidy.ask("squeue", "-h"), 60)
    assert_same_set(tmp_path)
    said = "".join(path.read_text() for path in (tmp_path / "set-slurm").glob("*_log.err"))
    assert (
        said.count("the processes ended with status 137; requeued, to go on from the beginning")
        == 1
    )


def packer(logs: Path) -> list[psutil.Process]:
    """The process of an array's first element, once it runs."""
    found = []
    for one in psutil.process_iter(["name", "cmdline", "environ"]):
        if str(logs) in (one.info["cmdline"] or []) and one.info["name"].startswith("python"):
            found += [one] if one.info["environ"].get("SLURM_ARRAY_TASK_ID") == "0" else []
    return found


def assert_same_set(tmp_path: Path) -> None:
    made, plain = contents(tmp_path / "set"), contents(tmp_path / "plain")
    assert {name: made.get(name) == plain[name] for name in plain} == dict.fromkeys(plain, True)


def test_a_failed_part_stops_the_merge(tidy: Lab, photographs: Path, tmp_path: Path) -> None:
    """A mistake on the nodes: the job that depends on it is cancelled, it does not wait for ever."""
    words = [
        "--cluster",
        site(tmp_path),
        "--parts",
        2,
        "--wait",
        "--",
        photographs,
        tmp_path / "set",
        "--size",
        "-3",
    ]
    done = tidy.door("slurm.build_shards", *words)
    assert done.returncode == 1
    assert "cancelled" in done.stdout
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_sweep_is_a_table(
    tidy: Lab,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three by three points; the same command again starts nothing and prints the same table."""
    monkeypatch.chdir(ROOT)
    out = tmp_path / "sweep"
    changes = [
        "size=32",
        "images=12",
        "batch_size=4",
        "generator.base_channels=4",
        "critic.base_channels=4",
    ]
    sets = [word for change in [*changes, "critic.strided_layers=2"] for word in ("--set", change)]
    words = [
        "--cluster",
        str(site(tmp_path)),
        "--out",
        str(out),
        "--recipe",
        "valentini_wgan",
        "--shards",
        str(shards),
    ]
    words += [
        "--grid",
        "generator.depth=2,3,4",
        "--grid",
        "objective.penalties.0.weight=0,.1,.3",
        "--wait",
    ]
    with tidy.at_login_node():
        assert sweep.main([*words, "--tracker", "none", *sets]) == 0
        said = capsys.readouterr().out
        assert sweep.main([*words, "--tracker", "none", *sets]) == 0
        again = capsys.readouterr().out
    points = list(json.loads((out / "sweep.json").read_text()))
    assert points[1] == "generator.depth=2,objective.penalties.0.weight=.1"
    assert [checkpoint_steps(out / name) for name in points] == [[3]] * 9
    recipe = json.loads((out / points[1] / "recipe.json").read_text())
    assert (recipe["generator"]["depth"], recipe["objective"]["penalties"][0]["weight"]) == (2, 0.1)
    assert sum("completed" in line for line in said.splitlines()) == 9
    assert {"generator.depth", "objective.penalties.0.weight", "l1", "grey"} <= set(said.split())
    assert "points below" in said
    assert again.splitlines() == said.splitlines()[1:]  # less the line of the submission


def test_the_plain_script_trains_and_comes_back(
    tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """srun of accelerate launch on two nodes; a process killed, then evicted, it ends with equal bytes."""
    run, log = tmp_path / "run", tmp_path / "log"
    options = [
        "-p",
        "low",
        "-N2",
        "--cpus-per-task=2",
        "-t",
        "30",
        "-o",
        str(log),
        "--export=ALL,PROCESSES_PER_NODE=2",
    ]
    job = tidy.ask(
        "sbatch", "--parsable", *options, "slurm/train.sbatch", *training(shards), "--run", str(run)
    )
    until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    launched(run, rank=1).kill()
    until("a second start", lambda: len(steps_of(run, "start")) == 2, 120)
    tidy.until_step(run, steps_of(run, "start")[1] + 7)
    tidy.ask(
        "sbatch",
        "-p",
        "high",
        "-N4",
        "--exclusive",
        "-t",
        "5",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 2",
    )
    until(
        "the end of the run", lambda: bool(steps_of(run, "end")) or tidy.state(job) == "FAILED", 240
    )
    assert tidy.until_ended(job, run) == "COMPLETED", log.read_text()[-3000:]
    assert steps_of(run, "start")[-1] == steps_of(run, "stop")[-1] > 0
    assert steps_of(run, "train") == list(range(1, STEPS + 1))
    assert weights(run) == weights(undisturbed)
    (ROOT / f"slurm-{job}.starts").unlink()


def launched(run: Path, rank: int) -> psutil.Process:
    """The process that accelerate launch has started for a rank."""
    for one in psutil.process_iter(["name", "cmdline", "environ"]):
        if str(run) in (one.info["cmdline"] or []) and (one.info["environ"] or {}).get(
            "RANK"
        ) == str(rank):
            return one
    raise AssertionError(f"no rank {rank} of {run}")


def test_the_plain_array_packs(tidy: Lab, photographs: Path, tmp_path: Path) -> None:
    """build_shards.sbatch, twice, as its head says."""
    assert run_command("shards", ["build", photographs, tmp_path / "plain", *BUILD]).returncode == 1
    options = ["-p", "low", "--cpus-per-task=1", "-o", str(tmp_path / "log-%j")]
    script, made = str(ROOT / "slurm/build_shards.sbatch"), str(tmp_path / "set")
    array = tidy.ask(
        "sbatch", "--parsable", *options, "--array=1-3", script, str(photographs), made, *BUILD
    )
    tidy.ask("sbatch", "--wait", *options, f"--dependency=afterok:{array}", script, "merge", made)
    assert_same_set(tmp_path)

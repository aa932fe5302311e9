"""Training on a real SLURM: the bytes of `accelerate launch`, whatever befalls the job; and jobs that must not live."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from colortrain.checkpoint import checkpoint_folder, checkpoint_steps
from tests.cluster.lab import SITE, STEPS, Lab, journal, steps_of, training, until, weights
from tests.distributed.processes import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_two_nodes_train_what_accelerate_launch_trains(
    tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Two processes on each of two hosts, over a network; followed from the login node, then looked at."""
    run, site = tmp_path / "run", tmp_path / "site.toml"
    site.write_text(SITE)
    done = tidy.door("slurm.submit", "--cluster", site, "--run", run, "--follow", "--", *training(shards))
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(run) == weights(undisturbed)
    assert [line["world"] for line in journal(run, "start")] == [4]
    assert "running" in done.stdout
    assert f"{4 * STEPS} of {4 * STEPS}" in done.stdout
    seen = tidy.door("slurm.status", run).stdout
    assert "completed" in seen
    assert f"{STEPS}   {4 * STEPS} of {4 * STEPS}" in seen
    assert str(run) in tidy.door("slurm.status").stdout  # found through the queue


def test_an_evicted_job_loses_no_step(tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    """A job in the high partition takes all nodes; ours saves between two steps, comes back, ends with equal bytes."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))
    tidy.until_step(run, 7)
    tidy.ask("sbatch", "-p", "high", "-N4", "--exclusive", "-t", "5", "-o", "/dev/null", "--wrap", "sleep 2")
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert_came_back(run, undisturbed)
    assert tidy.restarts(job) == 1


def assert_came_back(run: Path, undisturbed: Path) -> None:
    """It stopped between two of the recipe's checkpoints, and went on from that very step to the same bytes."""
    (stopped,) = steps_of(run, "stop")
    assert 0 < stopped < STEPS
    assert steps_of(run, "start") == [0, stopped]
    assert steps_of(run, "train") == list(range(1, STEPS + 1))  # none twice, none left out
    assert weights(run) == weights(undisturbed)


@pytest.mark.parametrize("words", [("scontrol", "requeue"), ("scancel", "--signal=TERM")], ids=["requeue", "term"])
def test_term_alone_is_enough(
    tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Many clusters send no USR2: `scontrol requeue`, and evictions there, come as TERM to every process."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))
    tidy.until_step(run, 7)
    tidy.ask(*words, job)
    until("a second start", lambda: len(steps_of(run, "start")) == 2, 120)
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert_came_back(run, undisturbed)


def test_a_time_limit_is_survived_and_a_cancelled_job_stays_dead(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """SLURM may send the signal a minute early, hence three. scancel must not be taken for an eviction."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards, steps=100_000), SITE.replace("minutes = 30", "minutes = 3"))
    until("the second start", lambda: len(steps_of(run, "start")) == 2, 360)
    (stopped,) = steps_of(run, "stop")
    assert steps_of(run, "start") == [0, stopped]
    tidy.until_step(run, stopped + 3)
    tidy.ask("scancel", job)
    assert tidy.until_ended(job, run) == "CANCELLED"
    time.sleep(3)
    assert tidy.state(job) == "CANCELLED"
    last = steps_of(run, "stop")[-1]
    assert last > stopped  # saved all the same
    assert last in checkpoint_steps(run)


def test_a_job_that_never_gets_anywhere_ends(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """Told to leave all the time, before it can hear too: it comes back, but not for ever."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))

    def told_again() -> bool:
        state = tidy.state(job)
        if state == "RUNNING":
            tidy.run(["scancel", "--signal=USR2", job])
        time.sleep(0.3)
        return state == "FAILED"

    until("the end", told_again, 270)
    assert tidy.until_ended(job, run) == "FAILED"
    said = (run / "slurm" / f"{job}_0_log.err").read_text()
    assert "5 starts in a row saved no step: give the job more minutes" in said
    assert tidy.restarts(job) >= 4


def test_a_refused_requeue_says_how_to_go_on(tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Sites may forbid requeues: all is saved, the job ends well, its log has the command that goes on from there."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), SITE + 'options = ["--no-requeue"]\n')
    tidy.until_step(run, 7)
    tidy.ask("scancel", "--signal=USR2", job)
    assert tidy.until_ended(job, run) == "COMPLETED"
    said = (run / "slurm" / f"{job}_0_log.out").read_text()
    assert f"SLURM refuses to requeue this job; all is saved, go on with: cd {ROOT} && python -m slurm.submit" in said
    command = said.split("go on with: ")[1].splitlines()[0].replace("&& python", f"&& {sys.executable}")
    tidy.ask("bash", "-c", command)
    until("the end", lambda: bool(steps_of(run, "end")), 180)
    assert_came_back(run, undisturbed)


def test_a_power_cut_costs_the_steps_since_the_last_checkpoint(
    tidy: Lab, hosts: Lab, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Nobody can save on a node without power: the job runs again elsewhere, from the recipe's own checkpoint."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))
    until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    hosts.befall("power-off", "node2")
    assert STEPS not in checkpoint_steps(run), "the cut came too late to prove anything"
    assert tidy.until_ended(job, run) == "COMPLETED"
    hosts.befall("boot", "node2")
    assert steps_of(run, "start")[1] in (20, 40)
    assert weights(run) == weights(undisturbed)


def test_a_killed_process_ends_the_job(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """SIGKILL to one process of four: the others must not wait for it till the time limit."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards, steps=100_000))
    tidy.until_step(run, 3)
    rank_3 = [one for one in psutil.process_iter(["cmdline"]) if str(run / "slurm") in (one.info["cmdline"] or [])]
    os.kill(max(one.pid for one in rank_3), signal.SIGKILL)
    began = time.monotonic()
    assert tidy.until_ended(job, run) == "FAILED"
    assert time.monotonic() - began < 30


def test_code_changed_after_submission_is_refused(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """The copy in the run folder is what runs; a job that waits would otherwise run what somebody wrote meanwhile."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), SITE + 'options = ["--hold"]\n')
    (copy,) = (run / "slurm").glob("code-*")
    (copy / "colortrain" / "step.py").write_text("raise SystemExit('other code')\n")
    tidy.ask("scontrol", "release", job)
    assert tidy.until_ended(job, run) == "FAILED"
    said = (run / "slurm" / f"{job}_0_log.err").read_text()
    assert f"{copy} was changed after the job was submitted" in said
    assert "Traceback" not in said
    assert not (run / "metrics.jsonl").exists()


def test_mistakes_are_one_line_before_anything_is_sent(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """What the site has not, and what launch.train would refuse on the nodes."""
    site, run = tmp_path / "site.toml", tmp_path / "run"
    words = training(shards)
    refused = {
        "partition = 'hihg'": "unknown partition 'hihg'; valid, nearest first: high, low",
        "nodes = 5": "nodes: partition low has 4 nodes, the site file asks for 5",
        "gpus = 4": "gpus: partition low has 2 GPUs a node, the site file asks for 4",
        "processes = 5": "cpus: partition low has 4 CPUs a node, the site file asks for 5",
        "processes = 3": "batch_size=4 does not divide among 3 processes",
        "constraint = 'a100'": "unknown constraint of partition low 'a100'",
        "qos = 'fast'": "unknown qos 'fast'; valid, nearest first: normal",
    }
    for text, said in refused.items():
        site.write_text(text)
        done = tidy.door("slurm.submit", "--cluster", site, "--run", run, "--", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
    site.write_text(SITE)
    done = tidy.door("slurm.submit", "--cluster", site, "--run", run, "--", *words, "--set", "bach_size=4")
    assert "unknown field 'bach_size'" in done.stderr
    assert not run.exists()
    assert not tidy.ask("squeue", "-h")


def test_a_run_has_one_job_at_a_time(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """The second command finds the first one's job; when that is gone it goes on with the same run folder."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), SITE + 'options = ["--hold"]\n')
    done = tidy.door("slurm.submit", "--cluster", run.with_suffix(".toml"), "--run", run, "--", *training(shards))
    assert done.returncode == 2
    assert f"job {job} trains {run} already (pending (JobHeldUser))" in done.stderr
    tidy.ask("scancel", job)
    again = tidy.submit(run, training(shards), SITE + 'options = ["--hold"]\n')
    recorded = [json.loads(line)["job"] for line in (run / "slurm/jobs.jsonl").read_text().splitlines()]
    assert recorded == [job, again]

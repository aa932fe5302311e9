"""Training on a real SLURM: the bytes of `accelerate launch`, whatever befalls the job; and jobs that must not live."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from shards.errors import UserError
from slurm import batch
from slurm.cluster import EXAMPLES, load_cluster
from slurm.code import Code
from slurm.runs import job_of
from tests.support.cluster_figures import Disturbance, Note
from tests.support.processes import ROOT
from tests.support.slurm_lab import (
    PAIR,
    SITE,
    STEPS,
    Lab,
    journal,
    steps_of,
    training,
    until,
    weights,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_two_nodes_train_what_accelerate_launch_trains(
    tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Two processes on each of two hosts, over a network; followed from the login node, then looked at."""
    run, site = tmp_path / "run", tmp_path / "site.toml"
    site.write_text(SITE)
    done = tidy.door(
        "slurm.submit", "--cluster", site, "--run", run, "--follow", "--", *training(shards)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(run) == weights(undisturbed)
    assert [line["world"] for line in journal(run, "start")] == [4]
    (log,) = (run / "slurm").glob("*_3_log.err")
    assert f"slurm: rank 3 on node2, may use {len(os.sched_getaffinity(0))} CPUs" in log.read_text()
    assert "running" in done.stdout
    assert f"{4 * STEPS} of {4 * STEPS}" in done.stdout
    seen = tidy.door("slurm.status", run).stdout
    assert "completed" in seen
    assert f"{STEPS}   {4 * STEPS} of {4 * STEPS}" in seen
    everything = tidy.door("slurm.status").stdout.splitlines()  # found through the queue
    assert f" {job_of(run)} " in " ".join(
        line for line in everything if f"{4 * STEPS} of {4 * STEPS}" in line
    )


def test_an_evicted_job_loses_no_step(
    tidy: Lab, shards: Path, undisturbed: Path, tmp_path: Path, record_property: Note
) -> None:
    """A job in the high partition takes all nodes; ours saves between two steps, comes back, ends with equal bytes."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))
    tidy.until_step(run, 7)
    with tidy.held(run) as ranks:
        eviction = Disturbance(run, "evicted by a job of a higher partition", record_property)
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
        until("SLURM's signal", lambda: any(is_told(one) for one in ranks), 30)
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert_came_back(run, undisturbed)
    assert tidy.restarts(job) == 1
    eviction.measure()


def assert_came_back(run: Path, undisturbed: Path) -> None:
    """It stopped between two of the recipe's checkpoints, and went on from that very step to the same bytes."""
    (stopped,) = steps_of(run, "stop")
    assert 0 < stopped < STEPS
    assert steps_of(run, "start") == [0, stopped]
    assert steps_of(run, "train") == list(range(1, STEPS + 1))  # none twice, none left out
    assert weights(run) == weights(undisturbed)


@pytest.mark.parametrize(
    "words", [("scontrol", "requeue"), ("scancel", "--signal=TERM")], ids=["requeue", "term"]
)
def test_term_alone_is_enough(
    tidy: Lab,
    shards: Path,
    undisturbed_pair: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    record_property: Note,
) -> None:
    """Many clusters send no USR2: `scontrol requeue`, and evictions there, come as TERM to every process."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), PAIR)
    tidy.until_step(run, 7)
    with tidy.held(run):
        order = Disturbance(run, " ".join(words), record_property)
        tidy.ask(*words, job)
    until("a second start", lambda: len(steps_of(run, "start")) == 2, 120)
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert_came_back(run, undisturbed_pair)
    order.measure()


def test_a_time_limit_is_survived(
    tidy: Lab, shards: Path, undisturbed_pair: Path, tmp_path: Path, record_property: Note
) -> None:
    """Told half a minute before the end, or up to a minute earlier; held still meanwhile, or the run would be over."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), PAIR.replace("minutes = 30", "minutes = 2"))
    tidy.until_step(run, 7)
    with tidy.held(run) as ranks:
        until("SLURM's signal", lambda: any(is_told(one) for one in ranks), 150)
        limit = Disturbance(run, "out of time", record_property)
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert tidy.restarts(job) == 1
    assert_came_back(run, undisturbed_pair)
    limit.measure()


def is_told(process: psutil.Process) -> bool:
    """Whether a process that is held still was sent USR2, or was woken by SLURM to hear it."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    fields = dict(line.split(":", 1) for line in lines)
    return "T" not in fields["State"] or bool(int(fields["ShdPnd"], 16) >> (signal.SIGUSR2 - 1) & 1)


def test_a_cancelled_job_stays_dead(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """scancel must not be taken for an eviction: all is saved, nothing is requeued."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards, "checkpoint_every=100000", steps=100_000), PAIR)
    tidy.until_step(run, 7)
    tidy.ask("scancel", job)
    assert tidy.until_ended(job, run) == "CANCELLED"
    time.sleep(3)
    assert tidy.state(job) == "CANCELLED"
    assert steps_of(run, "stop") == checkpoint_steps(run) != []


def test_a_job_that_never_gets_anywhere_ends(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """Told to leave all the time, before it can hear too: it comes back, but not for ever."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), PAIR + "max_restarts = 2\n")

    def told_again() -> bool:
        state = tidy.state(job)
        if state == "RUNNING":
            tidy.run(["scancel", "--signal=USR2", job])
        time.sleep(0.3)
        return state == "FAILED"

    until("the end", told_again, 270)
    assert tidy.until_ended(job, run) == "FAILED"
    said = (run / "slurm" / f"{job}_0_log.err").read_text()
    assert "2 starts in a row saved no step: give the job more minutes" in said
    assert tidy.restarts(job) >= 1


def test_a_refused_requeue_says_how_to_go_on(
    tidy: Lab, shards: Path, undisturbed_pair: Path, tmp_path: Path
) -> None:
    """Sites may forbid requeues: all is saved, the job ends well, its log has the command that goes on from there."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), PAIR + 'options = ["--no-requeue"]\n')
    tidy.until_step(run, 7)
    with tidy.held(run):
        tidy.ask("scancel", "--signal=USR2", job)
    assert tidy.until_ended(job, run) == "COMPLETED"
    said = (run / "slurm" / f"{job}_0_log.out").read_text()
    assert f"its last checkpoint is safe, go on with: cd {ROOT} && python -m slurm.submit" in said
    command = (
        said.split("go on with: ")[1].splitlines()[0].replace("&& python", f"&& {sys.executable}")
    )
    tidy.ask("bash", "-c", command)
    until("the end", lambda: bool(steps_of(run, "end")), 180)
    assert_came_back(run, undisturbed_pair)


EVENTS = {"power-off": "boot", "unplug": "plug", "state=down": ""}


@pytest.mark.parametrize(
    ("event", "which"), [("power-off", -1), ("unplug", -1), ("state=down", -1), ("unplug", 0)]
)
def test_a_lost_node_costs_the_steps_since_the_last_checkpoint(
    tidy: Lab,
    hosts: Lab,
    shards: Path,
    undisturbed: Path,
    tmp_path: Path,
    event: str,
    which: int,
    record_property: Note,
) -> None:
    """Nobody can save on a node that is gone: the job runs again elsewhere, from the recipe's own checkpoint.

    Without its cable, rank 0 on the first node lives on and holds the run folder, until SLURM can end it.
    """
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))
    until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    with tidy.held(run):
        node = tidy.ask(
            "scontrol", "show", "hostnames", tidy.ask("squeue", "-h", "-j", job, "-o", "%N")
        ).split()[which]
        alone = event == "unplug" and which == 0
        loss = Disturbance(
            run, f"a node's {event}{', that of rank 0' if alone else ''}", record_property
        )
        tidy.strike(event, node)
    assert STEPS not in checkpoint_steps(run), "it came too late to prove anything"
    until(
        "a second start", lambda: begun(run) == 2 if alone else len(steps_of(run, "start")) > 1, 180
    )
    if EVENTS[event]:
        tidy.strike(EVENTS[event], node)
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert_lost_at_most_an_interval(run, undisturbed, loss)
    said = (run / "slurm" / f"{job}_0_log.err").read_text()
    assert ("a process of an earlier start still holds" in said) == alone


def assert_lost_at_most_an_interval(run: Path, undisturbed: Path, loss: Disturbance) -> None:
    """A node that is only called down leaves the time to save: nothing at all is lost then."""
    assert steps_of(run, "start")[1] >= loss.reached - 20
    assert weights(run) == weights(undisturbed)
    loss.measure()


@pytest.mark.parametrize(("rank", "moment"), [(3, "computing"), (0, "all-reduce")])
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(
    tidy: Lab,
    shards: Path,
    undisturbed: Path,
    tmp_path: Path,
    rank: int,
    moment: str,
    record_property: Note,
) -> None:
    """SIGKILL to one of four: the others notice within seconds, and the job goes on by itself within a minute."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards))
    until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    ranks = tidy.ranks(run)
    assert sorted(ranks) == [0, 1, 2, 3]
    if moment == "computing":
        until("a main thread on a core", lambda: ranks[rank].status() == psutil.STATUS_RUNNING, 10)
    else:
        ranks[1].suspend()  # the others now wait for it in an all-reduce
        until("a waiting rank", lambda: stands_still(ranks[rank]), 30)
    loss = Disturbance(run, f"a process killed, {moment}", record_property)
    ranks[rank].kill()
    assert STEPS not in checkpoint_steps(run), "it came too late to prove anything"
    until("the end of the first start", lambda: tidy.state(job) != "RUNNING", 30)
    loss.tell("noticed, s", time.time() - loss.moment)
    until("a second start", lambda: tidy.state(job) == "RUNNING", 60 - (time.time() - loss.moment))
    assert tidy.until_ended(job, run) == "COMPLETED"
    assert tidy.restarts(job) == 1
    assert_lost_at_most_an_interval(run, undisturbed, loss)


def stands_still(process: psutil.Process) -> bool:
    """Whether it has used no time of a core for a third of a second."""
    before = process.cpu_times().user
    time.sleep(0.3)
    return bool(process.cpu_times().user == before)


def test_a_job_that_dies_again_and_again_ends(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """Killed in each of its starts before it has saved a step: it comes back as often as the site allows, no more."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards, "checkpoint_every=1000"), PAIR + "max_restarts = 2\n")
    for start in (1, 2):
        until(f"step 3 of start {start}", partial(has_begun, run, start), 180)
        tidy.ranks(run)[1].kill()
    assert tidy.until_ended(job, run) == "FAILED"
    assert tidy.restarts(job) == 1
    said = (run / "slurm" / f"{job}_0_log.err").read_text()
    assert "requeued, to go on from the beginning" in said
    assert "2 starts in a row saved no step (max_restarts)" in said


def has_begun(run: Path, start: int) -> bool:
    """Whether that start, the first or a later one, has told of step 3; lines of those before it are gone by then."""
    return len(steps_of(run, "start")) == start and 3 in steps_of(run, "train")


def begun(run: Path) -> int:
    """How many starts rank 0 has noted."""
    path = run / "slurm" / "starts.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


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


def test_mistakes_are_one_line_before_anything_is_sent(
    tidy: Lab, shards: Path, tmp_path: Path
) -> None:
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
        with pytest.raises(UserError) as error:
            tidy.submit(run, words, text)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    site.write_text(SITE)
    done = tidy.door(
        "slurm.submit", "--cluster", site, "--run", run, "--", *words, "--set", "bach_size=4"
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "unknown field 'bach_size'" in done.stderr
    assert not run.exists()
    assert not tidy.ask("squeue", "-h")


def test_a_run_has_one_job_at_a_time(tidy: Lab, shards: Path, tmp_path: Path) -> None:
    """The second command finds the first one's job; when that is gone it goes on with the same run folder."""
    run = tmp_path / "run"
    job = tidy.submit(run, training(shards), SITE + 'options = ["--hold"]\n')
    done = tidy.door(
        "slurm.submit", "--cluster", run.with_suffix(".toml"), "--run", run, "--", *training(shards)
    )
    assert done.returncode == 2
    assert f"job {job} trains {run} already (pending (JobHeldUser))" in done.stderr
    tidy.ask("scancel", job)
    again = tidy.submit(run, training(shards), SITE + 'options = ["--hold"]\n')
    recorded = [
        json.loads(line)["job"] for line in (run / "slurm/jobs.jsonl").read_text().splitlines()
    ]
    assert recorded == [job, again]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_sbatch_takes_what_the_examples_ask_for(lab: Lab, tmp_path: Path, example: Path) -> None:
    """Cut down to this cluster's size. Pyxis is not here, so srun's line, with its --container words, is not run."""
    cluster = dataclasses.replace(
        load_cluster(example), partition="low", account="", nodes=2, gpus=2, cpus=2, memory=1.0
    )
    code = Code(tmp_path / "code", "1")
    told = batch.parameters(
        cluster, code, name="first", comment="", again="the command", runs=[tmp_path]
    )
    script = tmp_path / "first.sbatch"
    script.write_text(batch.text(cluster, tmp_path, told))
    lab.ask("bash", "-n", str(script))
    done = lab.run(["sbatch", "--test-only", str(script)])
    assert (done.returncode, "to start at" in done.stderr) == (0, True), done.stderr

"""Training on a real SLURM.

A run ends with the bytes of `accelerate launch`, however its job is disturbed, and a
job that was cancelled or makes no progress does not start again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from colortrain.runs.layout import checkpoint_folder, checkpoint_steps
from shards.errors import UserError
from slurm import batch
from slurm.cluster import EXAMPLES, load_cluster
from slurm.code import CodeSnapshot
from slurm.runs import latest_job
from tests.support.dev_cluster import (
    SITE,
    STEPS,
    TWO_PROCESSES,
    DevCluster,
    journal,
    steps_of,
    training_argv,
    wait_until,
    weights,
)
from tests.support.disturbance_costs import Disturbance, Record
from tests.support.processes import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_two_nodes_train_what_accelerate_launch_trains(
    cluster: DevCluster, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Two processes on each of two hosts, followed from the login node."""
    run, site = tmp_path / "run", tmp_path / "site.toml"
    site.write_text(SITE)
    options = ["--cluster", site, "--run", run, "--follow"]
    done = cluster.run_module("slurm.submit", *options, "--", *training_argv(shards))
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(run) == weights(undisturbed)
    assert [line["world"] for line in journal(run, "start")] == [4]
    (log,) = (run / "slurm").glob("*_3_log.err")
    cpus = len(os.sched_getaffinity(0))
    line = f"rank 3 on node2, may use {cpus} CPUs, sees no GPU, mixed precision: no"
    assert line in log.read_text()
    images = f"{4 * STEPS} of {4 * STEPS}"
    assert "running" in done.stdout
    assert images in done.stdout
    status = cluster.run_module("slurm.status", run).stdout
    assert "completed" in status
    assert f"{STEPS}   {images}" in status
    all_runs = cluster.run_module("slurm.status").stdout.splitlines()  # found through the queue
    assert f" {latest_job(run)} " in " ".join(line for line in all_runs if images in line)


def test_an_evicted_job_loses_no_step(
    cluster: DevCluster, shards: Path, undisturbed: Path, tmp_path: Path, record_property: Record
) -> None:
    """A job in the high partition takes all nodes.

    The evicted job saves between two steps, is requeued, and ends with the same bytes.
    """
    run = tmp_path / "run"
    job_id = cluster.submit(run, training_argv(shards))
    cluster.wait_for_step(run, 7)
    with cluster.suspended(run) as processes:
        eviction = Disturbance(run, "evicted by a job of a higher partition", record_property)
        evict = ["-p", "high", "-N4", "--exclusive", "-t", "5", "-o", "/dev/null"]
        cluster.output("sbatch", *evict, "--wrap", "sleep 2")
        wait_until("SLURM's signal", lambda: any(map(was_signalled, processes)), 30)
    assert cluster.wait_for_end(job_id, run) == "COMPLETED"
    assert_resumed(run, undisturbed)
    assert cluster.restarts(job_id) == 1
    eviction.measure()


def assert_resumed(run: Path, undisturbed: Path) -> None:
    """Check that the run stopped between two checkpoints of the recipe and lost no
    step.

    It resumed from the step at which it stopped and ended with the same bytes.
    """
    (stopped,) = steps_of(run, "stop")
    assert 0 < stopped < STEPS
    assert steps_of(run, "start") == [0, stopped]
    assert steps_of(run, "train") == list(range(1, STEPS + 1))  # none repeated, none missing
    assert weights(run) == weights(undisturbed)


@pytest.mark.parametrize(
    "command", [("scontrol", "requeue"), ("scancel", "--signal=TERM")], ids=["requeue", "term"]
)
def test_term_alone_is_sufficient(
    cluster: DevCluster,
    shards: Path,
    undisturbed_pair: Path,
    tmp_path: Path,
    command: tuple[str, ...],
    record_property: Record,
) -> None:
    """Many clusters send no USR2: an eviction is a TERM to every process."""
    run = tmp_path / "run"
    job_id = cluster.submit(run, training_argv(shards), TWO_PROCESSES)
    cluster.wait_for_step(run, 7)
    with cluster.suspended(run):
        signalled = Disturbance(run, " ".join(command), record_property)
        cluster.output(*command, job_id)
    wait_until("a second start", lambda: len(steps_of(run, "start")) == 2, 120)
    assert cluster.wait_for_end(job_id, run) == "COMPLETED"
    assert_resumed(run, undisturbed_pair)
    signalled.measure()


def test_a_run_continues_after_its_time_limit(
    cluster: DevCluster,
    shards: Path,
    undisturbed_pair: Path,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """SLURM sends the signal half a minute before the limit, or up to a minute earlier.

    The processes are suspended meanwhile: the run would otherwise end before the limit.
    """
    run = tmp_path / "run"
    site = TWO_PROCESSES.replace("minutes = 30", "minutes = 2")
    job_id = cluster.submit(run, training_argv(shards), site)
    cluster.wait_for_step(run, 7)
    with cluster.suspended(run) as processes:
        wait_until("SLURM's signal", lambda: any(map(was_signalled, processes)), 150)
        limit = Disturbance(run, "out of time", record_property)
    assert cluster.wait_for_end(job_id, run) == "COMPLETED"
    assert cluster.restarts(job_id) == 1
    assert_resumed(run, undisturbed_pair)
    limit.measure()


def was_signalled(process: psutil.Process) -> bool:
    """Return whether a suspended process has a pending USR2 or was resumed."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    fields = dict(line.split(":", 1) for line in lines)
    return "T" not in fields["State"] or bool(int(fields["ShdPnd"], 16) >> (signal.SIGUSR2 - 1) & 1)


def test_a_cancelled_job_is_not_requeued(cluster: DevCluster, shards: Path, tmp_path: Path) -> None:
    """scancel is not an eviction: everything is saved, nothing is requeued."""
    run = tmp_path / "run"
    argv = training_argv(shards, "checkpoint_every=100000", steps=100_000)
    job_id = cluster.submit(run, argv, TWO_PROCESSES)
    cluster.wait_for_step(run, 7)
    cluster.output("scancel", job_id)
    assert cluster.wait_for_end(job_id, run) == "CANCELLED"
    time.sleep(3)
    assert cluster.state(job_id) == "CANCELLED"
    assert steps_of(run, "stop") == checkpoint_steps(run) != []


def test_a_job_that_makes_no_progress_ends(
    cluster: DevCluster, shards: Path, tmp_path: Path
) -> None:
    """USR2 is sent all the time, also before handlers are set: the restarts are
    limited.
    """
    run = tmp_path / "run"
    job_id = cluster.submit(run, training_argv(shards), TWO_PROCESSES + "max_restarts = 2\n")

    def failed_after_a_signal() -> bool:
        state = cluster.state(job_id)
        if state == "RUNNING":
            cluster.run(["scancel", "--signal=USR2", job_id])
        time.sleep(0.3)
        return state == "FAILED"

    wait_until("the end", failed_after_a_signal, 270)
    assert cluster.wait_for_end(job_id, run) == "FAILED"
    errors = (run / "slurm" / f"{job_id}_0_log.err").read_text()
    assert "2 consecutive starts saved no checkpoint: increase `minutes`" in errors
    assert cluster.restarts(job_id) >= 1


def test_a_refused_requeue_prints_the_command_that_resumes(
    cluster: DevCluster, shards: Path, undisturbed_pair: Path, tmp_path: Path
) -> None:
    """Sites may forbid requeues: everything is saved, and the job ends successfully.

    The command in its log resumes the run.
    """
    run = tmp_path / "run"
    site = TWO_PROCESSES + 'options = ["--no-requeue"]\n'
    job_id = cluster.submit(run, training_argv(shards), site)
    cluster.wait_for_step(run, 7)
    with cluster.suspended(run):
        cluster.output("scancel", "--signal=USR2", job_id)
    assert cluster.wait_for_end(job_id, run) == "COMPLETED"
    log = (run / "slurm" / f"{job_id}_0_log.out").read_text()
    resume = f"its last checkpoint is safe, resume with: cd {ROOT} && colortrain submit"
    assert resume in log
    command = log.split("resume with: ")[1].splitlines()[0]
    cluster.output("bash", "-c", command)
    wait_until("the end", lambda: bool(steps_of(run, "end")), 180)
    assert_resumed(run, undisturbed_pair)


EVENTS = {"power-off": "boot", "unplug": "plug", "state=down": ""}


@pytest.mark.parametrize(
    ("event", "which"), [("power-off", -1), ("unplug", -1), ("state=down", -1), ("unplug", 0)]
)
def test_a_lost_node_costs_the_steps_since_the_last_checkpoint(
    cluster: DevCluster,
    with_hosts: DevCluster,
    shards: Path,
    undisturbed: Path,
    tmp_path: Path,
    event: str,
    which: int,
    record_property: Record,
) -> None:
    """Processes on a lost node cannot save: the job resumes elsewhere from a
    checkpoint.

    When the first node is unplugged, rank 0 keeps running and holds the run folder
    until SLURM can end it.
    """
    run = tmp_path / "run"
    job_id = cluster.submit(run, training_argv(shards))
    wait_until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    with cluster.suspended(run):
        nodes = cluster.output("squeue", "-h", "-j", job_id, "-o", "%N")
        node = cluster.output("scontrol", "show", "hostnames", nodes).split()[which]
        rank_0_survives = event == "unplug" and which == 0
        name = f"a node's {event}{', that of rank 0' if rank_0_survives else ''}"
        loss = Disturbance(run, name, record_property)
        cluster.inject_event(event, node)
    assert STEPS not in checkpoint_steps(run), "the run had ended before the event"

    def started_again() -> bool:
        if rank_0_survives:
            return recorded_starts(run) == 2
        return len(steps_of(run, "start")) > 1

    wait_until("a second start", started_again, 180)
    if EVENTS[event]:
        cluster.inject_event(EVENTS[event], node)
    assert cluster.wait_for_end(job_id, run) == "COMPLETED"
    assert_lost_at_most_an_interval(run, undisturbed, loss)
    errors = (run / "slurm" / f"{job_id}_0_log.err").read_text()
    assert ("a process of an earlier start still holds" in errors) == rank_0_survives


def assert_lost_at_most_an_interval(run: Path, undisturbed: Path, loss: Disturbance) -> None:
    """Check that at most the 20 steps between two checkpoints were lost.

    A node that an administrator sets down leaves time to save: no step is lost then.
    """
    assert steps_of(run, "start")[1] >= loss.step - 20
    assert weights(run) == weights(undisturbed)
    loss.measure()


@pytest.mark.parametrize(("rank", "moment"), [(3, "computing"), (0, "all-reduce")])
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(
    cluster: DevCluster,
    shards: Path,
    undisturbed: Path,
    tmp_path: Path,
    rank: int,
    moment: str,
    record_property: Record,
) -> None:
    """SIGKILL to one of four processes.

    The others notice it within seconds, and the job resumes within a minute.
    """
    run = tmp_path / "run"
    job_id = cluster.submit(run, training_argv(shards))
    wait_until("a checkpoint", lambda: checkpoint_folder(run, 20).is_dir(), 180)
    ranks = cluster.ranks(run)
    assert sorted(ranks) == [0, 1, 2, 3]
    if moment == "computing":
        running = psutil.STATUS_RUNNING
        wait_until("a main thread on a core", lambda: ranks[rank].status() == running, 10)
    else:
        ranks[1].suspend()  # the others now wait for it in an all-reduce
        wait_until("a waiting rank", lambda: uses_no_cpu(ranks[rank]), 30)
    loss = Disturbance(run, f"a process killed, {moment}", record_property)
    ranks[rank].kill()
    assert STEPS not in checkpoint_steps(run), "the run had ended before the process was killed"
    wait_until("the end of the first start", lambda: cluster.state(job_id) != "RUNNING", 30)
    noticed = time.time() - loss.time
    loss.record("noticed, s", noticed)
    remaining = 60 - (time.time() - loss.time)
    wait_until("a second start", lambda: cluster.state(job_id) == "RUNNING", remaining)
    assert cluster.wait_for_end(job_id, run) == "COMPLETED"
    assert cluster.restarts(job_id) == 1
    assert_lost_at_most_an_interval(run, undisturbed, loss)


def uses_no_cpu(process: psutil.Process) -> bool:
    """Return whether a process has used no CPU time for a third of a second."""
    before = process.cpu_times().user
    time.sleep(0.3)
    return bool(process.cpu_times().user == before)


def test_a_job_that_dies_repeatedly_ends(cluster: DevCluster, shards: Path, tmp_path: Path) -> None:
    """A process is killed in each start, before a step is saved."""
    run = tmp_path / "run"
    argv = training_argv(shards, "checkpoint_every=1000")
    job_id = cluster.submit(run, argv, TWO_PROCESSES + "max_restarts = 2\n")
    for start in (1, 2):
        wait_until(f"step 3 of start {start}", partial(reached_step_3, run, start), 180)
        cluster.ranks(run)[1].kill()
    assert cluster.wait_for_end(job_id, run) == "FAILED"
    assert cluster.restarts(job_id) == 1
    errors = (run / "slurm" / f"{job_id}_0_log.err").read_text()
    assert "requeued, to resume from the beginning" in errors
    assert "2 consecutive starts saved no checkpoint (max_restarts)" in errors


def reached_step_3(run: Path, start: int) -> bool:
    """Return whether start number `start` has logged step 3.

    A start removes the lines that come after the checkpoint from which it resumes.
    """
    return len(steps_of(run, "start")) == start and 3 in steps_of(run, "train")


def recorded_starts(run: Path) -> int:
    """Return how many starts rank 0 has recorded."""
    path = run / "slurm" / "starts.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_code_changed_after_submission_is_refused(
    cluster: DevCluster, shards: Path, tmp_path: Path
) -> None:
    """The copy in the run folder runs, not the code as it is when the job starts."""
    run = tmp_path / "run"
    job_id = cluster.submit(run, training_argv(shards), SITE + 'options = ["--hold"]\n')
    (copy,) = (run / "slurm").glob("code-*")
    (copy / "colortrain" / "step.py").write_text("raise SystemExit('other code')\n")
    cluster.output("scontrol", "release", job_id)
    assert cluster.wait_for_end(job_id, run) == "FAILED"
    errors = (run / "slurm" / f"{job_id}_0_log.err").read_text()
    assert f"{copy} was modified after submission" in errors
    assert "Traceback" not in errors
    assert not (run / "metrics.jsonl").exists()


def test_errors_are_one_line_before_anything_is_submitted(
    cluster: DevCluster, shards: Path, tmp_path: Path
) -> None:
    """What the site does not have, and what launch.train would refuse on the nodes."""
    site, run = tmp_path / "site.toml", tmp_path / "run"
    argv = training_argv(shards)
    messages = {
        "partition = 'hihg'": "unknown partition 'hihg'; valid, nearest first: high, low",
        "nodes = 5": "nodes: partition low has 4 nodes, but the site file requests 5",
        "gpus = 4": "gpus: partition low has 2 GPUs per node, but the site file requests 4",
        "processes = 5": "cpus: partition low has 4 CPUs per node, but the site file requests 5",
        "processes = 3": "batch_size=4 does not divide among 3 processes",
        "constraint = 'a100'": "unknown constraint of partition low 'a100'",
        "qos = 'fast'": "unknown qos 'fast'; valid, nearest first: normal",
    }
    for text, message in messages.items():
        with pytest.raises(UserError) as error:
            cluster.submit(run, argv, text)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    site.write_text(SITE)
    options = ["--cluster", site, "--run", run]
    done = cluster.run_module("slurm.submit", *options, "--", *argv, "--set", "bach_size=4")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "unknown field 'bach_size'" in done.stderr
    assert not run.exists()
    assert not cluster.output("squeue", "-h")


def test_a_run_has_one_job_at_a_time(cluster: DevCluster, shards: Path, tmp_path: Path) -> None:
    """A second job is refused until the first has ended."""
    run = tmp_path / "run"
    argv, site = training_argv(shards), SITE + 'options = ["--hold"]\n'
    job_id = cluster.submit(run, argv, site)
    options = ["--cluster", run.with_suffix(".toml"), "--run", run]
    done = cluster.run_module("slurm.submit", *options, "--", *argv)
    assert done.returncode == 2
    assert f"job {job_id} trains {run} already (pending (JobHeldUser))" in done.stderr
    cluster.output("scancel", job_id)
    second = cluster.submit(run, argv, site)
    lines = (run / "slurm/jobs.jsonl").read_text().splitlines()
    assert [json.loads(line)["job"] for line in lines] == [job_id, second]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_sbatch_accepts_the_options_of_the_examples(
    session_cluster: DevCluster, tmp_path: Path, example: Path
) -> None:
    """Reduced to this cluster's size.

    Pyxis is not installed, so the line of srun with its --container options is not run.
    """
    site = dataclasses.replace(
        load_cluster(example), partition="low", account="", nodes=2, gpus=2, cpus=2, memory=1.0
    )
    parameters = batch.job_parameters(
        site,
        CodeSnapshot(tmp_path / "code", "1"),
        name="first",
        comment="",
        resume_command="the command",
        runs=[tmp_path],
    )
    script = tmp_path / "first.sbatch"
    script.write_text(batch.script_text(site, tmp_path, parameters))
    session_cluster.output("bash", "-n", str(script))
    done = session_cluster.run(["sbatch", "--test-only", str(script)])
    assert (done.returncode, "to start at" in done.stderr) == (0, True), done.stderr

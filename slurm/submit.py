"""Train on a SLURM cluster: one job, one process per GPU, requeued until the run ends.

    colortrain submit --cluster site.toml --run runs/first -- \\
        --recipe nampouri_unet --shards photos-256
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from colortrain.data.loader import check_divides
from colortrain.distributed.batch_statistics import small_batch_warning
from colortrain.recipe import Recipe, save_recipe
from colortrain.runs.layout import recipe_file
from launch import train
from launch.cli import CommandParser
from shards.errors import UserError, run_command
from slurm import batch, queue, runs, status
from slurm.cluster import Cluster, load_cluster, resolve_on_site
from slurm.code import CodeSnapshot, planned_snapshot, take_snapshot
from slurm.jobs import JobContext, TrainingJob

_INTERVAL = 2.0  # seconds between two queries of the queue
_EXAMPLE = """\
The arguments after -- are those of `colortrain train`, without --run. Before a time limit or
an eviction SLURM sends a signal: all processes save between two steps, and the job is
requeued. After a lost node or process the job is requeued too and resumes from the last
checkpoint, until max_restarts consecutive starts have saved no checkpoint. Logs are in RUN/slurm.

The site file (TOML) has these fields: partition, account, qos, constraint, nodes, gpus (per
node), cpus (per process; default: a node's CPUs divided by its GPUs, or 1 without GPUs),
processes (per node, without GPUs), memory (GB per node), minutes, warning (seconds),
max_restarts, parallel (array tasks at the same time), setup (shell lines), scratch, python,
options (of sbatch), [container] image, mounts, options. There are examples in slurm/examples.
Processes on GPUs that have bf16 compute in bf16 mixed precision; the log says so, and a line
of `setup`, export ACCELERATE_MIXED_PRECISION=no (or fp16), changes it.

example:
  colortrain submit --cluster slurm/examples/plain.toml --run runs/first -- \\
    --recipe nampouri_unet --shards photos-256 --set batch_size=256
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of `colortrain submit`."""
    parser = CommandParser("slurm.submit", "Train on a SLURM cluster.", _EXAMPLE)
    parser.add_argument(
        "--cluster",
        required=True,
        type=Path,
        metavar="FILE",
        help="TOML file that describes the cluster (fields below)",
    )
    parser.add_argument(
        "--run",
        required=True,
        type=Path,
        help="run folder, on a file system that all nodes share",
    )
    parser.add_argument("--name", help="job name (default: the name of the run folder)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and print the sbatch script instead of submitting it",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait until the job has ended; exit with status 0 if it completed, else 1",
    )
    parser.add_argument(
        "--follow", action="store_true", help="like --wait, and show a live table meanwhile"
    )
    parser.add_argument(
        "training",
        nargs=argparse.REMAINDER,
        metavar="-- ARGS",
        help="arguments of `colortrain train`",
    )
    return parser


def training_argv(args: argparse.Namespace) -> list[str]:
    """Return the arguments for `launch.train`.

    These are the user's arguments after `--`, and `--run` with the run folder. Raises
    UserError if the user gave an option that `submit` sets itself.
    """
    argv = list(args.training)
    if argv[:1] == ["--"]:
        del argv[0]
    reject_options(
        argv,
        ("--run", "--processes", "--dry-run"),
        "after --: remove it, `colortrain submit` sets it",
    )
    return [*argv, "--run", str(args.run)]


def reject_options(argv: Sequence[str], options: Sequence[str], reason: str) -> None:
    """Raise UserError if `argv` contains one of `options`, with or without "=value".

    The message consists of the option and `reason`.
    """
    for option in options:
        if any(argument == option or argument.startswith(f"{option}=") for argument in argv):
            raise UserError(f"{option} {reason}")


def check_training(argv: Sequence[str], cluster: Cluster) -> Recipe:
    """Check the arguments of `launch.train` and return the resolved recipe.

    Raises UserError if training would refuse the arguments, or if the batch size is not
    a multiple of the number of processes.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        train.main([*argv, "--dry-run"])
    recipe = train.resolve(train.make_parser().parse_args(argv))
    check_divides(recipe.batch_size, cluster.world_size)
    return recipe


def warn_about_small_batches(recipes: Iterable[Recipe], cluster: Cluster) -> None:
    """Print a warning for each batch size of which a process sees too few images."""
    warnings = {small_batch_warning(recipe, cluster.world_size): None for recipe in recipes}
    for text in filter(None, warnings):
        print(text, file=sys.stderr)


def check_idle(run: Path) -> None:
    """Raise UserError if an earlier job of this run has not ended."""
    job_id = runs.latest_job(run)
    job = queue.jobs([job_id])[job_id] if job_id else None
    if job and not job.finished:
        raise UserError(
            f"job {job.job_id} trains {run} already ({job.description}): "
            f"run `scancel {job.job_id}`, or choose another --run"
        )


def job_parameters(
    args: argparse.Namespace, cluster: Cluster, code: CodeSnapshot, argv: Sequence[str]
) -> dict[str, object]:
    """Return submitit's parameters for the training job.

    `argv` are the arguments of `submit`, from which `args` were parsed.
    """
    run = args.run.resolve()
    return batch.job_parameters(
        cluster,
        code,
        name=args.name or run.name,
        comment=f"{status.COMMENT}{run}",
        resume_command=batch.resume_command("submit", argv),
        runs=[run],
    )


def submit(args: argparse.Namespace, cluster: Cluster, argv: Sequence[str], recipe: Recipe) -> str:
    """Submit the training job and return the job id.

    `argv` are the arguments of `submit`, from which `args` were parsed. The recipe and
    a copy of the code are written to the run folder before, and the job is recorded in
    the folder's jobs.jsonl afterwards.
    """
    run = args.run.resolve()
    check_idle(run)
    (run / "slurm").mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, recipe_file(run))  # marks the folder as a run before the job starts
    code = take_snapshot(run / "slurm")
    train_argv = training_argv(args)
    context = JobContext(Path.cwd(), code, cluster.scratch)
    job = TrainingJob(tuple(train_argv), run, context, cluster.max_restarts)
    parameters = job_parameters(args, cluster, code, argv)
    (job_id,) = batch.submit(cluster, run / "slurm", parameters, [job])
    runs.record_job(
        run, job_id, {"cluster": str(args.cluster), "words": train_argv, "code": code.digest}
    )
    return job_id


def follow(run: Path, job_id: str, *, live: bool) -> int:
    """Wait until a job has ended; with `live`, show a table of the run meanwhile.

    Returns the exit status: 0 if the job completed, else 1.
    """
    console = Console()
    if not live:
        job = queue.wait([job_id], _INTERVAL)[job_id]
    elif console.is_terminal:
        with Live(status.make_table([run]), console=console, auto_refresh=False) as display:
            while not (job := queue.jobs([job_id])[job_id]).finished:
                display.update(status.make_table([run]), refresh=True)
                time.sleep(_INTERVAL)
            display.update(status.make_table([run]), refresh=True)
    else:
        job = _follow_as_log(run, job_id)
    print(f"job {job_id} {job.description}")
    return 0 if job.state == "COMPLETED" else 1


def _follow_as_log(run: Path, job_id: str) -> queue.Job:
    """Wait until a job has ended, and print a line whenever the run's status changes.

    This is used where the output is not a terminal.
    """
    last_line = ""
    while True:
        job = queue.jobs([job_id])[job_id]
        line = ", ".join(cell for cell in status.rows([run])[0][2:6] if cell)
        if line != last_line:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            last_line = line
        if job.finished:
            return job
        time.sleep(_INTERVAL)


def main(argv: Sequence[str] | None = None) -> int:
    """Submit a training run to SLURM and return the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(argv)
    cluster = load_cluster(args.cluster)
    train_argv = training_argv(args)
    cluster = resolve_on_site(cluster, required=not args.dry_run)
    recipe = check_training(train_argv, cluster)
    warn_about_small_batches([recipe], cluster)
    if args.dry_run:
        folder = args.run.resolve() / "slurm"
        parameters = job_parameters(args, cluster, planned_snapshot(folder), argv)
        print(batch.script_text(cluster, folder, parameters))
        return 0
    job_id = submit(args, cluster, argv, recipe)
    print(
        f"job {job_id}: {cluster.nodes} nodes x {cluster.tasks_per_node} processes, "
        f"{cluster.cpus} CPU{'s' if cluster.cpus > 1 else ''} each; "
        f"to see its state: colortrain status {args.run}"
    )
    if args.wait or args.follow:
        return follow(args.run, job_id, live=args.follow)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.submit", main))

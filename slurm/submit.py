"""Train on a cluster: one job, one process a GPU, requeued by itself until the run is at its end.

python -m slurm.submit --cluster site.toml --run runs/first -- --recipe nampouri_unet --shards photos-256
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from colortrain.data.loader import check_divides
from colortrain.recipe import Recipe, save_recipe
from colortrain.runs.layout import recipe_file
from launch import train
from launch.cli import CommandParser
from shards.errors import UserError, run_command
from slurm import batch, queue, runs, status
from slurm.cluster import Cluster, check_against_site, here, load_cluster
from slurm.code import ROOT, Code, digest_of, snapshot
from slurm.jobs import Place, Training

_EVERY = 2.0  # seconds between two looks at the queue
_EXAMPLE = """\
After -- stand the words of launch.train, less --run. A signal before a time limit or an eviction makes all processes
save between two steps and the job requeue; a lost node or process does so from the last checkpoint, until max_restarts
starts in a row have saved no step. Logs are in RUN/slurm.
A site file (TOML) has: partition, account, qos, constraint, nodes, gpus and cpus (per node, per process), processes
(per node, without GPUs), memory (GB per node), minutes, warning (seconds), max_restarts, parallel (elements of an array
at a time), setup (shell lines), scratch, python, options (of sbatch), [container] image, mounts, options; examples in
slurm/examples. example:
  python -m slurm.submit --cluster slurm/examples/plain.toml --run runs/first -- \\
    --recipe nampouri_unet --shards photos-256 --set batch_size=256
"""


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("slurm.submit", "Train on a cluster.", _EXAMPLE)
    words.add_argument(
        "--cluster", required=True, type=Path, metavar="FILE", help="the site's TOML file"
    )
    words.add_argument(
        "--run",
        required=True,
        type=Path,
        help="folder of the run, on a file system all nodes share",
    )
    words.add_argument("--name", help="of the job (default: the run folder's)")
    words.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the sbatch script, send nothing",
    )
    words.add_argument(
        "--wait",
        action="store_true",
        help="come back when the job is over; 0 if it completed, else 1",
    )
    words.add_argument("--follow", action="store_true", help="the same, with a live table")
    words.add_argument(
        "training", nargs=argparse.REMAINDER, metavar="-- WORDS", help="of launch.train"
    )
    return words


def training_words(arguments: argparse.Namespace) -> list[str]:
    """What launch.train will be given."""
    words = [word for number, word in enumerate(arguments.training) if (number, word) != (0, "--")]
    refuse(
        words,
        ("--run", "--processes", "--dry-run"),
        "after --: leave it out, slurm.submit says it itself",
    )
    return [*words, "--run", str(arguments.run)]


def refuse(words: Sequence[str], taken: Sequence[str], why: str) -> None:
    """Raise `UserError` for a word that launch.train is given from here, as `--word value` or `--word=value`."""
    for name in taken:
        if any(word == name or word.startswith(f"{name}=") for word in words):
            raise UserError(f"{name} {why}")


def check_training(words: Sequence[str], cluster: Cluster) -> Recipe:
    """Let launch.train check its words here, before anything is sent; the resolved recipe."""
    with contextlib.redirect_stdout(io.StringIO()):
        train.main([*words, "--dry-run"])
    recipe = train.resolve(train.make_parser().parse_args(words))
    check_divides(recipe.batch_size, cluster.world)
    return recipe


def check_idle(run: Path) -> None:
    """Raise `UserError` if an earlier job of this run is still there."""
    number = runs.job_of(run)
    job = queue.jobs([number])[number] if number else None
    if job and not job.ended:
        raise UserError(
            f"job {job.number} trains {run} already ({job.shown}): scancel {job.number}, or choose another --run"
        )


def plan(
    arguments: argparse.Namespace, cluster: Cluster, code: Code, words: Sequence[str]
) -> dict[str, object]:
    """What the job is called and asks for."""
    run = arguments.run.resolve()
    again = [
        "python",
        "-m",
        "slurm.submit",
        "--cluster",
        str(arguments.cluster),
        "--run",
        str(arguments.run),
        "--",
    ]
    return batch.parameters(
        cluster,
        code,
        name=arguments.name or run.name,
        comment=f"{status.COMMENT}{run}",
        again=f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join([*again, *words[:-2]])}",
        runs=[run],
    )


def send(
    arguments: argparse.Namespace, cluster: Cluster, words: Sequence[str], recipe: Recipe
) -> str:
    """Copy the code, submit, note it in the run folder; the job's number."""
    run = arguments.run.resolve()
    check_idle(run)
    (run / "slurm").mkdir(parents=True, exist_ok=True)
    save_recipe(
        recipe, recipe_file(run)
    )  # by which the run folder is known as one, before it has begun
    code = snapshot(run / "slurm")
    job = Training(
        tuple(words), run, Place(Path.cwd(), code, cluster.scratch), cluster.max_restarts
    )
    (number,) = batch.submit(cluster, run / "slurm", plan(arguments, cluster, code, words), [job])
    runs.record_job(
        run, number, {"cluster": str(arguments.cluster), "words": list(words), "code": code.digest}
    )
    return number


def follow(run: Path, number: str, *, live: bool) -> int:
    """Wait for the end of a job, with a table of the run if `live`; the exit status."""
    console = Console()
    if not live:
        job = queue.wait([number], _EVERY)[number]
    elif console.is_terminal:
        with Live(status.table([run]), console=console, auto_refresh=False) as shown:
            while not (job := queue.jobs([number])[number]).ended:
                shown.update(status.table([run]), refresh=True)
                time.sleep(_EVERY)
            shown.update(status.table([run]), refresh=True)
    else:
        job = _follow_in_lines(run, number)
    print(f"job {number} {job.shown}")
    return 0 if job.state == "COMPLETED" else 1


def _follow_in_lines(run: Path, number: str) -> queue.Job:
    """A line whenever something changed, for logs."""
    said = ""
    while True:
        job = queue.jobs([number])[number]
        line = ", ".join(cell for cell in status.rows([run])[0][2:6] if cell)
        if line != said:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            said = line
        if job.ended:
            return job
        time.sleep(_EVERY)


def main(argv: Sequence[str] | None = None) -> int:
    """Submit a training run; returns the exit status."""
    arguments = parser().parse_args(argv)
    cluster = load_cluster(arguments.cluster)
    words = training_words(arguments)
    if here() or not arguments.dry_run:
        check_against_site(cluster)
    recipe = check_training(words, cluster)
    if arguments.dry_run:
        folder = arguments.run.resolve() / "slurm"
        code = Code(folder / f"code-{digest_of(ROOT)}", digest_of(ROOT))
        print(batch.text(cluster, folder, plan(arguments, cluster, code, words)))
        return 0
    number = send(arguments, cluster, words, recipe)
    print(
        f"job {number}: {cluster.nodes} nodes x {cluster.tasks} processes; python -m slurm.status {arguments.run}"
    )
    if arguments.wait or arguments.follow:
        return follow(arguments.run, number, live=arguments.follow)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.submit", main))

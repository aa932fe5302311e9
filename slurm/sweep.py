"""Train a recipe at every point of a grid as a job array, and show a table.

A point is a combination of values of the recipe's fields, and has its own run folder.

    colortrain sweep --cluster site.toml --out sweeps/depth \\
        --grid generator.depth=2,3,4 --recipe valentini_wgan --shards photos-64
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from colortrain.recipe import Recipe, save_recipe
from colortrain.runs.history import last_scores
from colortrain.runs.layout import recipe_file, sweep_file
from launch.cli import CommandParser
from shards.errors import UserError, run_command
from shards.files import write_atomic
from slurm import batch, queue, runs, status
from slurm.cluster import Cluster, load_cluster, resolve_on_site
from slurm.code import CodeSnapshot, planned_snapshot, take_snapshot
from slurm.jobs import JobContext, TrainingJob
from slurm.submit import check_training, reject_options, warn_about_small_batches

_SCORES = ("l1", "psnr", "colourfulness", "grey l1")  # columns, from the last validation
_EXAMPLE = """\
All other options are those of `colortrain train`. Run the same command again to submit the
points that have not ended and to print the table of all points.

example:
  colortrain sweep --cluster site.toml --out sweeps/penalty --recipe valentini_wgan \\
    --shards photos-64 --grid generator.depth=2,3,4 \\
    --grid objective.penalties.0.weight=0,0.1,0.3 --wait
"""

Point = tuple[str, ...]  # one "field=value" per grid


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of `colortrain sweep`.

    It does not know the options of training, which `sweep` passes on unchanged.
    """
    parser = CommandParser("slurm.sweep", "Train a recipe at every point of a grid.", _EXAMPLE)
    parser.add_argument(
        "--cluster",
        required=True,
        type=Path,
        metavar="FILE",
        help="TOML file that describes the cluster (its fields: `colortrain submit --help`)",
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="folder in which the run folders are created"
    )
    parser.add_argument(
        "--grid",
        required=True,
        action="append",
        metavar="FIELD=A,B,C",
        help="a field of the recipe and its values; repeat for further fields",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check all points and print the sbatch script instead of submitting it",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait until all jobs have ended, then print the table; exit with status 1 if a run "
        "has not reached its end",
    )
    return parser


def grid_points(grids: Sequence[str]) -> list[Point]:
    """Return every combination of the grids' values.

    Each grid is FIELD=A,B,C. The value of the last grid changes first, as in nested
    loops. Raises UserError for a grid without values, or for two grids of one field.
    """
    axes = []
    for grid in grids:
        field, equals, values = grid.partition("=")
        if not equals or not all(values.split(",")):
            raise UserError(
                f"--grid {grid!r}: write it as field=value,value, for example --grid n_critic=1,5"
            )
        axes.append([f"{field}={value}" for value in values.split(",")])
    fields = [axis[0].partition("=")[0] for axis in axes]
    if len(set(fields)) < len(fields):
        raise UserError(
            f"--grid: {max(fields, key=fields.count)} has two grids, give all its values in one"
        )
    return list(itertools.product(*axes))


def training_argv(point: Point, run: Path, common: Sequence[str]) -> list[str]:
    """Return the arguments of `launch.train` for one point of the grid.

    `common` are the arguments for all points. Raises UserError if they contain an
    option that `sweep` sets itself.
    """
    reject_options(
        common,
        ("--run", "--processes"),
        "of `colortrain train`: remove it, `colortrain sweep` sets it for each point",
    )
    changes = [argument for change in point for argument in ("--set", change)]
    return [*common, *changes, "--run", str(run)]


def make_table(out: Path, points: dict[str, Point]) -> Table:
    """Return a table with one row per point of a sweep.

    A point is a combination of field values. Its row contains these values, the state
    of its job, the step that its run has reached and its latest scores.
    """
    fields = [change.partition("=")[0] for change in next(iter(points.values()))]
    known = queue.jobs(job_id for name in points if (job_id := runs.latest_job(out / name)))
    table = Table(*fields, "state", "step", *_SCORES, box=box.SIMPLE)
    for name, point in points.items():
        run = out / name
        job, scores = known.get(runs.latest_job(run) or ""), last_scores(run)
        values = [change.partition("=")[2] for change in point]
        cells = [f"{scores[key]:.4g}" if key in scores else "" for key in _SCORES]
        step = f"{runs.read_progress(run).step:,}"
        table.add_row(*values, job.description if job else "no job", step, *cells)
    return table


def unfinished_points(out: Path, points: dict[str, Point]) -> dict[str, Point]:
    """Return the points of the grid that have to be submitted, as {name: point}.

    These are the points whose run has not reached its end and has no job that is
    pending or running.
    """
    job_ids = {name: runs.latest_job(out / name) for name in points}
    known = queue.jobs(job_id for job_id in job_ids.values() if job_id)
    active = {name for name, job_id in job_ids.items() if job_id and not known[job_id].finished}
    return {
        name: point
        for name, point in points.items()
        if name not in active and not runs.read_progress(out / name).finished
    }


def job_parameters(
    cluster: Cluster, code: CodeSnapshot, out: Path, names: Iterable[str], argv: Sequence[str]
) -> dict[str, Any]:
    """Return submitit's parameters for the job array of a sweep.

    `names` are the names of the sweep's points (combinations of field values), one per
    task of the array. `argv` are the arguments of `sweep`.
    """
    return batch.job_parameters(
        cluster,
        code,
        name=out.name,
        comment=f"{status.COMMENT}{out}",
        resume_command=batch.resume_command("sweep", argv),
        runs=[out / name for name in names],
    )


def submit_points(
    out: Path,
    cluster: Cluster,
    recipes: dict[str, Recipe],
    train_argvs: dict[str, list[str]],
    argv: Sequence[str],
) -> str:
    """Submit points of a grid as one job array, and record the job of each point.

    A point is a combination of field values. `recipes` contains the recipes of the
    points to submit, keyed by the name of the point. `train_argvs` has the same keys,
    and may have more; its values are the arguments of `launch.train`. `argv` are the
    arguments of `sweep`. Returns one line that names the job.
    """
    (out / "slurm").mkdir(parents=True, exist_ok=True)
    context = JobContext(Path.cwd(), take_snapshot(out / "slurm"), cluster.scratch)
    for name in recipes:
        (out / name / "slurm").mkdir(parents=True, exist_ok=True)
        save_recipe(recipes[name], recipe_file(out / name))
    calls = [
        TrainingJob(tuple(train_argvs[name]), out / name, context, cluster.max_restarts)
        for name in recipes
    ]
    parameters = job_parameters(cluster, context.code, out, recipes, argv)
    job_ids = batch.submit(cluster, out / "slurm", parameters, calls)
    for name, job_id in zip(recipes, job_ids, strict=True):
        facts = {"words": train_argvs[name], "code": context.code.digest}
        runs.record_job(out / name, job_id, facts)
    return f"job {job_ids[0].split('_')[0]}: {len(job_ids)} points in {out}"


def main(argv: Sequence[str] | None = None) -> int:
    """Submit the points of the grid that are not trained yet, and print all points.

    A point is a combination of field values. The points are printed as a table. Returns
    the exit status.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args, common = make_parser().parse_known_args(argv)
    cluster, out = load_cluster(args.cluster), args.out.resolve()
    points = {",".join(point).replace("/", "_"): point for point in grid_points(args.grid)}
    train_argvs = {name: training_argv(point, out / name, common) for name, point in points.items()}
    cluster = resolve_on_site(cluster, required=not args.dry_run)
    recipes = {name: check_training(train_argvs[name], cluster) for name in points}
    warn_about_small_batches(recipes.values(), cluster)
    if args.dry_run:
        folder = out / "slurm"
        parameters = job_parameters(cluster, planned_snapshot(folder), out, points, argv)
        print(batch.script_text(cluster, folder, parameters, len(points)))
        return 0
    missing = unfinished_points(out, points)
    submitted = {name: recipes[name] for name in missing}
    line = submit_points(out, cluster, submitted, train_argvs, argv) if missing else None
    write_atomic(sweep_file(out), json.dumps(points, indent=1).encode())
    if line:
        print(line)
    return report(out, points, wait=args.wait)


def report(out: Path, points: dict[str, Point], *, wait: bool) -> int:
    """Print the table of a sweep; with `wait`, first wait until all jobs have ended.

    Returns the exit status. It is 1 if `wait` is given and a run has not reached its
    end, else 0.
    """
    if wait:
        queue.wait([job_id for name in points if (job_id := runs.latest_job(out / name))])
    Console(width=None if sys.stdout.isatty() else 160).print(make_table(out, points))
    if not wait:
        return 0
    return 0 if all(runs.read_progress(out / name).finished for name in points) else 1


if __name__ == "__main__":
    sys.exit(run_command("slurm.sweep", main))

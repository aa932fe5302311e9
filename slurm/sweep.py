"""Many runs of a recipe with other numbers: a job array, one run folder a point, one table at the end.

python -m slurm.sweep --cluster site.toml --out sweeps/depth --grid generator.depth=2,3,4 --recipe R --shards S
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
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
from slurm.cluster import Cluster, check_against_site, here, load_cluster
from slurm.code import ROOT, Code, digest_of, snapshot
from slurm.jobs import Place, Training
from slurm.submit import check_training, refuse

_SHOWN = ("l1", "psnr", "colourfulness", "grey l1")  # of the last validation
_EXAMPLE = """\
All other words are launch.train's. The same command again submits the points that have not ended, and prints the table
of all. example:
  python -m slurm.sweep --cluster site.toml --out sweeps/penalty --recipe valentini_wgan --shards photos-64 \\
    --grid generator.depth=2,3,4 --grid objective.penalties.0.weight=0,.1,.3 --wait
"""

Point = tuple[str, ...]  # of "field=value"


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("slurm.sweep", "Many runs of a recipe with other numbers.", _EXAMPLE)
    words.add_argument(
        "--cluster", required=True, type=Path, metavar="FILE", help="the site's TOML file"
    )
    words.add_argument("--out", required=True, type=Path, help="folder of the run folders")
    words.add_argument(
        "--grid", required=True, action="append", metavar="FIELD=A,B,C", help="values of a field"
    )
    words.add_argument(
        "--dry-run",
        action="store_true",
        help="check all points, print the sbatch script, send nothing",
    )
    words.add_argument(
        "--wait", action="store_true", help="come back when all is over, with the table"
    )
    return words


def grid_points(grids: Sequence[str]) -> list[Point]:
    """Every combination, the last grid's values changing fastest."""
    axes = []
    for grid in grids:
        field, equals, values = grid.partition("=")
        if not equals or not all(values.split(",")):
            raise UserError(
                f"--grid {grid!r}: write it as field=value,value, for instance --grid n_critic=1,5"
            )
        axes.append([f"{field}={value}" for value in values.split(",")])
    fields = [axis[0].partition("=")[0] for axis in axes]
    if len(set(fields)) < len(fields):
        raise UserError(
            f"--grid: {max(fields, key=fields.count)} has two grids, give all its values in one"
        )
    return list(itertools.product(*axes))


def words_of(point: Point, run: Path, common: Sequence[str]) -> list[str]:
    """What launch.train is given for a point."""
    refuse(
        common,
        ("--run", "--processes"),
        "of launch.train: leave it out, slurm.sweep says it for each point",
    )
    return [*common, *(word for change in point for word in ("--set", change)), "--run", str(run)]


def table(out: Path, points: dict[str, Point]) -> Table:
    """Every point's numbers, how far it is and what it scored."""
    fields = [change.partition("=")[0] for change in next(iter(points.values()))]
    known = queue.jobs(number for name in points if (number := runs.job_of(out / name)))
    shown = Table(*fields, "state", "step", *_SHOWN, box=box.SIMPLE)
    for name, point in points.items():
        run = out / name
        job, scores = known.get(runs.job_of(run) or ""), last_scores(run)
        values = [change.partition("=")[2] for change in point]
        figures = [f"{scores[key]:.4g}" if key in scores else "" for key in _SHOWN]
        shown.add_row(
            *values, job.shown if job else "no job", f"{runs.progress(run).step:,}", *figures
        )
    return shown


def unfinished(out: Path, points: dict[str, Point]) -> dict[str, Point]:
    """Points that have not reached their end and have no job that may still bring them there."""
    numbers = {name: runs.job_of(out / name) for name in points}
    known = queue.jobs(number for number in numbers.values() if number)
    alive = {name for name, number in numbers.items() if number and not known[number].ended}
    return {
        name: point
        for name, point in points.items()
        if name not in alive and not runs.progress(out / name).ended
    }


def told(
    cluster: Cluster, code: Code, out: Path, names: Iterable[str], argv: Sequence[str]
) -> dict[str, Any]:
    """submitit's parameters of the array."""
    again = (
        f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(['python', '-m', 'slurm.sweep', *argv])}"
    )
    comment, folders = f"{status.COMMENT}{out}", [out / name for name in names]
    return batch.parameters(
        cluster, code, name=out.name, comment=comment, again=again, runs=folders
    )


def send(
    out: Path,
    cluster: Cluster,
    recipes: dict[str, Recipe],
    words: dict[str, list[str]],
    argv: Sequence[str],
) -> None:
    """Submit points, by name, as one array."""
    (out / "slurm").mkdir(parents=True, exist_ok=True)
    place = Place(Path.cwd(), snapshot(out / "slurm"), cluster.scratch)
    for name in recipes:
        (out / name / "slurm").mkdir(parents=True, exist_ok=True)
        save_recipe(recipes[name], recipe_file(out / name))
    calls = [
        Training(tuple(words[name]), out / name, place, cluster.max_restarts) for name in recipes
    ]
    numbers = batch.submit(
        cluster, out / "slurm", told(cluster, place.code, out, recipes, argv), calls
    )
    for name, number in zip(recipes, numbers, strict=True):
        runs.record_job(out / name, number, {"words": words[name], "code": place.code.digest})
    print(f"job {numbers[0].split('_')[0]}: {len(numbers)} points below {out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Submit what is missing, print the table; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments, common = parser().parse_known_args(argv)
    cluster, out = load_cluster(arguments.cluster), arguments.out.resolve()
    points = {",".join(point).replace("/", "_"): point for point in grid_points(arguments.grid)}
    words = {name: words_of(point, out / name, common) for name, point in points.items()}
    if here() or not arguments.dry_run:
        check_against_site(cluster)
    recipes = {name: check_training(words[name], cluster) for name in points}
    if arguments.dry_run:
        code = Code(out / "slurm" / f"code-{digest_of(ROOT)}", digest_of(ROOT))
        print(
            batch.text(cluster, out / "slurm", told(cluster, code, out, points, argv), len(points))
        )
        return 0
    if missing := unfinished(out, points):
        send(out, cluster, {name: recipes[name] for name in missing}, words, argv)
    write_atomic(sweep_file(out), json.dumps(points, indent=1).encode())
    return report(out, points, wait=arguments.wait)


def report(out: Path, points: dict[str, Point], *, wait: bool) -> int:
    """Print the table, after the end of all with `wait`; 1 if a point failed."""
    if wait:
        queue.wait([number for name in points if (number := runs.job_of(out / name))])
    Console(width=None if sys.stdout.isatty() else 160).print(table(out, points))
    return 1 if wait and not all(runs.progress(out / name).ended for name in points) else 0


if __name__ == "__main__":
    sys.exit(run_command("slurm.sweep", main))

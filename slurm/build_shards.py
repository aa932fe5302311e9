"""Build shards on many nodes: a job array packs the images, then a job merges.

Each task of the array packs one part of the images.

colortrain build_shards --cluster site.toml --parts 16 -- photos photos-256 --size 256
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cli import CommandParser, at_least_one
from shards.__main__ import make_parser as make_shards_parser
from shards.errors import UserError, run_command
from slurm import batch, queue
from slurm.cluster import Cluster, load_cluster, resolve_on_site
from slurm.code import CodeSnapshot, planned_snapshot, take_snapshot
from slurm.jobs import JobContext, ShardsJob

_EXAMPLE = """\
The arguments after -- are those of `colortrain shards build`; OUT must be on a file system
that all nodes share. The result is byte-identical to a build on one machine. Run the same
command again to resume an interrupted build. The second job merges the parts and verifies the
shard set. Logs are in OUT-slurm. The fields nodes, gpus and processes of the site file are
ignored: each part is one process on `cpus` CPUs.

example:
  colortrain build_shards --cluster site.toml --parts 16 -- \\
    photos photos-256 --size 256 --splits train=0.95,val=0.05
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of `colortrain build_shards`."""
    parser = CommandParser("slurm.build_shards", "Build shards on many nodes.", _EXAMPLE)
    parser.add_argument(
        "--cluster",
        required=True,
        type=Path,
        metavar="FILE",
        help="TOML file that describes the cluster (its fields: `colortrain submit --help`)",
    )
    parser.add_argument(
        "--parts",
        required=True,
        type=at_least_one,
        metavar="N",
        help="number of parts; each is one array task",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print both sbatch scripts instead of submitting them",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait until all jobs have ended; exit with status 0 if they completed, else 1",
    )
    parser.add_argument(
        "build",
        nargs=argparse.REMAINDER,
        metavar="-- ARGS",
        help="arguments of `colortrain shards build`",
    )
    return parser


def build_argv(args: argparse.Namespace) -> tuple[list[str], Path]:
    """Return the arguments for `shards build`, and the output folder that they name.

    They are the user's arguments after `--`. Raises UserError if `shards build` would
    refuse them, or if they contain --part.
    """
    argv = list(args.build)
    if argv[:1] == ["--"]:
        del argv[0]
    build_args = make_shards_parser().parse_args(["build", *argv])
    if build_args.part is not None:
        raise UserError("--part after --: remove it, and give the number of parts as --parts")
    return argv, build_args.out


def job_parameters(
    cluster: Cluster, code: CodeSnapshot, name: str, resume_command: str, **more: Any
) -> dict[str, Any]:
    """Return submitit's parameters for the job array that packs, or for the merge job.

    `more` are further parameters, which are added unchanged. A job is cancelled when a
    job that it depends on fails.
    """
    parameters = batch.job_parameters(
        cluster, code, name=name, comment="", resume_command=resume_command
    )
    del parameters["comment"]
    # otherwise the merge would wait forever for a part that has failed
    parameters["additional_parameters"] |= {"kill-on-invalid-dep": "yes"}
    return {**parameters, **more}


def main(argv: Sequence[str] | None = None) -> int:
    """Submit the job array that packs the shards and the job that merges them.

    Returns the exit status.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(argv)
    resume_command = batch.resume_command("build_shards", argv)
    cluster = dataclasses.replace(load_cluster(args.cluster), nodes=1, gpus=0, processes=1)
    shards_argv, out = build_argv(args)
    cluster = resolve_on_site(cluster, required=not args.dry_run)
    if args.dry_run:
        print_scripts(cluster, log_folder(out), args.parts, resume_command)
        return 0
    return submit(args, cluster, shards_argv, out, resume_command)


def print_scripts(cluster: Cluster, logs: Path, parts: int, resume_command: str) -> None:
    """Print the sbatch scripts of the job array that packs and of the merge job."""
    code = planned_snapshot(logs)
    array = job_parameters(cluster, code, "pack", resume_command)
    merge = job_parameters(cluster, code, "merge", resume_command, dependency="afterok:ARRAY")
    print(batch.script_text(cluster, logs, array, parts))
    print(batch.script_text(cluster, logs, merge))


def log_folder(out: Path) -> Path:
    """Return the folder for the jobs' logs and code: OUT-slurm, next to the shards."""
    return Path(f"{out.resolve()}-slurm")


def submit(
    args: argparse.Namespace,
    cluster: Cluster,
    argv: Sequence[str],
    out: Path,
    resume_command: str,
) -> int:
    """Submit the job array that packs the shards and the job that merges them.

    Returns the exit status. `argv` are the arguments of `shards build`. With --wait,
    wait until the merge job has ended; the status is then 0 if it completed, else 1.
    """
    logs = log_folder(out)
    logs.mkdir(parents=True, exist_ok=True)
    context = JobContext(Path.cwd(), take_snapshot(logs), cluster.scratch)
    workers = ("--workers", str(cluster.cpus))
    parts = [f"{number}/{args.parts}" for number in range(1, args.parts + 1)]
    # a --workers given by the user comes later, and argparse uses the last one
    builds = [ShardsJob((("build", *workers, *argv, "--part", part),), context) for part in parts]
    merge = ShardsJob((("merge", str(out), *workers), ("verify", str(out))), context)
    array = job_parameters(cluster, context.code, "pack", resume_command)
    array_id = batch.submit(cluster, logs, array, builds)[0].split("_")[0]
    dependent = job_parameters(
        cluster, context.code, "merge", resume_command, dependency=f"afterok:{array_id}"
    )
    (merge_id,) = batch.submit(cluster, logs, dependent, [merge])
    print(
        f"job {array_id}: {args.parts} parts; then job {merge_id}: merge and verify. Logs: {logs}"
    )
    if not args.wait:
        return 0
    state = queue.wait([merge_id])[merge_id].state
    print(f"job {merge_id} {state.lower()}")
    return 0 if state == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(run_command("slurm.build_shards", main))

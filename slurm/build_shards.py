"""Pack photographs on many nodes: a job array, one part an element, then one job that merges and verifies.

python -m slurm.build_shards --cluster site.toml --parts 16 -- PHOTOS photos-256 --size 256
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cli import CommandParser, at_least_one
from shards.__main__ import make_parser as shards_parser
from shards.errors import UserError, run_command
from slurm import batch, queue
from slurm.cluster import Cluster, check_against_site, here, load_cluster
from slurm.code import ROOT, Code, digest_of, snapshot
from slurm.jobs import Place, Shards

_EXAMPLE = """\
After -- stand the words of `python -m shards build`; OUT lies where all nodes see it. The bytes are those of one plain
build; the same command goes on where an earlier one stopped. Logs are in OUT-slurm. Of the site file, nodes, gpus and
processes are not asked for: a part is one process on `cpus` CPUs. example:
  python -m slurm.build_shards --cluster site.toml --parts 16 -- photos photos-256 --size 256 --splits train=.95,val=.05
"""


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("slurm.build_shards", "Pack photographs on many nodes.", _EXAMPLE)
    words.add_argument(
        "--cluster", required=True, type=Path, metavar="FILE", help="the site's TOML file"
    )
    words.add_argument(
        "--parts", required=True, type=at_least_one, metavar="N", help="elements of the array"
    )
    words.add_argument(
        "--dry-run", action="store_true", help="print both sbatch scripts, send nothing"
    )
    words.add_argument(
        "--wait", action="store_true", help="come back when all is over; 0 if it completed, else 1"
    )
    words.add_argument(
        "build", nargs=argparse.REMAINDER, metavar="-- WORDS", help="of python -m shards build"
    )
    return words


def build_words(given: Sequence[str]) -> tuple[list[str], Path]:
    """The words of `shards build`, checked by its own parser, and its OUT."""
    words = [word for number, word in enumerate(given) if (number, word) != (0, "--")]
    asked = shards_parser().parse_args(["build", *words])
    if asked.part is not None:
        raise UserError("--part after --: leave it out, and give the number of parts as --parts")
    return words, asked.out


def told(cluster: Cluster, code: Code, name: str, again: str, **more: Any) -> dict[str, Any]:
    """submitit's parameters of one process of packing."""
    found = batch.parameters(cluster, code, name=name, comment="", again=again)
    del found["comment"]
    # or the merge would wait for ever for a part that failed
    found["additional_parameters"] |= {"kill-on-invalid-dep": "yes"}
    return {**found, **more}


def main(argv: Sequence[str] | None = None) -> int:
    """Submit the array and the job after it; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(argv)
    again = shlex.join(["python", "-m", "slurm.build_shards", *argv])
    cluster = dataclasses.replace(load_cluster(arguments.cluster), nodes=1, gpus=0, processes=1)
    words, out = build_words(arguments.build)
    if here() or not arguments.dry_run:
        check_against_site(cluster)
    logs = logs_of(out)
    if arguments.dry_run:
        code = Code(logs / f"code-{digest_of(ROOT)}", digest_of(ROOT))
        print(batch.text(cluster, logs, told(cluster, code, "pack", again), arguments.parts))
        print(
            batch.text(
                cluster, logs, told(cluster, code, "merge", again, dependency="afterok:ARRAY")
            )
        )
        return 0
    return send(arguments, cluster, words, out, again)


def logs_of(out: Path) -> Path:
    """Where the jobs' files go: beside the shard set, which holds nothing but itself."""
    return Path(f"{out.resolve()}-slurm")


def send(
    arguments: argparse.Namespace, cluster: Cluster, words: Sequence[str], out: Path, again: str
) -> int:
    """Submit both; with --wait, come back at the end of the second."""
    logs = logs_of(out)
    logs.mkdir(parents=True, exist_ok=True)
    place = Place(Path.cwd(), snapshot(logs), cluster.scratch)
    workers = ("--workers", str(cluster.cpus))
    parts = [f"{number}/{arguments.parts}" for number in range(1, arguments.parts + 1)]
    # the user's own --workers comes after ours, and the last one counts
    packing = [Shards((("build", *workers, *words, "--part", part),), place) for part in parts]
    merging = Shards((("merge", str(out), *workers), ("verify", str(out))), place)
    numbers = batch.submit(cluster, logs, told(cluster, place.code, "pack", again), packing)
    after = f"afterok:{numbers[0].split('_')[0]}"
    (last,) = batch.submit(
        cluster, logs, told(cluster, place.code, "merge", again, dependency=after), [merging]
    )
    print(
        f"job {numbers[0].split('_')[0]}: {arguments.parts} parts; then job {last}: merge, verify. Logs: {logs}"
    )
    if not arguments.wait:
        return 0
    state = queue.wait([last])[last].state
    print(f"job {last} {state.lower()}")
    return 0 if state == "COMPLETED" else 1


if __name__ == "__main__":
    sys.exit(run_command("slurm.build_shards", main))

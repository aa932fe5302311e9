"""The commands in docs/SLURM.md are accepted as they are written there."""

from __future__ import annotations

import re
import shlex
import subprocess

from launch import train
from slurm import build_shards, submit, sweep
from tests.support.processes import ROOT


def documented_commands() -> dict[str, list[str]]:
    """Return command -> arguments, as a shell expands the lines of docs/SLURM.md.

    The last line of a command counts.
    """
    text = (ROOT / "docs" / "SLURM.md").read_text()
    lines = re.findall(r"^    ((?:ARGS=|colortrain )(?:.*\\\n)*.*)$", text, re.MULTILINE)
    script = "\n".join(["colortrain() { printf '%q ' \"$@\"; echo; }", *lines])
    done = subprocess.run(
        ["bash", "-uc", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {argv[0]: argv[1:] for argv in map(shlex.split, done.stdout.splitlines())}


def test_documented_commands_are_accepted() -> None:
    commands = documented_commands()
    assert list(commands) == ["build_shards", "submit", "status", "sweep"]
    build_args = build_shards.make_parser().parse_args(commands["build_shards"])
    _, out = build_shards.build_argv(build_args)
    submit_args = submit.make_parser().parse_args(commands["submit"])
    train_args = train.make_parser().parse_args(submit.training_argv(submit_args))
    assert train_args.shards == [str(out)]
    assert train.resolve(train_args).size == 32
    sweep_args, common = sweep.make_parser().parse_known_args(commands["sweep"])
    points = sweep.grid_points(sweep_args.grid)
    point_args = train.make_parser().parse_args(sweep.training_argv(points[0], out, common))
    assert point_args.set == list(points[0])

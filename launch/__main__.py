"""The `colortrain` program: `colortrain NAME ...` runs the command NAME.

colortrain --help
colortrain evaluate --run runs/first --shards photos-256
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from launch.cli import COMMAND_GROUPS, COMMANDS
from shards.errors import PROGRAM, run_command, unknown

_HEAD = f"""\
usage: {PROGRAM} COMMAND [ARGUMENTS...]
       {PROGRAM} --version

Train image-colorization GANs on one machine or on clusters.
"""
_EXAMPLE = f"""\
`{PROGRAM} COMMAND --help` describes one command.

example: score a trained network
  {PROGRAM} evaluate --run runs/first --shards photos-256
"""


def usage() -> str:
    """Return the text of `colortrain --help`, which lists all commands."""
    width = max(map(len, COMMANDS))
    lines = [_HEAD]
    for group, commands in COMMAND_GROUPS.items():
        lines.append(f"{group}:")
        lines += [f"  {name:<{width}}  {phrase}" for name, (_, phrase) in commands.items()]
        lines.append("")
    return "\n".join([*lines, _EXAMPLE])


def version_line() -> str:
    """Return the text of `colortrain --version`, with the installed version."""
    try:
        return f"{PROGRAM} {version(PROGRAM)}"
    except PackageNotFoundError:  # imported from a source tree that is not installed
        return f"{PROGRAM} (not installed, version unknown)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names and return its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    command = args[0] if args and args[0] in COMMANDS else PROGRAM
    return run_command(command, _dispatch, args)


def _dispatch(argv: Sequence[str] | None) -> int | None:
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(version_line())
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    # Only the module of this command is imported.
    status: int | None = importlib.import_module(COMMANDS[name][0]).main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())

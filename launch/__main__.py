"""Every door under one name: `colortrain train ...` is `python -m launch.train ...`. Only the chosen door is imported.

colortrain evaluate --run runs/first --shards photos-256
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from launch.cli import COMMANDS
from shards.errors import UserError, run_command, unknown

_EXAMPLE = """\
`colortrain DOOR --help` says more. example:
  colortrain evaluate --run runs/first --shards photos-256
"""


def usage() -> str:
    """The doors, with a phrase each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {phrase}" for name, (_, phrase) in COMMANDS.items()]
    return "\n".join(["usage: colortrain DOOR [WORDS...]", "", *lines, "", _EXAMPLE])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the door that the first word names; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    return run_command(f"colortrain {name}".strip(), _enter, words)


def _enter(words: Sequence[str] | None) -> int | None:
    assert words is not None
    if not words:
        raise UserError(
            f"no command named; valid: {', '.join(COMMANDS)} (`colortrain --help` says more)"
        )
    name, *rest = words
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    status: int | None = importlib.import_module(COMMANDS[name][0]).main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())

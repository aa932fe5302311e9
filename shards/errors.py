"""What a user did wrong, said in one line, and the door that says it (exit status 2, no traceback)."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence


class UserError(Exception):
    """A mistake the user can mend: one line that says what, where and what to do."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """An error for a name that does not exist; lists the valid ones, the nearest first."""
    names = sorted(
        valid, key=lambda other: (-difflib.SequenceMatcher(None, name, other).ratio(), other)
    )
    return UserError(f"unknown {kind} {name!r}; valid, nearest first: {', '.join(names) or 'none'}")


def describe(error: BaseException) -> str | None:
    """The one line for an error that is the user's or the machine's, None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OS_ERRORS:
        where = f" at {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}: {_OS_ERRORS[error.errno]}"
    return None


_OS_ERRORS = {
    errno.ENOSPC: "free some space, then run the same command again (finished work is kept)",
    errno.EDQUOT: "your quota is used up; free some space, then run the same command again",
    errno.EACCES: "check the permissions or choose another folder",
    errno.EPERM: "check the permissions or choose another folder",
    errno.EROFS: "choose a folder on a writable file system",
    errno.EISDIR: "a file was expected, give a file's path",
    errno.ENOTDIR: "a folder was expected, give a folder's path",
    errno.ENOENT: "check the path",
    errno.EEXIST: "something else has that name, choose another",
    errno.EFBIG: "the file system or `ulimit -f` allows no larger file, choose another folder or smaller shards",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "the link leads to itself, check the path",
    errno.EIO: "the disk or the network file system fails, check it, then run the same command again",
    errno.ESTALE: "the network file system went away, check it, then run the same command again",
    errno.ETIMEDOUT: "the network file system does not answer, check it, then run the same command again",
    errno.ENOTCONN: "the network file system went away, check it, then run the same command again",
    errno.EMFILE: "too many open files, raise `ulimit -n`",
    errno.ENFILE: "the machine has too many open files, wait or close some, then run the same command again",
    errno.ENOMEM: "not enough memory, run the same command again with less at a time",
}


def _of_rank(line: str) -> str:
    """The line as rank 0 says it; others wait, so that an error of all is said once and one of their own is heard."""
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        return line
    time.sleep(5)  # the launcher ends us meanwhile if rank 0 failed too
    return f"rank {rank}: {line}"


Main = Callable[[Sequence[str] | None], int | None]


def run_command(program: str, main: Main, argv: Sequence[str] | None = None) -> int:
    """Run a door's `main(argv)`, return the exit status; a user's error becomes one line on stderr and 2, a bug 70."""
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` closed our standard output: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = describe(error)
        if line is None:  # not the 1 that Python would give: that tells of images left out
            traceback.print_exc()
            return os.EX_SOFTWARE
        print(f"{program}: error: {_of_rank(line)}", file=sys.stderr)
        return 2

"""One-line errors for users, and the wrapper that runs a command and prints them.

A user error becomes one line on standard error and exit status 2, without a
traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


class UserError(Exception):
    """An error that the user can fix.

    The message is one line: what is wrong, where, and what to do.
    """


class PermanentError(UserError):
    """A user error that would occur again if the same command was started again.

    SLURM does not requeue a job in which a process ended with it.
    """


# The name of an environment variable. `run_command` creates the file that it names when
# a PermanentError or a lack of memory ends the command. The batch scripts of SLURM jobs
# look for this file, because the status of srun may be that of another process.
PERMANENT_ERROR_FILE = "COLORTRAIN_PERMANENT_ERROR_FILE"

# In the messages of torch, cuDNN, cuBLAS and NCCL about memory that is used up.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|ALLOC_FAILED|ALLOCATION_FAILED|Failed to CUDA calloc"
)


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Return a UserError that lists the valid names, the most similar to `name` first.

    `kind` says what the names stand for, such as "split".
    """
    names = sorted(
        valid, key=lambda other: (-difflib.SequenceMatcher(None, name, other).ratio(), other)
    )
    return UserError(f"unknown {kind} {name!r}; valid, nearest first: {', '.join(names) or 'none'}")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or its cause, is that memory is used up.

    The memory may be that of the machine or of a GPU.
    """
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError and the errors of torch.distributed are RuntimeErrors
    if isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)):
        return True
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return cause is not None and is_out_of_memory(cause)


def describe(error: BaseException) -> str | None:
    """Return a one-line message for a UserError, a known OSError or a lack of memory.

    Returns None for other errors.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and "usable temporary directory" in str(error):
        return f"{error.strerror}: set TMPDIR to a writable folder"
    if isinstance(error, OSError) and error.errno in _OS_ERRORS:
        where = f" at {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}: {_OS_ERRORS[error.errno]}"
    if isinstance(error, OSError) and "MPLCONFIGDIR" in str(error):
        return str(error)  # of matplotlib, which found no folder for its cache
    if is_out_of_memory(error):
        return f"{_OS_ERRORS[errno.ENOMEM]} ({first_line(error)})"
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_OS_ERRORS = {
    errno.ENOSPC: "free some space, then run the same command again (finished work is kept)",
    errno.EDQUOT: "your quota is used up; free some space, then run the same command again",
    errno.EACCES: "check the permissions or choose another folder",
    errno.EPERM: "check the permissions or choose another folder",
    errno.EROFS: "choose a folder on a writable file system",
    errno.EISDIR: "expected a file, give the path of a file",
    errno.ENOTDIR: "expected a folder, give the path of a folder",
    errno.ENOENT: "check the path",
    errno.EEXIST: "another file has this name, choose another name",
    errno.EFBIG: (
        "the file exceeds the limit of the file system or of `ulimit -f`, "
        "choose another folder or smaller shards"
    ),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "the symbolic link points to itself, check the path",
    errno.EIO: (
        "the disk or the network file system failed, check it, then run the same command again"
    ),
    errno.ESTALE: (
        "the network file system was disconnected, check it, then run the same command again"
    ),
    errno.ETIMEDOUT: (
        "the network file system does not respond, check it, then run the same command again"
    ),
    errno.ENOTCONN: (
        "the network file system was disconnected, check it, then run the same command again"
    ),
    errno.EMFILE: "too many open files, raise `ulimit -n`",
    errno.ENFILE: (
        "the machine has too many open files, wait or close some, then run the same command again"
    ),
    errno.ENOMEM: (
        "not enough memory, run the same command again with a smaller batch or fewer workers"
    ),
}


def _prefix_rank(line: str) -> str:
    """Return an error message; unless on rank 0, wait 5 s and add the rank to it."""
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        return line
    # If rank 0 failed too, the launcher ends this process meanwhile. So an error on all
    # ranks is printed once, and an error on a single rank is still printed.
    time.sleep(5)
    return f"rank {rank}: {line}"


PROGRAM = "colortrain"
Main = Callable[[Sequence[str] | None], int | None]


def command_name(program: str) -> str:
    """Return a command's name as users type it, such as "colortrain train".

    `program` is its name or module: "train", "colortrain train" or "launch.train".
    """
    name = program.removeprefix(f"{PROGRAM} ").rpartition(".")[2]
    return name if name == PROGRAM else f"{PROGRAM} {name}"


def escape_unprintable() -> None:
    """Let prints escape characters that the locale's encoding cannot represent."""
    # In every locale, these include the bytes of file names that are not UTF-8.
    # Printing them unescaped would end a command with an error, perhaps after all its
    # work is done.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_command(program: str, main: Main, argv: Sequence[str] | None = None) -> int:
    """Run a command's `main(argv)` and return its exit status.

    The status is 2 after a user error or a lack of memory, 70 after a bug and 130 after
    Ctrl-C. A user error is printed as one line that starts with
    `command_name(program)`, a bug as a traceback.
    """
    escape_unprintable()
    name = command_name(program)
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` closed our standard output: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = describe(error)
        if line is None:  # not Python's status 1, which means that images were left out
            traceback.print_exc()
            return os.EX_SOFTWARE
        if isinstance(error, PermanentError) or is_out_of_memory(error):
            _write_permanent_error_file()
        print(f"{name}: error: {_prefix_rank(line)}", file=sys.stderr)
        return 2


def _write_permanent_error_file() -> None:
    if path := os.environ.get(PERMANENT_ERROR_FILE):
        with contextlib.suppress(OSError):  # the error itself is more important
            Path(path).touch()

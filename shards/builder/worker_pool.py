"""Many processes, one thread each, that work on numbered tasks and say how far they are.

A forkserver loads the libraries once, before any thread exists. Nothing is shared but a table with one writer a cell,
so a worker killed at any instant can hold no lock.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.sharedctypes import RawArray
from types import ModuleType
from typing import Any, TypeVar

from shards.errors import UserError
from shards.progress import ProgressLine

Result = TypeVar("Result")
Task = Callable[[Callable[[int], None]], Result]  # called with report(done)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PRELOAD = ["numpy", "PIL.Image", "shards.builder.pack"]


def run_tasks(
    tasks: Sequence[Task[Result]], workers: int, progress: ProgressLine, start: int = 0
) -> Iterator[tuple[int, Result]]:
    """Run picklable `tasks` on `workers` processes (1: in this one); yields (place in `tasks`, result) as they end.

    Raises the first error of a task, after the others have stopped; `UserError` if a worker was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from _run_here(tasks, progress, start)
    else:
        yield from _run_pool(tasks, workers, progress, start)


def _run_here(
    tasks: Sequence[Task[Result]], progress: ProgressLine, start: int
) -> Iterator[tuple[int, Result]]:
    for place, task in enumerate(tasks):
        last = 0

        def report(done: int) -> None:
            nonlocal last
            last = done
            progress.advance_to(start + done)  # noqa: B023  # called within this turn alone

        yield place, task(report)
        start += last


def _run_pool(
    tasks: Sequence[Task[Result]], workers: int, progress: ProgressLine, start: int
) -> Iterator[tuple[int, Result]]:
    done = RawArray(
        "Q", len(tasks) + 1
    )  # images done of each task; the last cell tells the workers to stop
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"), _begin, (done,))
    try:
        with (
            _single_threaded_forkserver(),
            _without_main(),
        ):  # `submit` starts the workers, and one may be dead before the last task
            futures: dict[Future[Result], int] = {
                pool.submit(_call, task, place): place for place, task in enumerate(tasks)
            }
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            progress.advance_to(start + sum(done[:-1]))
            for future in finished:
                yield futures[future], future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed (out of memory?): run the same command again, with fewer --workers"
        ) from None
    finally:
        done[len(tasks)] = 1
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _single_threaded_forkserver() -> Iterator[None]:
    """Start the process that forks the workers: one thread a worker, deaf to Ctrl-C, which is the parent's to hear."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    os.environ.update(_ONE_THREAD)
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
        _start_forkserver()
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if in_main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let no worker run the program's own file first: seconds of imports for a door, and no task is defined there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_forkserver() -> None:
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "path too long" not in str(error):  # it has no errno
            raise
        folder = tempfile.gettempdir()
        raise UserError(
            f"the path of {folder} is too long for a socket in it: set TMPDIR to a shorter one"
        ) from None


_done: Any = None


def _begin(done: Any) -> None:
    global _done
    _done = done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this worker when the build is killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


class TaskStoppedError(Exception):
    """The build ends early: another task failed, or Ctrl-C."""


def _call(task: Task[Result], place: int) -> Result:
    def report(count: int) -> None:
        _done[place] = count
        if _done[len(_done) - 1]:
            raise TaskStoppedError

    return task(report)

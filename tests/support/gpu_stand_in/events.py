"""Record what makes the host wait for the device, and copies between the two."""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

from tests.support.gpu_stand_in.build import ROOT

OURS = tuple(str(ROOT / package) for package in ("colortrain", "launch"))
Listener = Callable[[str, int], None]
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64)
_listeners: list[Listener] = []


@dataclass(frozen=True)
class Event:
    """An operation that waits for the device, or that copies from or to it.

    `what` starts with "wait: " or "copy to ". `stack` holds the functions of colortrain
    that were running, such as "colortrain/training/step.py:train_step", the innermost
    first. `size` is the number of bytes copied.
    """

    what: str
    stack: tuple[str, ...]
    size: int


@contextmanager
def recorded() -> Iterator[list[Event]]:
    """Yield a list to which the events inside the `with` block are appended."""
    events: list[Event] = []

    def listen(what: str, size: int) -> None:
        events.append(Event(what, running_functions(), size))

    with listening(listen):
        yield events


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener(what, bytes)` for each event inside the `with` block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def report(what: str, size: int = 0) -> None:
    """Pass an event to all listeners."""
    for listener in _listeners:
        listener(what, size)


def running_functions() -> tuple[str, ...]:
    """Return the functions of colortrain that run now, the innermost first.

    A backward pass runs in a thread of its own; the main thread waits for it, so its
    functions are returned.
    """
    main = sys._current_frames()[threading.main_thread().ident or 0]
    return _functions(sys._getframe()) or _functions(main)


def _functions(frame: FrameType) -> tuple[str, ...]:
    names = (_name(each.f_code) for each, _ in traceback.walk_stack(frame))
    return tuple(name for name in names if name)


@cache
def _name(code: CodeType) -> str:
    """Return the file and name of a function; "" if it is not one of colortrain."""
    if not code.co_filename.startswith(OURS):
        return ""
    return f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_name}"


_from_library = _FUNCTION(lambda what, size: report(what.decode(), size))


def connect(library: ctypes.CDLL) -> None:
    """Let the library pass its events to `report`."""
    library.stand_in_listen(_from_library)

"""Damaged versions of JSON files: wrong types, equal keys, garbage bytes, and more."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

_WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    2**70,
    10**30,
    10**9,
    "",
    "x",
    "../x",
    "\ud800",
    "a\x00b",
    "é\n",
    [],
    [[]],
    ["x", 1],
    {},
    {"type": "x"},
    {"x": 1},
)


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Return a damaged version of a JSON or JSON Lines file."""
    return draw.choice(_MUTATIONS)(data, draw)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value inside nested lists and dicts."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = list(range(len(value))) if isinstance(value, list) else []
    below = [place for key in keys for place in _places(value[key])]
    return [(value, key) for key in keys] + below


def _change(data: bytes, draw: random.Random, change: Callable[[Any, Any], None]) -> bytes:
    """Change one place in the JSON value, or in one of the lines."""
    lines = data.split(b"\n")
    is_lines = len(lines) > 2 and lines[0].startswith(b"{") and lines[0].endswith(b"}")
    number = draw.randrange(len(lines) - 1) if is_lines else 0
    document = json.loads(lines[number] if is_lines else data)
    if places := _places(document):
        change(*draw.choice(places))
    text = json.dumps(document).encode()
    return b"\n".join([*lines[:number], text, *lines[number + 1 :]]) if is_lines else text


def _wrong_type(data: bytes, draw: random.Random) -> bytes:
    def change(container: Any, key: Any) -> None:
        container[key] = draw.choice(_WRONG)

    return _change(data, draw, change)


def _remove(data: bytes, draw: random.Random) -> bytes:
    return _change(data, draw, lambda container, key: container.pop(key))


def _add(data: bytes, draw: random.Random) -> bytes:
    def change(container: Any, key: Any) -> None:
        if isinstance(container, dict):
            container["added"] = draw.choice(_WRONG)
        else:
            container.append(draw.choice(_WRONG))

    return _change(data, draw, change)


def _duplicate_key(data: bytes, draw: random.Random) -> bytes:
    """Repeat the first key of an object with another value."""
    starts = [place for place in range(len(data)) if data[place : place + 1] == b"{"]
    start = draw.choice(starts)
    key = data[start + 1 :].partition(b":")[0].strip() or b'"x"'
    value = json.dumps(draw.choice(_WRONG)).encode()
    return data[: start + 1] + key + b": " + value + b", " + data[start + 1 :]


def _garbage(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + draw.randbytes(draw.randint(1, 40)) + data[start:]


def _flip(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def _replace(data: bytes, draw: random.Random) -> bytes:
    """Return a file that is something else as a whole."""
    whole = (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"\xff\xfe{\x00}\x00", b"\x00" * 64)
    value = json.dumps(draw.choice(_WRONG)).encode()
    return draw.choice((*whole, value, draw.randbytes(200), b"\xef\xbb\xbf" + data, b"\n\n"))


_MUTATIONS = (
    _wrong_type,
    _wrong_type,
    _wrong_type,
    _remove,
    _add,
    _duplicate_key,
    _garbage,
    _flip,
    _cut,
    _replace,
)

"""Read JSON that may be damaged: each fault is a ValueError or a UserError."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from shards.errors import UserError
from shards.files import open_regular

_MAX_INT = 2**63


def parse_json(data: bytes | str, object_hook: Callable[[dict[str, Any]], Any] = dict) -> Any:
    """Return the value of a JSON text.

    `object_hook` is called with each object as a dict, and its result replaces the
    object. Raises ValueError if the text is not UTF-8 or not JSON, if an object has a
    key twice, or if values are nested too deeply.
    """

    def convert(pairs: list[tuple[str, Any]]) -> Any:
        document = dict(pairs)
        if len(document) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {twice!r} is given twice")
        return object_hook(document)

    try:
        # json.loads alone takes the last of two equal keys, and raises RecursionError
        # for deep nesting. A byte-order mark is ignored.
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=convert)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def read_json(path: Path, kind: Any, advice: str) -> Any:
    """Return the value in a JSON file, which must have the type `kind`.

    `kind` is a type that `fits` accepts. Raises FileNotFoundError if the file is
    missing, and UserError, which ends with `advice`, if it contains anything else.
    """
    try:
        with open_regular(path) as stream:
            value = parse_json(stream.read())
        check_type(kind, value)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {advice}") from None
    return value


def check_type(kind: Any, value: Any) -> None:
    """Raise ValueError that names the first wrong field unless `value` fits `kind`."""
    if fits(kind, value):
        return
    if typing.is_typeddict(kind) and isinstance(value, dict):
        for name, hint in _hints(kind).items():
            if name not in value and name in kind.__required_keys__:
                raise ValueError(f"{name} is missing")
            if name in value and not fits(hint, value[name]):
                raise ValueError(f"{name} cannot be {_shortened(value[name])}")
    raise ValueError(f"its content cannot be {_shortened(value)}")


def fitting_fields(kind: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Return a dict without the fields that have another type than in a TypedDict.

    Fields that the TypedDict `kind` does not have are kept.
    """
    hints = _hints(kind)
    return {
        name: value
        for name, value in document.items()
        if name not in hints or fits(hints[name], value)
    }


def _shortened(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def fits(kind: Any, value: Any) -> bool:
    """Return whether a JSON value has the type `kind`.

    `kind` is None, bool, int, float, str, Any, a TypedDict, a union, list[X],
    tuple[X, Y] or dict[str, X].
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(each, value) for each in args)
    if origin is dict:
        return isinstance(value, dict) and all(fits(args[1], each) for each in value.values())
    if origin is list:
        return isinstance(value, list) and all(fits(args[0], each) for each in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(args) and all(map(fits, args, value))
    if typing.is_typeddict(kind):
        return _fits_typed_dict(kind, value)
    return _fits_scalar(kind, value)


def _fits_typed_dict(kind: Any, value: Any) -> bool:
    return (  # other keys are permitted
        isinstance(value, dict)
        and kind.__required_keys__ <= value.keys()
        and all(fits(hint, value[name]) for name, hint in _hints(kind).items() if name in value)
    )


def _fits_scalar(kind: Any, value: Any) -> bool:
    if kind is None or kind is types.NoneType:
        return value is None
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < _MAX_INT  # an integer is a float too
    if isinstance(value, str):
        return kind is str and is_text(value)
    return isinstance(value, kind)


def is_text(value: str) -> bool:
    """Return whether a string can be encoded and used as a file name."""
    # JSON can hold lone surrogates and NUL characters, which other software rejects.
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)

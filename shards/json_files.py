"""Read JSON that may be damaged: each fault is a ValueError or a UserError.

json.loads alone raises RecursionError for deep nesting, UnicodeDecodeError for bytes
that are not text, and takes the last of two equal keys; and what it returns may have
any type.
"""

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
    """Return the value of a JSON text; a byte-order mark at its start is ignored.

    `object_hook` converts each object as soon as it is parsed. Raises ValueError if the
    text is not UTF-8 or not JSON, if an object has a key twice, or if values are nested
    too deeply.
    """

    def convert(pairs: list[tuple[str, Any]]) -> Any:
        document = dict(pairs)
        if len(document) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {twice!r} is given twice")
        return object_hook(document)

    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=convert)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def read_json(path: Path, kind: Any, advice: str) -> Any:
    """Return the value in a JSON file, which must have the type `kind` (see `fits`).

    Raises FileNotFoundError if there is no such file, and UserError, which ends with
    `advice`, if the file contains anything else.
    """
    try:
        with open_regular(path) as stream:
            value = parse_json(stream.read())
        check_type(kind, value)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {advice}") from None
    return value


def check_type(kind: Any, value: Any) -> None:
    """Raise ValueError unless `value` fits `kind`; it names the first wrong field."""
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
    """Return an object without the fields that have another type than in a TypedDict.

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
    """Return whether a JSON value has a type.

    `kind` is None, bool, int (at most 64 bits), float (an integer is one too), str
    (which can be encoded), Any, a union, list[X], dict[str, X], tuple[X, Y], or a
    TypedDict, which permits other keys besides its own.
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
    return (
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
        return kind in (int, float) and abs(value) < _MAX_INT
    if isinstance(value, str):
        return kind is str and is_text(value)
    return isinstance(value, kind)


def is_text(value: str) -> bool:
    """Return whether a string can be encoded and used as a file name.

    JSON can hold lone surrogates and NUL characters, which other software rejects.
    """
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)

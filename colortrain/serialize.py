"""Convert dataclasses to plain JSON values and back, and change single fields."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from typing import Any, TypeVar

from colortrain.schedule import Schedule
from shards.errors import UserError, unknown
from shards.json_files import is_text, parse_json

T = TypeVar("T")
_MAX_NUMBER = 1e300  # larger numbers, infinities and NaN are refused


def to_plain(value: Any) -> Any:
    """Convert a value to one that JSON can express: dicts, lists, numbers and strings.

    A dataclass becomes a dict with its class name as "type".
    """
    if isinstance(value, Schedule) and len(value.points) == 1:
        return value.points[0][1]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def finite(value: Any) -> Any:
    """Return a plain value in which infinities and NaN are replaced by None."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Convert a plain JSON value to a value of type `kind`; the inverse of `to_plain`.

    `kind` is a class, union, tuple or Literal; `where` is the field's name in error
    messages. Raises UserError if the value does not fit the type.
    """
    origin = typing.get_origin(kind)
    if kind is Schedule:
        return _schedule(value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass([kind], value, where)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(kind), value, where)
    if origin is tuple:
        return _tuple(typing.get_args(kind), value, where)
    if value is None and (kind is str or "none" in typing.get_args(kind)):
        value = "none"  # `--set x=none` was parsed as null
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise UserError(
                f"{where}: {unknown('value', str(value), map(str, typing.get_args(kind)))}"
            )
        return value
    return _scalar(kind, value, where)


def with_override(recipe: T, assignment: str) -> T:
    """Return a copy of a dataclass in which one field is changed.

    assignment: for instance "critic_adam.lr=5e-5". Raises UserError for an unknown
    field or an invalid value.
    """
    # "a.b.0.c=value" changes field c of item 0 of the tuple b in a
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UserError(
            f"--set {assignment!r}: write it as field=value, for instance --set critic_adam.lr=5e-5"
        )
    return typing.cast(T, _replace(recipe, type(recipe), path.split("."), _parse(text), path))


def _parse(text: str) -> Any:
    try:
        return parse_json(re.sub(r"(?<![\d.])\.(?=\d)", "0.", text))  # JSON requires 0.5
    except ValueError:
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _replace(value: Any, kind: Any, path: list[str], new: Any, where: str) -> Any:
    if not path:
        return from_plain(kind, new, where)
    head, rest = path[0], path[1:]
    if isinstance(value, tuple):
        valid = [str(index) for index in range(len(value))]
        if head not in valid:
            raise UserError(f"--set {where}: {unknown('item', head, valid)}")
        items = list(value)
        items[int(head)] = _replace(items[int(head)], _item_kind(kind), rest, new, where)
        return tuple(items)
    if not dataclasses.is_dataclass(value):
        raise UserError(
            f"--set {where}: the value before {head!r} has no fields: leave {head!r} out"
        )
    kinds = typing.get_type_hints(type(value))
    if head not in kinds:
        raise UserError(f"--set {where}: {unknown('field', head, kinds)}")
    changed = _replace(getattr(value, head), kinds[head], rest, new, where)
    return _construct(dataclasses.replace, where, value, **{head: changed})


def _item_kind(kind: Any) -> Any:
    return typing.get_args(kind)[0]


def _construct(create: Any, where: str, *args: Any, **fields: Any) -> Any:
    try:
        return create(*args, **fields)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _dataclass(kinds: list[type], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: expected a JSON object ({' or '.join(k.__name__ for k in kinds)}), "
            f"got {value!r}"
        )
    value = dict(value)
    name = value.pop("type", kinds[0].__name__ if len(kinds) == 1 else "none given")
    by_name = {kind.__name__: kind for kind in kinds}
    if str(name) not in by_name:
        raise UserError(f"{where}: {unknown('type', str(name), by_name)}")
    hints = typing.get_type_hints(by_name[name])
    for field in value:
        if field not in hints:
            raise UserError(f"{where}: {unknown('field', field, hints)}")
    fields = {
        field: from_plain(hints[field], item, f"{where}.{field}") for field, item in value.items()
    }
    missing = [
        field.name
        for field in dataclasses.fields(by_name[name])
        if _is_required(field) and field.name not in fields
    ]
    if missing:
        raise UserError(f"{where}: missing {', '.join(missing)}")
    return _construct(by_name[name], where, **fields)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if all(dataclasses.is_dataclass(kind) for kind in others) and Schedule not in others:
        return _dataclass(others, value, where)
    return from_plain(others[0], value, where)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: must be a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        return tuple(from_plain(kinds[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if len(value) != len(kinds):
        raise UserError(f"{where}: must have {len(kinds)} values, got {len(value)}")
    return tuple(
        from_plain(kind, item, f"{where}.{i}")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _schedule(value: Any, where: str) -> Schedule:
    if isinstance(value, dict):
        return typing.cast(Schedule, _dataclass([Schedule], value, where))
    if isinstance(value, list):
        points = _tuple((tuple[float, float], Ellipsis), value, where)
        return typing.cast(Schedule, _construct(Schedule, where, points))
    return Schedule(((0.0, _scalar(float, value, where)),))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    number = (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER
    )
    if kind is float and number:
        return float(value)
    if kind is int and number and abs(value) < 2**63 and float(value).is_integer():
        return int(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str) and is_text(value):
        return value
    names = {
        int: "a whole number" + (" below 2^63" if number else ""),
        float: "a number",
        bool: "true or false",
        str: "a string",
    }
    raise UserError(f"{where}: must be {names.get(kind, kind)}, got {value!r}")

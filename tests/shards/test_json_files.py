"""Reading JSON: damaged texts are ValueErrors, and types are checked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UserError
from shards.json_files import (
    check_type,
    fits,
    fitting_fields,
    parse_json,
    read_json,
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1, "b": {"c": 2, "c": 2}}', "the key 'c' is given twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"\xff\xfe{\x00}\x00", "can't decode byte 0xff"),
        (b"", "Expecting value"),
        (b'{"a": 1', "delimiter"),
    ],
)
def test_damaged_texts_are_value_errors(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(data)


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, "\xc3\xa9"]}') == {"a": [1, "é"]}


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        parse_json(data)


class Shape(TypedDict, total=False):
    size: int
    codes: dict[str, float | None]


class Needed(TypedDict):
    name: str
    shape: Shape


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 3, True),
        (int, True, False),
        (int, 3.0, False),
        (int, 2**63, False),
        (float, 3, True),
        (float, "3", False),
        (bool, False, True),
        (bool, 0, False),
        (str, "é", True),
        (str, "\ud800", False),
        (str, "a\x00b", False),
        (None, None, True),
        (int | None, None, True),
        (int | None, "x", False),
        (list[int], [1, 2], True),
        (list[int], [1, "2"], False),
        (tuple[float, float], [1, 2], True),
        (tuple[float, float], [1, 2, 3], False),
        (dict[str, float | None], {"a": None, "b": 1}, True),
        (dict[str, float | None], [], False),
        (Needed, {"name": "a", "shape": {"size": 1, "more": []}}, True),
        (Needed, {"name": "a"}, False),
        (Needed, {"name": "a", "shape": {"codes": {"x": "y"}}}, False),
        (Any, object, True),
    ],
)
def test_values_fit_their_type(kind: Any, value: Any, expected: bool) -> None:
    assert fits(kind, value) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "a"}', "shape is missing"),
        ('{"name": 7, "shape": {}}', "name cannot be 7"),
        ("[]", r"its content cannot be \[\]"),
        ("{", "Expecting property name"),
    ],
)
def test_a_damaged_file_is_one_line_with_advice(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a.json is damaged \({reason}.*\): write it again"):
        read_json(path, Needed, "write it again")


def test_a_file_of_the_right_type_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"name": "a", "shape": {}, "more": 1}')
    assert read_json(path, Needed, "") == {"name": "a", "shape": {}, "more": 1}
    check_type(Needed, {"name": "a", "shape": {}})
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Needed, "")


def test_fields_of_another_type_are_left_out() -> None:
    document = {"size": "x", "codes": {"a": 1}, "more": None}
    assert fitting_fields(Shape, document) == {"codes": {"a": 1}, "more": None}

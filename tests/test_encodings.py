"""Text is read and written as UTF-8, whatever the locale: each call names it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_architecture import FILES, names

TEXT_MODE = re.compile(r"[rwax]\+?t?\+?")
MODE_POSITION = {"fdopen": 1, "NamedTemporaryFile": 0}  # among the positional arguments


def uses_the_locale(call: ast.Call) -> bool:
    """Return whether a call reads or writes text in the encoding of the locale."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    if name in ("read_text", "write_text", "TextIOWrapper"):
        return True
    if {"text", "universal_newlines"} & set(given):  # subprocess
        return True
    if name not in ("open", *MODE_POSITION):
        return False
    position = MODE_POSITION.get(name, 0 if method else 1)
    mode = given.get("mode") or (call.args[position] if len(call.args) > position else None)
    if mode is None:  # a function `open` of another library has at least one argument
        return name == "open" and len(call.args) == position
    return isinstance(mode, ast.Constant) and bool(TEXT_MODE.fullmatch(str(mode.value)))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", True),
        ("path.read_text(errors='replace')", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text(text)", True),
        ("open(path)", True),
        ("open(path, 'a')", True),
        ("open(path, mode='w')", True),
        ("open(path, 'rb')", False),
        ("open(path, 'w', encoding='utf-8')", False),
        ("path.open()", True),
        ("path.open(newline='')", True),
        ("path.open('rb')", False),
        ("path.open('w')", True),
        ("os.open(path, flags)", False),
        ("tarfile.open(path, 'r:')", False),
        ("av.open(stream, 'w', 'mp4')", False),
        ("os.fdopen(descriptor, 'w')", True),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, encoding='utf-8', errors='replace')", False),
    ],
)
def test_calls_that_use_the_locale_are_found(code: str, expected: bool) -> None:
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert uses_the_locale(call) == expected


@pytest.mark.parametrize("path", FILES, ids=names)
def test_no_call_uses_the_encoding_of_the_locale(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [ast.unparse(call) for call in calls if uses_the_locale(call)]

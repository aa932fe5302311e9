"""The README stays true: its tree names what exists and all there is, its Python runs, its doors open."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from launch.cli import COMMANDS
from shards.errors import UserError
from tests.support.small_shard_set import small_set

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; every second fence opens one."""
    fenced = README.split("```")[1::2]
    return [block.partition("\n")[2] for block in fenced if block.partition("\n")[0] == language]


def tree() -> set[str]:
    """Paths that the tree under "Layout" names: words before the first run of two spaces, below their folder."""
    found: set[str] = set()
    folders: list[str] = []  # around the line, one for every two spaces before it
    for line in blocks("")[-1].splitlines():
        words = re.split(r"\s{2,}", line.strip())[0].split()
        del folders[(len(line) - len(line.lstrip())) // 2 :]
        inside = "".join(folders)
        found |= {inside + word for word in words}
        folders.append(words[0] if words[0].endswith("/") and len(words) == 1 else "")
    return found


def test_tree_names_what_exists() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("package", ["shards", "colortrain", "slurm"])
def test_tree_names_every_file(package: str) -> None:
    files = {
        f"{package}/{path.name}"
        for path in (ROOT / package).glob("*.py")
        if not path.name.startswith("__")
    }
    folders = {
        f"{package}/{path.name}/"
        for path in (ROOT / package).iterdir()
        if (path / "__init__.py").exists()
    }
    assert (files | folders) - tree() == set()


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_set(tmp_path / "photos-64", size=64, count=16, splits=("train", "val"))
    space: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, space)
    assert space["stored"].shape == (3, 3, 64, 64)
    assert space["trainer"].images == 12
    assert (space["coloured"].shape, str(space["coloured"].dtype)) == ((300, 451, 3), "uint8")


def test_doors_of_the_table_open(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"(?:`|^    )colortrain ([a-z]\w*)", README, re.MULTILINE))
    assert named == set(COMMANDS), "README names every command, and no other"
    for name, (module, _) in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main(["--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "example" in text, f"{name} --help has no example"


@pytest.mark.parametrize("name", COMMANDS)
def test_doors_name_an_unknown_word(name: str) -> None:
    with pytest.raises((UserError, SystemExit)) as ended:
        importlib.import_module(COMMANDS[name][0]).main(["--surely-not-a-word"])
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == 2

"""The README: its tree matches the files, its Python runs, its commands exist."""

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
    """Return the fenced blocks of a language; every second fence opens one."""
    fenced = README.split("```")[1::2]
    return [block.partition("\n")[2] for block in fenced if block.partition("\n")[0] == language]


def tree() -> set[str]:
    """Return the paths in the last block without a language, the tree of files.

    Each line has names, two spaces, and a phrase; names are in the folder above them.
    """
    paths: set[str] = set()
    folders: list[str] = []  # that contain the line, one per two spaces of indentation
    for line in blocks("")[-1].splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        del folders[(len(line) - len(line.lstrip())) // 2 :]
        inside = "".join(folders)
        paths |= {inside + name for name in names}
        folders.append(names[0] if names[0].endswith("/") and len(names) == 1 else "")
    return paths


def test_the_tree_contains_only_existing_files() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("package", ["shards", "colortrain", "slurm"])
def test_the_tree_contains_every_module_and_folder(package: str) -> None:
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
    namespace: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert namespace["stored"].shape == (3, 3, 64, 64)
    assert namespace["trainer"].images == 12
    assert (namespace["coloured"].shape, str(namespace["coloured"].dtype)) == (
        (300, 451, 3),
        "uint8",
    )


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"(?:`|^    )colortrain ([a-z]\w*)", README, re.MULTILINE))
    assert named == set(COMMANDS), "README names every command, and no other"
    for name, (module, _) in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main(["--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "example" in text, f"{name} --help has no example"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_rejects_unknown_options(name: str) -> None:
    with pytest.raises((UserError, SystemExit)) as ended:
        importlib.import_module(COMMANDS[name][0]).main(["--surely-unknown"])
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == 2

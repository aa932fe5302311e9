"""The house: each package knows only the ones before it, and `shards` does without torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["shards", "colortrain", "launch", "slurm"]
# Inside colortrain: a room may import rooms of its own row and of rows before it.
ROOMS = [
    {"schedule", "plain", "lab", "pictures", "tables"},
    {"losses", "models", "metrics", "layers"},
    {"recipe"},
    {"recipes", "thin", "data", "stream", "checkpoint", "evaluation", "inference", "run"},
    {"parallel"},
    {"step"},
    {"running"},
    {"trainer"},
]
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=names)
def test_packages_import_only_earlier_packages(path: Path) -> None:
    own = PACKAGES.index(path.relative_to(ROOT).parts[0])
    later = set(PACKAGES[own + 1 :])
    assert not {name for name in imported(path) if name.split(".")[0] in later}


def test_every_package_has_files() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", sorted((ROOT / "shards").rglob("*.py")), ids=names)
def test_shards_never_imports_torch(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] in ("torch", "accelerate", "torchmetrics")}


@pytest.mark.parametrize("path", sorted((ROOT / "colortrain").rglob("*.py")), ids=names)
def test_rooms_import_only_earlier_rooms(path: Path) -> None:
    room = path.relative_to(ROOT / "colortrain").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    rows = [row for row, rooms in enumerate(ROOMS) if room in rooms]
    assert rows, f"{room} has no row in ROOMS: say where it stands"
    later = set().union(*ROOMS[rows[0] + 1 :])
    found = {name.split(".")[1] for name in imported(path) if name.startswith("colortrain.")}
    assert not found & later


def is_torch_load(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("torch.load", "torch.hub.load_state_dict_from_url")


@pytest.mark.parametrize("path", FILES, ids=names)
def test_nothing_unpickles(path: Path) -> None:
    text = path.read_text()
    loads = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and is_torch_load(node)]
    assert all("weights_only=True" in ast.unparse(call) for call in loads)
    assert "torch.load" not in text.replace("torch.load(", "")  # no other name for it
    assert "allow_pickle=True" not in text
    if path.name != "cifar.py":  # a restricted unpickler lives there
        assert not {"pickle", "cloudpickle", "dill"} & imported(path)

"""The architecture: packages and folders import only earlier ones."""

from __future__ import annotations

import ast
import graphlib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["shards", "colortrain", "launch", "slurm"]
# Inside a package, from the base upwards: a module or folder imports from its own row
# and from the rows before it.
LAYERS = {
    "shards": [
        {"errors", "files", "locks", "json_files", "progress", "color"},
        {"sources", "format"},
        {"builder", "read"},
        {"inspect"},
        {"__main__"},
    ],
    "colortrain": [
        {"schedule", "lab", "serialize", "visualize", "out_of_memory"},
        {"models"},
        {"losses", "metrics"},
        {"headline"},
        {"recipe"},
        {"recipes", "scale_down", "data"},
        {"runs", "differences"},
        {"inference", "distributed"},
        {"training"},
    ],
}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MANY = 15  # modules in a folder; a folder with more says in its __init__ why


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


MODULES = {".".join(parts(path)).removesuffix(".__init__") for path in FILES}


def imported(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {module_of(str(node.module), alias.name) for alias in node.names}
    return names


def module_of(module: str, name: str) -> str:
    """The module that `from module import name` reads."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def child(module: str, package: str) -> str | None:
    """Return the child of `package` that contains `module`; None outside of it."""
    below = module.removeprefix(f"{package}.")
    return below.split(".")[0] if below != module else None


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=names)
def test_packages_import_only_earlier_packages(path: Path) -> None:
    own = PACKAGES.index(parts(path)[0])
    later = set(PACKAGES[own + 1 :])
    assert not {name for name in imported(path) if name.split(".")[0] in later}


def test_every_package_has_files() -> None:
    assert {parts(path)[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", sorted((ROOT / "shards").rglob("*.py")), ids=names)
def test_shards_never_imports_torch(path: Path) -> None:
    assert not {
        name
        for name in imported(path)
        if name.split(".")[0] in ("torch", "accelerate", "torchmetrics")
    }


@pytest.mark.parametrize("package", LAYERS)
def test_layers_import_only_earlier_layers(package: str) -> None:
    rows = LAYERS[package]
    for path in sorted((ROOT / package).rglob("*.py")):
        own = parts(path)[1]
        if own == "__init__":
            continue
        place = [row for row, members in enumerate(rows) if own in members]
        assert place, f"{own} has no row in LAYERS: say where it stands"
        later = set().union(*rows[place[0] + 1 :])
        found = {child(name, package) for name in imported(path)} & later
        assert not found, f"{names(path)} imports {found}"


@pytest.mark.parametrize(
    "package",
    [*PACKAGES, *(f"launch.{name}" for name in ("benchmark", "experiment", "report", "video"))],
)
def test_no_cycles_between_the_folders_and_modules_of_a_package(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
        own = child(".".join(parts(path)), package)
        if own is None or own == "__init__":
            continue
        found = {child(name, package) for name in imported(path)} - {None, own}
        graph.setdefault(own, set()).update(name for name in found if name)
    list(
        graphlib.TopologicalSorter(graph).static_order()
    )  # raises CycleError, which names the cycle


def test_no_module_name_occurs_more_than_three_times() -> None:
    counts = Counter(path.name for path in FILES if not path.name.startswith("__"))
    assert not {name: count for name, count in counts.items() if count > 3}


def test_folders_are_small_or_say_why_not() -> None:
    for folder in sorted({path.parent for path in FILES}):
        modules = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
        text = (
            ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        )
        assert len(modules) <= MANY or "flat" in text, f"{names(folder)} has {len(modules)} modules"


def is_torch_load(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("torch.load", "torch.hub.load_state_dict_from_url")


@pytest.mark.parametrize("path", FILES, ids=names)
def test_nothing_unpickles(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    loads = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and is_torch_load(node)
    ]
    assert all("weights_only=True" in ast.unparse(call) for call in loads)
    assert "torch.load" not in text.replace("torch.load(", "")  # no other name for it
    assert "allow_pickle=True" not in text
    if path.name != "cifar10.py":  # a restricted unpickler lives there
        assert not {"pickle", "cloudpickle", "dill"} & imported(path)


@pytest.mark.parametrize(
    "path", [path for path in FILES if not path.name.startswith("__")], ids=names
)
def test_each_module_has_a_test_of_its_own_name(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert (ROOT / "tests" / relative.parent / f"test_{path.name}").exists()

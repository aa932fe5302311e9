"""`--set FIELD=VALUE` for every field and extreme values: accepted, or one line.

Networks and batches that no machine can hold are refused before memory is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colortrain.data.loader import LoaderConfig
from colortrain.data.tar_stream import make_loader
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe
from colortrain.runs.folder import open_data
from colortrain.serialize import to_plain
from launch.train import main, override
from shards.errors import UserError, run_command
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import small_set

VALUES = (
    "0",
    "-1",
    "100000",
    "1000000000",
    "9223372036854775807",
    "1e308",
    "1e-308",
    "1" * 400,
    "none",
    "[]",
    "{}",
    '"\\ud800"',
    "[[0,1e300]]",
)
_MEMORY = 1 << 24  # bytes: larger networks are refused, so that none takes long


def fields(plain: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of all fields as --set takes them, containers included."""
    if isinstance(plain, dict):
        items = [(name, value) for name, value in plain.items() if name != "type"]
    else:
        items = list(enumerate(plain)) if isinstance(plain, list) else []
    for name, value in items:
        yield f"{prefix}{name}"
        if isinstance(value, dict) or (isinstance(value, list) and "reconstruction" not in prefix):
            yield from fields(value, f"{prefix}{name}.")


def new_fields() -> dict[str, list[str]]:
    """Return for each recipe the fields that no earlier one has in the same class."""
    seen: set[tuple[str, str]] = set()
    result = {}
    for name in RECIPES:
        plain = to_plain(scaled(get_recipe(name)))
        found = []
        for field in fields(plain):
            part = plain.get(field.split(".")[0])
            kind = part.get("type", "") if isinstance(part, dict) else ""
            if (kind, field) not in seen and not field.startswith("headline"):
                found.append(field)
            seen.add((kind, field))
        result[name] = found
    return result


def try_value(recipe: Recipe, shards: Path, assignment: str) -> None:
    """Do everything that a run does before it takes its first step."""
    changed = override(recipe, [assignment])
    changed.check()
    data = open_data(shards, changed)
    config = LoaderConfig(
        batch_size=changed.batch_size, seed=changed.seed, flip=changed.flip, crop=changed.crop
    )
    make_loader(data.train, changed.codec, config)
    changed.build_networks()


@pytest.mark.parametrize(("name", "names"), new_fields().items(), ids=list(RECIPES))
def test_extreme_values_are_accepted_or_refused_in_one_line(
    name: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colortrain.models.memory.machine_memory", lambda: _MEMORY)
    recipe = scaled(get_recipe(name))
    shards = small_set(tmp_path, size=recipe.size, count=8)
    refused = []
    for assignment in (f"{field}={value}" for field in names for value in VALUES):
        try:
            try_value(recipe, shards, assignment)
        except UserError as error:
            refused.append(str(error))
        except Exception as error:
            raise AssertionError(assignment) from error
    assert len(refused) >= len(names)
    assert not [line for line in refused if "\n" in line]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("batch_size=1000000000", "1,000,000,000 images per process and batch take"),
        ("generator.base_channels=60000", "training recipe nampouri_unet takes at least"),
        ("generator.base_channels=100000", "generator: base_channels must be at most 65,536"),
        ("size=1000000000", "size must be at most 8192"),
    ],
)
def test_training_that_fits_no_machine_is_refused_at_once(
    assignment: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = small_set(tmp_path / "shards", count=8)
    options = ["--shards", str(shards), "--run", str(tmp_path / "run"), "--tracker", "none"]
    sets = ["--set", "size=32", "--set", "generator.levels=4", "--set", assignment]
    assert run_command("train", main, ["--recipe", "nampouri_unet", *options, *sets]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

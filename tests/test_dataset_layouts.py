"""The commands of docs/DATASETS.md build and train on the layouts it describes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from colortrain.recipe import save_recipe
from colortrain.recipes import get_recipe
from launch import train
from shards.__main__ import main as shards_main
from shards.format.manifest import load_manifest
from tests.support import dataset_layouts as layouts
from tests.support.scaled_recipes import scaled

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "DATASETS.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
SMALLER = 500  # counts of images in the commands are divided by this
DEFAULT = "--recipe nampouri_unet"  # of sections without a command that trains
# Section: what writes the dataset, and the samples of each shard set and split.
EXPECTED: dict[str, tuple[Callable[[Path], object], dict[str, dict[str, int]]]] = {
    "COCO 2014": (
        layouts.make_coco,
        {"coco-256": {"train": 16, "val": 4}, "coco-256-all": {"train": 24, "val": 8}},
    ),
    "Places365": (
        layouts.make_places,
        {
            "places-256": {"train": 15, "val": 10, "test": 6},
            "places-large-256": {"train": 14, "val": 10, "test": 6},
            "places-easy-256": {"train": 24, "val": 6},
            "places-listed-256": {"train": 24, "val": 6},
        },
    ),
    "ImageNet": (
        layouts.make_imagenet,
        {
            "imagenet-256": {"train": 20, "val": 6},
            "imagenet-kaggle-256": {"train": 20, "val": 6},
            "imagenet-tars-64": {"train": 12, "val": 4},
        },
    ),
    "CIFAR-10 and CIFAR-100": (
        layouts.make_cifar,
        {
            name: {"train": 14, "val": 10, "test": 6}
            for name in ("cifar10-32", "cifar10-py-32", "cifar100-32", "cifar100-py-32")
        },
    ),
    "Tiny-ImageNet": (
        layouts.make_tiny_imagenet,
        {"tiny-64": {"train": 24, "val": 6, "test": 4}},
    ),
    "MIRFLICKR-25k": (
        layouts.make_mirflickr,
        {name: {"train": 10, "val": 2} for name in ("mirflickr-224", "mirflickr-lab-224")},
    ),
    "Hugging Face": (
        layouts.make_hugging_face,
        {
            "tiny-hub-64": {"train": 24, "val": 6},
            "imagenet-hub-256": {"train": 20, "validation": 6},
        },
    ),
    "Tars of img2dataset": (layouts.make_img2dataset, {"laion-256": {"train": 14, "val": 2}}),
    "A folder of photographs": (layouts.make_photographs, {"photos-64": {}}),
}


def commands(section: str, name: str) -> list[list[str]]:
    """Return the arguments of each `colortrain NAME` in a section of the page."""
    text = SECTIONS[section].replace("\\\n", "")
    lines = re.findall(rf"^    colortrain {name} (.+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def scaled_down(args: list[str]) -> list[str]:
    """Return a command's arguments for 32 px and a 500th of the images."""
    line = re.sub(r"(?<=[=:])\d{4,}", lambda count: str(int(count[0]) // SMALLER), shlex.join(args))
    line = re.sub(r"(--size |--set size=)\d+", r"\g<1>32", line)
    return shlex.split(re.sub(r"--images \d+", "--images 8", line))


def option(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


@pytest.mark.parametrize("section", EXPECTED)
def test_layout_builds_and_trains(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if section == "Hugging Face":
        pytest.importorskip("pyarrow", reason="colortrain[parquet] is not installed")
    monkeypatch.chdir(tmp_path)
    make, expected = EXPECTED[section]
    make(tmp_path)
    paths = "\n".join(re.findall(r"^```\n((?:[^`\n]+\n)+)```$", SECTIONS[section], re.MULTILINE))
    assert paths
    assert [path for path in paths.split() if not Path(path).exists()] == []
    for args in commands(section, "shards build"):
        assert shards_main(["build", *scaled_down(args), "--workers", "1"]) == 0
    for out, counts in expected.items():
        manifest = load_manifest(Path(out))
        found = {split: manifest.samples(split) for split in manifest.splits}
        assert counts in ({}, found)
    trained = [scaled_down(args) for args in commands(section, "train")]
    left = set(expected) - {option(args, "--shards") for args in trained}
    trained += [shlex.split(f"{DEFAULT} --shards {out} --run runs/{out}") for out in sorted(left)]
    for args in trained:
        train_two_steps(args)


def train_two_steps(args: list[str]) -> None:
    """Run a command of `colortrain train` with a small version of its recipe."""
    place = args.index("--recipe") + 1
    save_recipe(scaled(get_recipe(args[place]), steps=2), Path("recipe.json"))
    assert train.main([*args[:place], "recipe.json", *args[place + 1 :]]) == 0
    assert list(Path(option(args, "--run")).glob("checkpoints/step-*2"))


def test_each_section_is_tested() -> None:
    assert list(SECTIONS) == list(EXPECTED)
    for section, (_, expected) in EXPECTED.items():
        assert [args[1] for args in commands(section, "shards build")] == list(expected)


@pytest.mark.parametrize("section", SECTIONS)
def test_recipes_have_the_size_of_the_shards(section: str) -> None:
    sizes = {args[1]: option(args, "--size") for args in commands(section, "shards build")}
    for args in commands(section, "train"):
        recipe = train.resolve(train.make_parser().parse_args(args))
        assert str(recipe.size) == sizes[option(args, "--shards")]

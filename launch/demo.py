"""The whole road in a few minutes, on photographs that scikit-image and matplotlib bring along: `make demo`.

    python -m launch.demo --out runs/demo

Crops of four photographs are packed and learnt from; two other photographs are held out, whole, for the scores.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data

from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.recipes import get_recipe
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.history import read_journal
from colortrain.visualize import loss_curves, sample_grid, save_png
from launch.cli import CommandParser
from launch.processes import launcher, num_processes_for
from shards.errors import UserError, run_command
from shards.read.dataset import Split

SIZE = 64
LEARNT_FROM = ("astronaut", "coffee", "motorcycle", "rocket")
HELD_OUT = ("chelsea", "grace_hopper")
CROPS = {"train": 200, "val": 12}  # of each photograph
IMAGES = 16_000
RECIPE = "nampouri_unet"
SETTINGS = (
    f"size={SIZE}",
    "generator.levels=6",
    "generator.base_channels=16",
    "critic.base_channels=16",
    "objective.adversarial_weight=[[0, 0], [3, 0.3]]",
    "objective.critic_from=2",
    "test_dropout=false",
    "evaluate_every=250",
    "checkpoint_every=250",
)


def photograph(name: str) -> Image.Image:
    """One of the bundled colour photographs; none is downloaded."""
    if name == "grace_hopper":
        return Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    if name == "motorcycle":
        return Image.fromarray(data.stereo_motorcycle()[0])
    return Image.fromarray(getattr(data, name)())


def crops(picture: Image.Image, count: int, draw: np.random.Generator) -> Iterator[Image.Image]:
    """Squares of many scales, from a third of the shorter side to all of it, at 1.5 times the training size."""
    for _ in range(count):
        side = int(min(picture.size) * draw.uniform(0.33, 1))
        left, top = (int(draw.integers(0, length - side + 1)) for length in picture.size)
        yield picture.crop((left, top, left + side, top + side)).resize(
            (SIZE * 3 // 2,) * 2, Image.Resampling.LANCZOS
        )


def write_photographs(folder: Path) -> None:
    """FOLDER/train and FOLDER/val full of crops, and beside FOLDER the two pictures to colour whole."""
    draw = np.random.default_rng(0)
    for split, names in (("train", LEARNT_FROM), ("val", HELD_OUT)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            for number, crop in enumerate(crops(photograph(name), CROPS[split], draw)):
                crop.save(folder / split / f"{name}-{number:03d}.png")
    grey = folder.with_name("grey")
    grey.mkdir(exist_ok=True)
    Image.fromarray(data.camera()).save(grey / "camera.png")
    photograph("grace_hopper").convert("L").save(grey / "grace_hopper.png")


def step(title: str, words: Sequence[str | Path]) -> None:
    """Say what is done, do it in a process of its own as a person would, and stop if it fails."""
    line = [str(word) for word in words]
    shown = " ".join("python" if word == sys.executable else word for word in line)
    print(f"\n== {title}\n$ {shown}", flush=True)
    status = subprocess.run(line, check=False).returncode
    if status:
        raise UserError(
            f"{title}: that command ended with status {status}; what it printed above says why"
        )


def draw_grid(run: Path, shards: Path, out: Path) -> None:
    """Grey | generated | truth for eight crops of the held-out photographs."""
    generator, recipe, _ = load_generator(run)
    split = Split(shards, "val")
    chosen = np.linspace(0, len(split) - 1, 8).round().astype(int)
    lab = stored_to_lab(torch.from_numpy(split.read(chosen)))
    save_png(sample_grid(lab, generate(generator, recipe.codec, lab)), out)


def closing_words(run: Path, seconds: float) -> str:
    """The pictures to open and three commands to go on with."""
    pictures = [run / "grid.png", run / "curves.png", *sorted((run / "colorized").rglob("*.png"))]
    return "\n".join(
        [
            f"\nDone in {seconds:.0f} s. Open these pictures:",
            *(f"  {picture}" for picture in pictures),
            f"Scores beside grey: {run / 'metrics.json'}",
            "\nTry next:",
            f"  colortrain serve --run {run}      # a page to drop photographs on",
            f"  tensorboard --logdir {run / 'tensorboard'}",
            "  colortrain shards build ~/Pictures photos-64 --size 64 --splits train=.95,val=.05",
            "(in .venv/bin, or after `source .venv/bin/activate`)",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Photographs, shards, training, scores, colours."""
    words = CommandParser(
        "launch.demo", __doc__ or "", "example:\n  python -m launch.demo --out runs/demo\n"
    )
    words.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: runs/demo)"
    )
    words.add_argument("--images", type=int, default=IMAGES, help="how many images to train on")
    run, images = (lambda a: (a.out, a.images))(words.parse_args(argv))
    if run.name in ("", ".."):
        raise UserError(f"--out {run}: give a folder by its name, as in --out runs/demo")
    began, python = time.monotonic(), [sys.executable, "-m"]
    photos, shards = (
        run.with_name(run.name + "-data") / "photos",
        run.with_name(run.name + "-data") / "shards",
    )
    write_photographs(photos)
    build = ["shards", "build", photos, shards, "--size", str(SIZE), "--splits", "source"]
    step("Pack the photographs into shards of Lab", [*python, *build])
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    train = ["-m", "launch.train", "--recipe", RECIPE, "--shards", shards, "--run", run]
    step(
        "Train",
        [
            *launcher(num_processes_for(get_recipe(RECIPE).batch_size)),
            *train,
            "--images",
            str(images),
            *sets,
        ],
    )
    evaluate = ["launch.evaluate", "--run", run, "--shards", shards, "--json", run / "metrics.json"]
    step("Score photographs that were held out", [*python, *evaluate])
    colorize = [
        "launch.colorize",
        "--run",
        run,
        "--out",
        run / "colorized",
        "--force",
        photos.with_name("grey"),
    ]
    step("Colour black-and-white photographs", [*python, *colorize])
    draw_grid(run, shards, run / "grid.png")
    loss_curves(read_journal(run), run / "curves.png")
    print(closing_words(run, time.monotonic() - began))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("launch.demo", main))

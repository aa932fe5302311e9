"""Try the whole workflow in a few minutes: build shards, train, score, colorize.

    colortrain demo --out runs/demo

The photographs are installed with scikit-image and matplotlib; nothing is downloaded.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from colortrain.distributed.device import num_gpus
from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.history import read_journal
from colortrain.visualize import loss_curves, sample_grid, save_png
from launch.cli import CommandParser
from launch.processes import launch_command
from shards.errors import UserError, run_command
from shards.read.dataset import Split

SIZE = 64
TRAINING_PHOTOS = ("astronaut", "coffee", "motorcycle", "rocket")
HELD_OUT_PHOTOS = ("chelsea", "grace_hopper")
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
_PROCESSES = 2  # BatchNorm sees 8 images in each; with more processes, fewer than it needs


def photograph(name: str) -> Image.Image:
    """Return a colour photograph that scikit-image or matplotlib contains, as RGB.

    name: "motorcycle", "grace_hopper" or the name of a function in skimage.data.
    """
    if name == "grace_hopper":
        from matplotlib.cbook import get_sample_data  # it needs a folder for its cache

        return Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    if name == "motorcycle":
        return Image.fromarray(data.stereo_motorcycle()[0])
    return Image.fromarray(getattr(data, name)())


def crops(image: Image.Image, count: int, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Yield `count` random square crops at 1.5 times the size of the samples."""
    for _ in range(count):
        side = int(min(image.size) * rng.uniform(0.33, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        yield image.crop((left, top, left + side, top + side)).resize(
            (SIZE * 3 // 2,) * 2, Image.Resampling.LANCZOS
        )


def write_photographs(folder: Path) -> None:
    """Write the images of the demo as PNG files.

    Crops in colour are written to FOLDER/train and FOLDER/val, two grayscale
    photographs to the folder `grey` next to FOLDER.
    """
    rng = np.random.default_rng(0)
    for split, names in (("train", TRAINING_PHOTOS), ("val", HELD_OUT_PHOTOS)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            for number, crop in enumerate(crops(photograph(name), CROPS[split], rng)):
                crop.save(folder / split / f"{name}-{number:03d}.png")
    grayscale = folder.with_name("grey")
    grayscale.mkdir(exist_ok=True)
    Image.fromarray(data.camera()).save(grayscale / "camera.png")
    photograph("grace_hopper").convert("L").save(grayscale / "grace_hopper.png")


def run_step(title: str, command: Sequence[object]) -> None:
    """Print a title and a command, and run the command in a process.

    Raises UserError if the command fails.
    """
    args = [str(arg) for arg in command]
    shown = " ".join("python" if arg == sys.executable else arg for arg in args)
    print(f"\n== {title}\n$ {shown}", flush=True)
    status = subprocess.run(args, check=False).returncode
    if status:
        raise UserError(
            f"{title}: this command failed with exit status {status}; see its output above"
        )


def draw_grid(run: Path, shards: Path, out: Path) -> None:
    """Write an image of eight held-out crops: in grayscale, generated, and the truth.

    run: folder of the trained run; shards: shard set of the crops.
    """
    generator, recipe, _ = load_generator(run)
    split = Split(shards, "val")
    chosen = np.linspace(0, len(split) - 1, 8).round().astype(int)
    lab = stored_to_lab(torch.from_numpy(split.read(chosen)))
    save_png(sample_grid(lab, generate(generator, recipe.codec, lab)), out)


def closing_message(run: Path, seconds: float) -> str:
    """Return the demo's last message: images to open, and three commands to try next.

    run: the demo's run folder; seconds: time that the demo took.
    """
    images = [run / "grid.png", run / "curves.png", *sorted((run / "colorized").rglob("*.png"))]
    return "\n".join(
        [
            f"\nDone in {seconds:.0f} s. Open these images:",
            *(f"  {image}" for image in images),
            f"Scores, compared with a grayscale baseline: {run / 'metrics.json'}",
            "\nTry next (in .venv/bin, or after `source .venv/bin/activate`):",
            f"  colortrain serve --run {run}      # a web page that colorizes your photographs",
            f"  tensorboard --logdir {run / 'tensorboard'}",
            "  colortrain shards build ~/Pictures photos-64 --size 64 --splits train=0.95,val=0.05",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Build shards, train, score and colorize; return the exit status."""
    example = "example:\n  colortrain demo --out runs/demo\n"
    parser = CommandParser("demo", __doc__ or "", example)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="run folder (default: runs/demo)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=IMAGES,
        metavar="N",
        help=f"number of images to train on (default: {IMAGES})",
    )
    args = parser.parse_args(argv)
    run = args.out
    if run.name in ("", ".."):
        raise UserError(f"--out {run}: give a folder with a name, for example --out runs/demo")
    start = time.monotonic()
    _run_steps(run, args.images)
    print(closing_message(run, time.monotonic() - start))
    return 0


def _run_steps(run: Path, images: int) -> None:
    python = [sys.executable, "-m"]
    # first, because it raises if training cannot start
    launch = launch_command(1 if num_gpus() == 1 else _PROCESSES)
    data_folder = run.with_name(run.name + "-data")
    photos, shards = data_folder / "photos", data_folder / "shards"
    write_photographs(photos)
    build = ["shards", "build", photos, shards, "--size", str(SIZE), "--splits", "source"]
    run_step("Build Lab shards from the photographs", [*python, *build])
    train = ["-m", "launch.train", "--recipe", RECIPE, "--shards", shards, "--run", run]
    settings = [arg for setting in SETTINGS for arg in ("--set", setting)]
    run_step("Train", [*launch, *train, "--images", str(images), *settings])
    evaluate = ["launch.evaluate", "--run", run, "--shards", shards, "--json", run / "metrics.json"]
    run_step("Score held-out photographs", [*python, *evaluate])
    colorize = ["launch.colorize", "--run", run, "--out", run / "colorized", "--force"]
    run_step("Colorize black-and-white photographs", [*python, *colorize, photos.with_name("grey")])
    draw_grid(run, shards, run / "grid.png")
    loss_curves(read_journal(run), run / "curves.png")


if __name__ == "__main__":
    sys.exit(run_command("demo", main))

"""Damaged JSON files of a run, an export and a shard set: one line, no traceback.

Whatever is in such a file, a command that reads it succeeds or raises a user's error.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import colortrain
from colortrain.inference.colorizer import load_run
from colortrain.inference.model_card import model_card
from colortrain.recipe import load_recipe
from colortrain.runs.folder import check_run_folder
from colortrain.runs.history import last_scores, read_journal
from colortrain.runs.layout import MANIFEST, checkpoint_folder
from colortrain.visualize import loss_curves
from launch.evaluate import main as evaluate
from launch.export import main as export
from launch.report.__main__ import main as report
from launch.train import main as train
from shards.__main__ import main as shards_main
from shards.errors import describe
from shards.files import sha256_of
from shards.read.dataset import Split
from slurm import runs
from slurm.status import _row as make_row
from tests.support.fake_accelerator import FakeAccelerator, start_journal
from tests.support.json_mutations import mutate
from tests.support.small_shard_set import PHOTOGRAPHS, photograph

NUM_MUTATIONS = int(os.environ.get("MUTATIONS", "20"))  # per file
FIELDS = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=2",
    "critic.base_channels=2",
    "batch_size=4",
    "images=12",
    "log_every=2",
    "evaluate_every=2",
    "checkpoint_every=1",
    "keep_best=l1",
    "ema.half_life=20",
    "plateau.patience=2",
]
CHECKPOINT = checkpoint_folder(Path("run"), 3)
Reader = Callable[[Path], Any]


def train_arguments(folder: Path) -> list[str]:
    fields = [text for field in FIELDS for text in ("--set", field)]
    names = ["--recipe", "nampouri_unet", "--tracker", "none"]
    return [*names, "--shards", str(folder / "shards"), "--run", str(folder / "run"), *fields]


def build_arguments(folder: Path) -> list[str]:
    paths = [str(folder / "photos"), str(folder / "shards")]
    return ["build", *paths, "--size", "32", "--splits", "train=6,val=4", "--workers", "1"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards, a run trained on them and scored, and its export."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "photos").mkdir()
    for number in range(12):
        crop = photograph(PHOTOGRAPHS[number % 4])[number : number + 64, :64]
        Image.fromarray(crop).save(folder / "photos" / f"{number}.png")
    assert shards_main(build_arguments(folder)) == 0
    assert shards_main(["statistics", str(folder / "shards"), "--part", "1/1"]) == 0
    assert train(train_arguments(folder)) == 0
    run = folder / "run"
    assert evaluate(["--run", str(run), "--shards", str(folder / "shards")]) == 0
    assert export(["--run", str(run), "--out", str(folder / "export")]) == 0
    (run / "slurm").mkdir()
    (run / "slurm" / "jobs.jsonl").write_text('{"job": "7", "submitted": 1.5}\n')
    (run / "slurm" / "starts.jsonl").write_text('{"job": "7", "step": 3, "time": 1.5}\n')
    (run / "trackers.json").write_text('{"wandb": "a", "mlflow": "b"}\n')
    return folder


def write_report(folder: Path) -> None:
    report([str(folder / "run"), "--out", str(folder / "report")])


def read_status(folder: Path) -> None:
    runs.latest_job(folder / "run")
    runs.starts_without_progress(folder / "run", "7")
    make_row(folder / "run", None)


def write_card(folder: Path) -> None:
    network, recipe = load_run(folder / "run", None, ema=True)
    model_card("a", network, recipe, folder / "run")


def start_run(folder: Path) -> None:
    check_run_folder(folder / "run", load_recipe(folder / CHECKPOINT / "recipe.json"))
    start_journal(folder / "run", FakeAccelerator(), step=2)


def draw_curves(folder: Path) -> None:
    last_scores(folder / "run")
    loss_curves(read_journal(folder / "run"), folder / "curves.png")


def load_network(folder: Path) -> None:
    colortrain.load(folder / "run")


def load_best(folder: Path) -> None:
    colortrain.load(folder / "run", checkpoint="best")


def resume(folder: Path) -> None:
    train([*train_arguments(folder), "--set", "images=16"])


def load_export(folder: Path) -> None:
    colortrain.load(folder / "export")


def export_again(folder: Path) -> None:
    export(["--run", str(folder / "run"), "--out", str(folder / "export"), "--force"])


def read_recipe(folder: Path) -> None:
    load_recipe(folder / "export" / "recipe.json")


def build_shards(folder: Path) -> None:
    shards_main(build_arguments(folder))


def merge_shards(folder: Path) -> None:
    shards_main(["merge", str(folder / "shards")])


def read_shards(folder: Path) -> None:
    Split(folder / "shards", "train").read([0])


def inspect_shards(folder: Path) -> None:
    shards_main(["info", str(folder / "shards")])
    shards_main(["verify", str(folder / "shards")])


def merge_statistics(folder: Path) -> None:
    shards_main(["statistics", str(folder / "shards"), "--merge"])


READERS: dict[str, tuple[Reader, ...]] = {
    "run/recipe.json": (write_report, read_status, start_run),
    "run/metrics.jsonl": (write_report, read_status, start_run, write_card, draw_curves),
    "run/evaluation.json": (write_report, write_card),
    "run/trackers.json": (start_run,),
    "run/slurm/jobs.jsonl": (read_status,),
    "run/slurm/starts.jsonl": (read_status,),
    "run/checkpoints/best.json": (load_best,),
    f"{CHECKPOINT}/recipe.json": (load_network, resume),
    f"{CHECKPOINT}/trainer.json": (load_network, resume),
    f"{CHECKPOINT}/MANIFEST.json": (load_network,),
    "export/config.json": (load_export, export_again),
    "export/recipe.json": (read_recipe,),
    "shards/manifest.json": (read_shards, inspect_shards),
    "shards/build.json": (build_shards, merge_shards),
    "shards/sources/000000.jsonl": (build_shards, merge_shards, inspect_shards),
    "shards/statistics-1-of-1.json": (merge_statistics,),
}
SLOW: dict[Reader, int] = {resume: 10, draw_curves: 5}  # readers that get only every N-th mutation


def update_manifest(folder: Path) -> None:
    """Make the checkpoint intact again, so that its damaged file is read at all."""
    path = folder / CHECKPOINT / MANIFEST
    files = {each.name: each for each in path.parent.iterdir() if each != path}
    entries = {
        name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for name, file in files.items()
    }
    path.write_text(json.dumps(entries))


def failure(reader: Reader, folder: Path) -> str | None:
    """Return the error if a reader fails with anything but a user's error."""
    try:
        reader(folder)
    except Exception as error:
        line = describe(error)
        if line is None or "\n" in line:
            return f"{type(error).__name__}: {error}"[:300]
    return None


@pytest.mark.filterwarnings("ignore:.* is damaged")
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    original: Path, tmp_path: Path, name: str
) -> None:
    draw, failures = random.Random(zlib.crc32(name.encode())), []
    for number in range(NUM_MUTATIONS):
        folder = shutil.copytree(original, tmp_path / str(number))
        damaged = mutate((folder / name).read_bytes(), draw)
        (folder / name).write_bytes(damaged)
        if (folder / name).parent == folder / CHECKPOINT and not name.endswith(MANIFEST):
            update_manifest(folder)
        for reader in READERS[name]:
            if number % SLOW.get(reader, 1) == 0 and (text := failure(reader, folder)):
                failures.append((reader.__name__, damaged[:200], text))
        shutil.rmtree(folder)
    assert not failures, "\n".join(map(str, failures))

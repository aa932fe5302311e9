"""The `colortrain reproduce` command: a table, resuming, and errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from colortrain.runs.checkpoint import latest_checkpoint
from launch.reproduce import parse_options
from shards.errors import UserError
from tests.launch.reproduce.cifar import small_cifar
from tests.support.photographs import make_folder
from tests.support.processes import ROOT, command, environment, run_command
from tests.support.small_shard_set import small_set


def arguments(source: Path, out: Path, *options: object) -> list[object]:
    """Return arguments of the command; `options` replace `--recipes flagship`."""
    args: list[object] = ["cifar10", "--source", source, "--out", out, "--budget", "images:240"]
    args += ["--base-channels", 4, "--limit", 5]
    return [*args, *(options or ("--recipes", "flagship"))]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The source, the folder of a table of two networks, and the printed output."""
    folder = tmp_path_factory.mktemp("reproduce")
    source, out = small_cifar(folder / "cifar-10-batches-bin"), folder / "out"
    recipes = ("--recipes", "flagship", "nazeri_unet_l2")
    done = run_command("launch.reproduce", arguments(source, out, *recipes))
    assert done.returncode == 0, done.stderr[-3000:]
    return source, out, done.stdout


def rows(out: Path) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads((out / "table.json").read_text())["results"]
    return results


@pytest.mark.distributed
def test_one_command_creates_the_table(reproduced: tuple[Path, Path, str]) -> None:
    _, out, printed = reproduced
    text = (out / "table.md").read_text()
    assert text in printed
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")] == [
        "`nazeri_unet_l2`",
        "`flagship`",
    ]
    assert "epochs of 11 (left out: 1 grey)" in text  # the grayscale image of the training batch
    assert [row["samples"] for row in rows(out)] == [5, 5]
    assert all(row["metrics"]["frechet_classifier"]["generated"] > 0 for row in rows(out))
    assert "| nazeri_unet_l2, the paper's table 1 |  | 7.90 | 13.7 | 37.2 |" in text
    assert {"seconds", "peak_mb", "parameters", "commit"} <= set(rows(out)[0])
    assert "mixed precision no, processes per network: 1; peak MB of resident memory." in text
    with Image.open(out / "picture.png") as image:
        assert image.width > 4 * 32
    with Image.open(out / "curves.png") as image:
        assert image.width == 1500


@pytest.mark.distributed
def test_a_killed_training_resumes_and_ends_with_the_same_scores(
    reproduced: tuple[Path, Path, str], tmp_path: Path
) -> None:
    source, undisturbed, _ = reproduced
    killed = tmp_path / "killed"
    shutil.copytree(undisturbed / "shards", killed / "shards")
    with subprocess.Popen(
        command("launch.reproduce", arguments(source, killed)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while latest_checkpoint(killed / "flagship-0") is None:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (killed / "flagship-0" / "cost.json").exists()
    again = run_command("launch.reproduce", arguments(source, killed))
    assert again.returncode == 0, again.stderr[-3000:]
    assert [row["metrics"] for row in rows(killed)] == [rows(undisturbed)[1]["metrics"]]


@pytest.mark.distributed
def test_finished_work_is_not_repeated_and_rows_are_added(
    reproduced: tuple[Path, Path, str],
) -> None:
    source, out, _ = reproduced
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    more = ("--recipes", "flagship", "--seeds", 0, 1)
    done = run_command("launch.reproduce", arguments(source, out, *more))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (done.stderr + done.stdout).count("written to") == 1  # one evaluation
    assert [(row["recipe"], row["seed"]) for row in rows(out)] == [
        ("nazeri_unet_l2", 0),
        ("flagship", 0),
        ("flagship", 1),
    ]
    other = run_command("launch.reproduce", arguments(source, out, "--limit", 4))
    assert other.returncode == 2
    assert "was started with other options" in other.stderr


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("table", "recipe", "rows_expected"),
    [
        ("nampouri", "nampouri_unet", ["nampouri_unet"]),
        ("nazeri-places", "nazeri_gan_places", ["nazeri_gan_places"]),
        ("arun", "arun_wgan_gp", ["arun_wgan_gp"]),
        ("drouilhet", "drouilhet_gan", ["drouilhet_gan"]),
        ("valentini", "valentini_cgan", [f"valentini_cgan-depth{n}" for n in (2, 3, 4)]),
    ],
)
def test_every_papers_table_is_made_from_a_folder_of_photographs(
    table: str, recipe: str, rows_expected: list[str], tmp_path: Path
) -> None:
    photos = make_folder(tmp_path / "photos", 26)
    args: list[object] = [table, "--source", photos, "--out", tmp_path / "out", "--limit", 2]
    args += ["--budget", "images:16", "--size", 32, "--base-channels", 2, "--recipes", recipe]
    done = run_command("launch.reproduce", args)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "out" / "table.md").read_text()
    assert [row["network"] for row in rows(tmp_path / "out")] == rows_expected
    assert ("the paper's" in text) is (table != "valentini")
    assert "32 px, 2 base channels" in text
    assert (tmp_path / "out" / "curves.png").is_file()


def test_seeds_and_photos_are_checked_before_any_work(tmp_path: Path) -> None:
    args = ["cifar10", "--source", str(tmp_path), "--out", str(tmp_path / "out")]
    args += ["--budget", "full"]
    with pytest.raises(UserError, match="must be a whole number of at least 0, got '-1'"):
        parse_options([*args, "--seeds", "0", "-1"])
    with pytest.raises(
        UserError, match=r"--seeds 9223372036854775808: give whole numbers below 2\^63"
    ):
        parse_options([*args, "--seeds", "0", str(2**63)])
    photos = small_set(tmp_path / "photos", size=64, count=4)
    message = "has samples of 64 px, but the networks are trained at 32 px"
    with pytest.raises(UserError, match=message):
        parse_options([*args, "--photos", str(photos)])
    assert parse_options(["photos", *args[1:], "--photos", str(photos)])[3] == photos

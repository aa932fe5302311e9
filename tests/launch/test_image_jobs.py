"""The images and videos to colorize: targets, existing files, and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import image_jobs
from launch.image_jobs import Job, Outcome, plan_jobs, read_batches, select_jobs
from shards.errors import UserError


def write_image(path: Path, width: int = 8, height: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


def test_targets_keep_relative_paths_and_get_the_suffix_of_their_kind(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "b" / "two.jpg")
    write_image(tmp_path / "in" / "one.tif")
    (tmp_path / "in" / "clip.mov").touch()
    (tmp_path / "clip.mkv").touch()
    out = tmp_path / "out"
    jobs = plan_jobs([tmp_path / "in", tmp_path / "clip.mkv"], out, ["net"])
    assert [(job.source.name, job.targets, job.is_video) for job in jobs] == [
        ("two.jpg", (out / "b" / "two.png",), False),
        ("one.tif", (out / "one.png",), False),
        ("clip.mkv", (out / "clip.mp4",), True),
    ]


def test_several_networks_write_to_folders_of_their_own(tmp_path: Path) -> None:
    (job,) = plan_jobs([write_image(tmp_path / "one.png")], tmp_path / "out", ["a", "b"])
    assert job.targets == (tmp_path / "out" / "a" / "one.png", tmp_path / "out" / "b" / "one.png")


def test_an_input_given_twice_is_one_job(tmp_path: Path) -> None:
    source = write_image(tmp_path / "in" / "one.png")
    assert len(plan_jobs([source, source, tmp_path / "in"], tmp_path / "out", ["net"])) == 1


def test_existing_targets_are_skipped_overwritten_or_rejected(tmp_path: Path) -> None:
    done, missing = (Job(tmp_path / name, (tmp_path / f"{name}.png",)) for name in ("a", "b"))
    done.targets[0].touch()
    jobs = [done, missing]
    assert select_jobs(jobs, None, force=False, skip_existing=True) == [missing]
    assert select_jobs(jobs, None, force=True, skip_existing=False) == jobs
    with pytest.raises(UserError, match=r"a\.png exists: .*--force or --skip-existing"):
        select_jobs(jobs, None, force=False, skip_existing=False)


def test_invalid_names_of_the_sheet_are_rejected(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / "a", (tmp_path / "a.png",))]
    with pytest.raises(UserError, match=r"ends in \.png or \.jpg"):
        select_jobs(jobs, tmp_path / "sheet.gif", force=False, skip_existing=False)
    with pytest.raises(UserError, match="also the name of an image"):
        select_jobs(jobs, tmp_path / "a.png", force=True, skip_existing=False)


def test_batches_are_limited_in_images_and_in_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_jobs, "_BATCH_PIXELS", 100)
    sizes = [(2, 2), (2, 2), (2, 2), (20, 10), (2, 2)]
    sources = [write_image(tmp_path / f"{i}.png", *size) for i, size in enumerate(sizes)]
    (tmp_path / "broken.png").write_bytes(b"not an image")
    jobs = [Job(source, ()) for source in [*sources[:1], tmp_path / "broken.png", *sources[1:]]]
    outcome = Outcome()
    batches = list(read_batches(jobs, 2, 10**6, outcome))
    assert [[job.source.stem for job, _ in batch] for batch in batches] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert [line.partition(": ")[0] for line in outcome.failures] == [str(tmp_path / "broken.png")]

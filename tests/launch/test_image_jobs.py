"""The images and videos to colorize: inputs, targets, and batches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch import image_jobs
from launch.image_jobs import (
    FileVersion,
    Job,
    Outcome,
    check_sheet,
    find_inputs,
    plan_jobs,
    read_batches,
)
from shards.errors import UserError


def write_image(path: Path, width: int = 8, height: int = 6, kind: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, kind)
    return path


def plan(inputs: list[Path], out: Path, *networks: str) -> list[Job]:
    return plan_jobs(find_inputs(inputs, out).files, out, networks or ["net"])


def targets(inputs: list[Path], out: Path) -> dict[str, str]:
    return {
        job.source.name: job.targets[0].relative_to(out).as_posix() for job in plan(inputs, out)
    }


def test_targets_keep_relative_paths_and_get_the_suffix_of_their_kind(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "b" / "two.jpg")
    write_image(tmp_path / "in" / "one.tif")
    (tmp_path / "in" / "clip.mov").touch()
    (tmp_path / "clip.mkv").touch()
    out = tmp_path / "out"
    jobs = plan([tmp_path / "in", tmp_path / "clip.mkv"], out)
    assert [(job.source.name, job.targets, job.is_video) for job in jobs] == [
        ("two.jpg", (out / "b" / "two.png",), False),
        ("one.tif", (out / "one.png",), False),
        ("clip.mkv", (out / "clip.mp4",), True),
    ]


def test_several_networks_write_to_folders_of_their_own(tmp_path: Path) -> None:
    (job,) = plan([write_image(tmp_path / "one.png")], tmp_path / "out", "a", "b")
    assert job.targets == (tmp_path / "out" / "a" / "one.png", tmp_path / "out" / "b" / "one.png")


def test_an_input_given_twice_is_one_job(tmp_path: Path) -> None:
    source = write_image(tmp_path / "in" / "one.png")
    assert len(plan([source, source, tmp_path / "in"], tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["a.jpg", "a.tif"], ["a.jpg.png", "a.tif.png"]),
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png.png", "a.jpg.png", "a.png"]),
        (["a.jpg", "A.png", "b/a.png"], ["a.png", "A.png", "b/a.png"]),
        (["a.JPG", "a.jpg"], ["a.JPG.png", "a.jpg.png"]),
    ],
)
def test_images_that_differ_in_their_extension_get_names_of_their_own(
    tmp_path: Path, sources: list[str], expected: list[str]
) -> None:
    for source in sources:
        write_image(tmp_path / "in" / source)
    out = tmp_path / "out"
    jobs = plan([tmp_path / "in"], out)
    found = {
        job.source.relative_to(tmp_path / "in").as_posix(): job.targets[0]
        .relative_to(out)
        .as_posix()
        for job in jobs
    }
    assert found == dict(zip(sources, expected, strict=True))
    given = [tmp_path / "in" / source for source in reversed(sources)]
    if "b/a.png" not in sources:
        assert targets(given, out) == found, "the order of inputs does not matter"


def test_no_input_is_overwritten_by_the_result_of_another(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "sub" / "b.jpg")
    other = write_image(tmp_path / "out" / "sub" / "b.png")
    with pytest.raises(
        UserError, match=r"out/sub/b\.png would be overwritten by the .*in/sub/b\.jpg"
    ):
        plan([tmp_path / "in", other], tmp_path / "out")


def test_the_output_folder_may_contain_the_input_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "one.jpg")
    write_image(tmp_path / "in" / "out" / "one.png")
    assert targets([tmp_path / "in"], tmp_path) == {"one.jpg": "one.png"} | {
        "one.png": "out/one.png"
    }
    assert targets([tmp_path / "in"], tmp_path / "in" / "out") == {"one.jpg": "one.png"}


def test_what_is_not_taken_from_a_folder_is_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_image(folder / "one.jpg")
    names = ["a.xmp", "b.xcf", "c.psd", "notes.txt", "clip.mp4", "._one.jpg", "bad\x1bname"]
    for name in names:
        (folder / name).write_bytes(b"x")
    write_image(folder / "@eaDir" / "one.jpg" / "SYNOPHOTO_THUMB_XL.jpg")
    found = find_inputs([folder], tmp_path / "out")
    assert [source.name for source, _ in found.files] == ["one.jpg"]
    assert found.passed_over == [
        f"{folder}: passed over by their extension: 5 "
        r"(b.xcf, c.psd, a.xmp, 'bad\x1bname', notes.txt)",
        f"{folder}: videos, which must be given as inputs themselves: 1 (clip.mp4)",
        f"{folder}: hidden files, and folders of thumbnails, left out: 2 (._one.jpg, @eaDir/)",
    ]


def test_images_are_recognized_by_their_content_if_requested(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_image(folder / "one.jpg")
    write_image(folder / "download", kind="WEBP")
    write_image(folder / "scan.dat", kind="TIFF")
    (folder / "P6.txt").write_text("Pyramids, P5 and P6")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    assert len(find_inputs([folder], tmp_path / "out").files) == 1
    found = find_inputs([folder], tmp_path / "out", by_content=True)
    assert [path.as_posix() for _, path in found.files] == ["download", "one.jpg", "scan.dat"]
    assert found.passed_over == [
        f"{folder}: passed over by their extension: 3 (P6.txt, empty, pipe)"
    ]


def test_earlier_results_are_not_taken_from_a_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "one.jpg")
    result = write_image(tmp_path / "one.png").resolve()
    found = find_inputs([tmp_path], tmp_path, results={result})
    assert [source.name for source, _ in found.files] == ["one.jpg"]


def test_invalid_names_of_the_sheet_are_rejected(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / "a", (tmp_path / "a.png",))]
    with pytest.raises(UserError, match=r"ends in \.png or \.jpg"):
        check_sheet(tmp_path / "sheet.gif", jobs)
    with pytest.raises(UserError, match="also the name of an image"):
        check_sheet(tmp_path / "a.png", jobs)


def test_batches_are_limited_in_images_and_in_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_jobs, "BATCH_PIXELS", 100)
    sizes = [(2, 2), (2, 2), (2, 2), (20, 10), (2, 2)]
    sources = [write_image(tmp_path / f"{i}.png", *size) for i, size in enumerate(sizes)]
    (tmp_path / "broken.png").write_bytes(b"not an image")
    jobs = [Job(source, ()) for source in [*sources[:1], tmp_path / "broken.png", *sources[1:]]]
    outcome = Outcome()
    batches = list(read_batches(jobs, 2, 10**6, outcome))
    assert [[photograph.job.source.stem for photograph in batch] for batch in batches] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert [line.partition(": ")[0] for line in outcome.failures] == [str(tmp_path / "broken.png")]


def test_an_image_that_does_not_fit_into_memory_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [write_image(tmp_path / f"{i}.png", width=8 + i) for i in range(3)]
    decode = image_jobs.decode_image

    def decode_little(data: bytes, max_pixels: int) -> Image.Image:
        image = decode(data, max_pixels)
        if image.width == 9:
            raise MemoryError
        return image

    monkeypatch.setattr(image_jobs, "decode_image", decode_little)
    outcome = Outcome()
    (batch,) = read_batches([Job(source, ()) for source in sources], 8, 10**6, outcome)
    assert [photograph.job.source.stem for photograph in batch] == ["0", "2"]
    assert outcome.failures == [f"{sources[1]}: not enough memory to decode it"]


def test_a_version_is_that_of_the_content_not_of_the_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    version = FileVersion.of(path)
    assert version == FileVersion.of(path, b"one")
    assert version.is_of(path)
    os.utime(path, (1, 1))
    assert version.is_of(path), "only its time has changed"
    path.write_bytes(b"two")
    assert not version.is_of(path)
    path.unlink()
    assert not version.is_of(path)

"""The `colortrain colorize` command: resolution, lightness, file names and errors."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from skimage.color import rgb2lab
from torch.nn import functional as F

import colortrain
from colortrain.lab import lab_to_rgb
from colortrain.metrics.evaluate import generate
from colortrain.runs.checkpoint import load_generator
from launch.colorize import main
from launch.colorize_journal import JOURNAL
from shards.color import rgb_to_lab
from shards.errors import UserError
from tests.support.small_run import small_run
from tests.support.small_shard_set import photograph


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colorize")
    small_run(folder / "run", settings=("test_dropout=false",))
    return folder / "run"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images of different sizes and modes in nested folders, and a text file."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    Image.fromarray(photograph("chelsea")).save(folder / "cat.png")
    Image.fromarray(photograph("coffee")[:90, :41]).save(
        folder / "deep" / "cup.of.coffee.JPG", quality=95
    )
    Image.fromarray(photograph("rocket")[::4, ::4]).convert("L").save(
        folder / "deep" / "er" / "old.png"
    )
    (folder / "notes.txt").write_text("not an image")
    return folder


def colorize(run: Path, out: Path, *args: object) -> int:
    return main(["--run", str(run), "--out", str(out), *map(str, args)])


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def files(folder: Path) -> list[str]:
    """Return all files below a folder except the journal."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if name != JOURNAL)


def test_a_folder_keeps_its_structure_and_its_image_sizes(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    assert colorize(run, tmp_path / "out", photos) == 0
    assert files(tmp_path / "out") == ["cat.png", "deep/cup.of.coffee.png", "deep/er/old.png"]
    assert read(tmp_path / "out" / "cat.png").shape == photograph("chelsea").shape
    assert read(tmp_path / "out" / "deep" / "cup.of.coffee.png").shape == (90, 41, 3)


def test_full_resolution_lightness_is_combined_with_generated_colours(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    """Compared with an independent implementation: torch's resizing and Lab to RGB."""
    assert colorize(run, tmp_path / "out", photos / "cat.png") == 0
    result = read(tmp_path / "out" / "cat.png")
    image = photograph("chelsea")
    generator, recipe, _ = load_generator(run)
    rgb = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    squashed = (
        F.interpolate(rgb, (32, 32), mode="bicubic", antialias=True).round().clamp(0, 255).byte()[0]
    )
    lab = torch.from_numpy(rgb_to_lab(squashed.permute(1, 2, 0).numpy()))[None]
    ab = generate(generator, recipe.codec, lab)[:, 1:]
    assert ab.abs().mean() > 3, "the generated colours must not be near zero"
    up = F.interpolate(ab, image.shape[:2], mode="bicubic", antialias=True)
    true = torch.from_numpy(rgb_to_lab(image))[None, :1]
    expected = lab_to_rgb(torch.cat([true, up], dim=1))[0].permute(1, 2, 0).numpy() * 255
    in_srgb = (expected.min(2) > 1) & (expected.max(2) < 254)
    difference = np.abs(result - expected)[in_srgb]
    assert in_srgb.mean() > 0.5
    assert difference.mean() < 0.7
    assert np.quantile(difference, 0.999) < 4
    assert np.abs(rgb2lab(result) - rgb2lab(image))[..., 0].max() <= 0.3


def test_the_batch_size_does_not_change_the_images(run: Path, photos: Path, tmp_path: Path) -> None:
    for size in (1, 3):
        colorize(run, tmp_path / f"out{size}", photos, "--batch-size", size)
    for name in files(tmp_path / "out1"):
        one, three = (read(tmp_path / f"out{size}" / name).astype(int) for size in (1, 3))
        assert np.abs(one - three).max() <= 1


def test_unreadable_images_are_reported_and_the_others_are_colorized(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (photos / "empty.png").touch()
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "itself.jpg").symlink_to(photos / "itself.jpg")
    assert colorize(run, tmp_path / "out", photos) == 1
    captured = capsys.readouterr()
    reported = [line for line in captured.err.splitlines() if line.startswith("not colorized: ")]
    names = ["broken.jpg", "empty.png", "gone.jpg", "itself.jpg"]
    assert [line.split(": ")[1] for line in reported] == [str(photos / name) for name in names]
    assert "3 of 7 inputs colorized" in captured.out
    assert files(tmp_path / "out") == ["cat.png", "deep/cup.of.coffee.png", "deep/er/old.png"]


def test_files_are_overwritten_only_with_force(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "cup.of.coffee.png").write_bytes(b"mine")
    with pytest.raises(
        UserError,
        match=r"deep/cup\.of\.coffee\.png exists, and it was not written by this command: .*"
        "--force or --skip-existing",
    ):
        colorize(run, out, photos)
    assert files(out) == ["deep/cup.of.coffee.png"], "rejected before any work"
    assert colorize(run, out, photos, "--skip-existing") == 0
    assert (out / "deep" / "cup.of.coffee.png").read_bytes() == b"mine"
    assert len(files(out)) == 3
    assert colorize(run, out, photos, "--force") == 0
    assert read(out / "deep" / "cup.of.coffee.png").shape == (90, 41, 3)


def test_equal_target_names_are_rejected_before_any_work(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "deep" / "cat.png").write_bytes((photos / "cat.png").read_bytes())
    with pytest.raises(
        UserError, match=r"cat\.png and .*deep/cat\.png would both be written to .*out/cat\.png"
    ):
        colorize(run, tmp_path / "out", photos / "cat.png", photos / "deep" / "cat.png")
    with pytest.raises(UserError, match="would be overwritten by the colorized version of"):
        colorize(run, photos / "deep" / "er", photos / "deep" / "er", "--force")
    assert not (tmp_path / "out").exists()


def test_earlier_results_are_not_used_as_inputs(run: Path, photos: Path) -> None:
    assert colorize(run, photos / "out", photos) == 0
    before = files(photos / "out")
    assert colorize(run, photos / "out", photos, "--force") == 0
    assert files(photos / "out") == before


@pytest.mark.parametrize("missing", ["nowhere.png", "empty"])
def test_missing_inputs_are_rejected_before_any_work(
    run: Path, photos: Path, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=missing):
        colorize(run, tmp_path / "out", photos, tmp_path / missing)
    assert not (tmp_path / "out").exists()


def test_a_sheet_shows_grayscale_next_to_colorized(run: Path, photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert colorize(run, tmp_path / "out", photos, "--sheet", sheet) == 0
    pixels = read(sheet).astype(int)
    assert pixels.shape == (18 + 3 * 196 + 4, 2 * 196 + 4, 3)
    grayscale, colorized = pixels[18:, 4:196], pixels[18:, 200:392]
    assert np.ptp(grayscale, axis=2).max() <= 1
    assert np.ptp(colorized, axis=2).mean() > 5
    with pytest.raises(UserError, match=r"sheet\.png exists"):
        colorize(run, tmp_path / "other", photos, "--sheet", sheet)


def test_a_large_image_is_recoloured_in_blocks(run: Path, tmp_path: Path) -> None:
    """An image of 2.5 megapixels, three blocks, keeps its size and lightness."""
    image = np.tile(photograph("coffee"), (2, 4, 1))
    Image.fromarray(image).save(tmp_path / "large.png")
    assert colorize(run, tmp_path / "out", tmp_path / "large.png") == 0
    result = read(tmp_path / "out" / "large.png")
    assert result.shape == image.shape
    difference = np.abs(rgb_to_lab(result)[0] - rgb_to_lab(image)[0])
    assert difference.max() <= 0.3


def test_several_networks_write_one_sheet(run: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tmp_path / "other", seed=1, settings=("test_dropout=false",))
    colortrain.load(tmp_path / "other").save(tmp_path / "exported")
    both, sheet = ["--run", tmp_path / "exported"], tmp_path / "sheet.jpg"
    assert colorize(run, tmp_path / "out", photos, *both, "--sheet", sheet) == 0
    names = ["cat.png", "deep/cup.of.coffee.png", "deep/er/old.png"]
    assert files(tmp_path / "out") == sorted(
        f"{folder}/{name}" for folder in ("exported", "run") for name in names
    )
    for folder, network in (("run", run), ("exported", tmp_path / "other")):
        alone = tmp_path / "alone" / folder
        assert colorize(network, alone, photos) == 0
        for name in names:
            assert np.array_equal(read(alone / name), read(tmp_path / "out" / folder / name))
    with Image.open(sheet) as image:
        assert (image.format, image.size) == ("JPEG", (3 * 196 + 4, 18 + 3 * 196 + 4))
    with pytest.raises(UserError, match=r"out/run/cat\.png exists \(and 5 more\)"):
        colorize(run, tmp_path / "out", photos, *both, "--dropout", "on")
    (tmp_path / "out" / "run" / "cat.png").unlink()
    assert colorize(run, tmp_path / "out", photos, *both, "--skip-existing") == 0
    assert (tmp_path / "out" / "run" / "cat.png").is_file()


def test_an_unknown_device_is_an_error(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device abacus"):
        colorize(run, tmp_path / "out", photos, "--device", "abacus")


def test_one_bad_file_never_stops_the_others(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of 255 bytes, a folder at a path to write, and a path that is too long."""
    image = (photos / "cat.png").read_bytes()
    long, other = "a" * 251, "\u00e4" * 125 + "a"
    for name in (f"{long}.png", f"{other}.jpg", "b.jpg", f"{'c' * 250}.jp2", f"{'c' * 250}.jpg"):
        (photos / name).write_bytes(image)
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    assert colorize(run, tmp_path / "out", photos, "--force") == 1
    captured = capsys.readouterr()
    reported = [line for line in captured.err.splitlines() if line.startswith("not colorized: ")]
    assert [Path(line.split(": ")[1]).name for line in reported] == [
        "b.jpg",
        f"{'c' * 250}.jp2",
        f"{'c' * 250}.jpg",
    ]
    assert "Is a directory" in reported[0]
    assert "File name too long" in reported[1]
    assert "5 of 8 inputs colorized" in captured.out
    for name in (f"{long}.png", f"{other}.png", "cat.png"):
        assert read(tmp_path / "out" / name).shape == photograph("chelsea").shape


def test_a_full_disk_ends_the_run_with_one_line_and_the_next_one_resumes(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.png")

    with monkeypatch.context() as patch:
        patch.setattr("launch.colorize.save_png", full)
        with pytest.raises(OSError, match="No space left"):
            colorize(run, tmp_path / "out", photos)
    assert files(tmp_path / "out") == []
    assert colorize(run, tmp_path / "out", photos) == 0
    assert len(files(tmp_path / "out")) == 3


def test_images_that_differ_in_their_extension_are_both_colorized(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    Image.fromarray(photograph("coffee")).save(photos / "cat.jpg")
    assert colorize(run, tmp_path / "out", photos) == 0
    assert read(tmp_path / "out" / "cat.png").shape == photograph("chelsea").shape
    assert read(tmp_path / "out" / "cat.jpg.png").shape == photograph("coffee").shape


def test_what_is_passed_over_and_what_is_only_a_part_is_said(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a.psd").write_bytes(b"8BPS")
    (photos / "@eaDir").mkdir()
    pages = [Image.fromarray(photograph("chelsea")[n : n + 20, :30]) for n in range(7)]
    pages[0].save(photos / "scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save(photos / "download", "WEBP")
    assert colorize(run, tmp_path / "out", photos) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-3:] == [
        f"{photos}: passed over by their extension: 3 (a.psd, download, notes.txt)",
        f"{photos}: hidden files, and folders of thumbnails, left out: 1 (@eaDir/)",
        f"{photos / 'scan.tif'}: first page of 7",
    ]
    assert colorize(run, tmp_path / "out", photos, "--by-content") == 0
    assert "download.png" in files(tmp_path / "out")


def test_date_and_resolution_are_kept_and_colours_are_tagged(run: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime], exif[ExifTags.Base.Orientation] = "2001:02:03 04:05:06", 6
    exif[ExifTags.Base.Artist] = "Jane"
    source = tmp_path / "phone.jpg"
    Image.fromarray(photograph("coffee")[:30, :40]).save(source, dpi=(300, 150), exif=exif)
    assert colorize(run, tmp_path / "out", source) == 0
    with Image.open(tmp_path / "out" / "phone.png") as image:
        assert image.size == (30, 40)
        assert dict(image.getexif()) == {ExifTags.Base.DateTime: "2001:02:03 04:05:06"}
        assert image.info["dpi"] == pytest.approx((150, 300), abs=0.1)
        assert image.info["srgb"] == 0


def test_a_killed_command_resumes_with_the_same_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dropout, whose masks must not depend on what was done before."""
    small_run(run := tmp_path / "run")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        crop = photograph("coffee")[number : number + 40, number : number + 60]
        Image.fromarray(crop).save(folder / f"{number:02d}.png")
    (folder / "00.jpg").write_bytes(b"not an image")
    sheet = tmp_path / "sheet.png"
    options = ["--run", run, "--out", tmp_path / "out", "--sheet", sheet, folder]
    code = (
        "import os, signal, sys, launch.colorize as command\n"
        "save, done = command.save_png, []\n"
        "def kill_at_fifth(*args, **options):\n"
        "    if len(done) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(*args, **options); done.append(1)\n"
        "command.save_png = kill_at_fifth\n"
        "command.main(sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", code, *map(str, options)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(files(tmp_path / "out")) == 5
    assert not sheet.exists()
    before = {name: (tmp_path / "out" / name).stat().st_ino for name in files(tmp_path / "out")}
    assert main([str(option) for option in options]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "5 of 13 inputs were done before"
    assert printed[-1].startswith("7 of 13 inputs colorized, 5 were done before, written to ")
    assert all((tmp_path / "out" / name).stat().st_ino == inode for name, inode in before.items())
    assert colorize(run, tmp_path / "whole", folder, "--sheet", tmp_path / "whole.png") == 1
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    for name in files(tmp_path / "out"):
        assert np.array_equal(read(tmp_path / "out" / name), read(tmp_path / "whole" / name))
    assert np.array_equal(read(sheet), read(tmp_path / "whole.png"))
    capsys.readouterr()
    assert main([str(option) for option in options]) == 1
    assert "0 of 13 inputs colorized, 12 were done before" in capsys.readouterr().out


def test_only_missing_files_are_written_when_some_networks_are_done(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    """A file that another program has changed is kept."""
    small_run(tmp_path / "other", seed=1, settings=("test_dropout=false",))
    both = ["--run", tmp_path / "other", photos / "cat.png"]
    assert colorize(run, tmp_path / "out", *both) == 0
    (tmp_path / "out" / "other" / "cat.png").write_bytes(b"retouched")
    (tmp_path / "out" / "run" / "cat.png").unlink()
    assert colorize(run, tmp_path / "out", *both) == 0
    assert (tmp_path / "out" / "other" / "cat.png").read_bytes() == b"retouched"
    assert read(tmp_path / "out" / "run" / "cat.png").shape == photograph("chelsea").shape


def test_the_results_may_be_next_to_their_sources(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command does not take its own results for sources."""
    for path in (photos / "cat.png", photos / "deep" / "er" / "old.png"):
        path.rename(path.with_suffix(".tif"))
    for _ in range(2):
        assert colorize(run, photos, photos) == 0
    assert "0 of 3 inputs colorized, 3 were done before" in capsys.readouterr().out

"""The door that colours: full resolution, true lightness, names, and nothing overwritten or half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import colortrain
from colortrain.lab import lab_to_rgb
from colortrain.metrics.evaluate import generate
from colortrain.runs.checkpoint import load_generator
from launch.colorize import main
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
def album(tmp_path: Path) -> Path:
    """Three pictures of different shapes and modes in a tree, and a text file."""
    folder = tmp_path / "album"
    (folder / "deep" / "er").mkdir(parents=True)
    Image.fromarray(photograph("chelsea")).save(folder / "cat.png")
    Image.fromarray(photograph("coffee")[:90, :41]).save(
        folder / "deep" / "cup.of.coffee.JPG", quality=95
    )
    Image.fromarray(photograph("rocket")[::4, ::4]).convert("L").save(
        folder / "deep" / "er" / "old.png"
    )
    (folder / "notes.txt").write_text("no picture")
    return folder


def colour(run: Path, out: Path, *words: object) -> int:
    return main(["--run", str(run), "--out", str(out), *map(str, words)])


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_a_folder_keeps_its_structure_and_sizes(run: Path, album: Path, tmp_path: Path) -> None:
    assert colour(run, tmp_path / "out", album) == 0
    assert files(tmp_path / "out") == ["cat.png", "deep/cup.of.coffee.png", "deep/er/old.png"]
    assert read(tmp_path / "out" / "cat.png").shape == photograph("chelsea").shape
    assert read(tmp_path / "out" / "deep" / "cup.of.coffee.png").shape == (90, 41, 3)


def test_full_resolution_lightness_is_joined_with_generated_colours(
    run: Path, album: Path, tmp_path: Path
) -> None:
    """Against an independent way: torch's antialiased squash, torch's up-sampling, torch's Lab to RGB."""
    assert colour(run, tmp_path / "out", album / "cat.png") == 0
    found = read(tmp_path / "out" / "cat.png")
    picture = photograph("chelsea")
    generator, recipe, _ = load_generator(run)
    rgb = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    squashed = (
        F.interpolate(rgb, (32, 32), mode="bicubic", antialias=True).round().clamp(0, 255).byte()[0]
    )
    lab = torch.from_numpy(rgb_to_lab(squashed.permute(1, 2, 0).numpy()))[None]
    ab = generate(generator, recipe.codec, lab)[:, 1:]
    assert ab.abs().mean() > 3, "a generator that colours nothing would test nothing"
    up = F.interpolate(ab, picture.shape[:2], mode="bicubic", antialias=True)
    true = torch.from_numpy(rgb_to_lab(picture))[None, :1]
    expected = lab_to_rgb(torch.cat([true, up], dim=1))[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(found - expected)
    assert difference.mean() < 0.7
    assert np.quantile(difference, 0.999) < 4


def test_batches_do_not_change_the_pictures(run: Path, album: Path, tmp_path: Path) -> None:
    for size in (1, 3):
        colour(run, tmp_path / f"out{size}", album, "--batch-size", size)
    for name in files(tmp_path / "out1"):
        one, three = (read(tmp_path / f"out{size}" / name).astype(int) for size in (1, 3))
        assert np.abs(one - three).max() <= 1


def test_unreadable_pictures_are_listed_and_the_rest_is_done(
    run: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (album / "empty.png").touch()
    (album / "gone.jpg").symlink_to(album / "nowhere.jpg")
    (album / "itself.jpg").symlink_to(album / "itself.jpg")
    assert colour(run, tmp_path / "out", album) == 1
    captured = capsys.readouterr()
    listed = [line for line in captured.err.splitlines() if line.startswith("not coloured: ")]
    names = ["broken.jpg", "empty.png", "gone.jpg", "itself.jpg"]
    assert [line.split(": ")[1] for line in listed] == [str(album / name) for name in names]
    assert "3 of 7 pictures" in captured.out
    assert files(tmp_path / "out") == ["cat.png", "deep/cup.of.coffee.png", "deep/er/old.png"]


def test_nothing_is_overwritten_unless_told(run: Path, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "cup.of.coffee.png").write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"deep/cup\.of\.coffee\.png exists: .*--force or --skip-existing"
    ):
        colour(run, out, album)
    assert files(out) == ["deep/cup.of.coffee.png"], "refused before any work"
    assert colour(run, out, album, "--skip-existing") == 0
    assert (out / "deep" / "cup.of.coffee.png").read_bytes() == b"mine"
    assert len(files(out)) == 3
    assert colour(run, out, album, "--force") == 0
    assert read(out / "deep" / "cup.of.coffee.png").shape == (90, 41, 3)


def test_names_that_clash_are_refused_up_front(run: Path, album: Path, tmp_path: Path) -> None:
    Image.fromarray(photograph("coffee")).save(album / "cat.jpg")
    with pytest.raises(
        UserError, match=r"cat\.jpg and .*cat\.png would both become .*out/cat\.png"
    ):
        colour(run, tmp_path / "out", album)
    with pytest.raises(UserError, match="would be overwritten by its coloured version"):
        colour(run, album / "deep" / "er", album / "deep" / "er", "--force")
    assert not (tmp_path / "out").exists()


def test_pictures_coloured_before_are_not_taken_as_inputs(run: Path, album: Path) -> None:
    assert colour(run, album / "out", album) == 0
    before = files(album / "out")
    assert colour(run, album / "out", album, "--force") == 0
    assert files(album / "out") == before


@pytest.mark.parametrize("missing", ["nowhere.png", "empty"])
def test_missing_inputs_are_refused_up_front(
    run: Path, album: Path, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=missing):
        colour(run, tmp_path / "out", album, tmp_path / missing)
    assert not (tmp_path / "out").exists()


def test_a_sheet_shows_grey_beside_coloured(run: Path, album: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert colour(run, tmp_path / "out", album, "--sheet", sheet) == 0
    pixels = read(sheet).astype(int)
    assert pixels.shape == (18 + 3 * 196 + 4, 2 * 196 + 4, 3)
    grey, coloured = pixels[18:, 4:196], pixels[18:, 200:392]
    assert np.ptp(grey, axis=2).max() <= 1
    assert np.ptp(coloured, axis=2).mean() > 5
    with pytest.raises(UserError, match=r"sheet\.png exists"):
        colour(run, tmp_path / "other", album, "--sheet", sheet)


def test_a_large_picture_is_coloured_in_blocks(run: Path, tmp_path: Path) -> None:
    """2.5 megapixels: three blocks; the sizes and lightness of every row hold."""
    picture = np.tile(photograph("coffee"), (2, 4, 1))
    Image.fromarray(picture).save(tmp_path / "large.png")
    assert colour(run, tmp_path / "out", tmp_path / "large.png") == 0
    found = read(tmp_path / "out" / "large.png")
    assert found.shape == picture.shape
    difference = np.abs(rgb_to_lab(found)[0] - rgb_to_lab(picture)[0])
    assert (
        np.median(difference, axis=1).max() < 1
    )  # clipped colours lose lightness, most pixels do not


def test_several_networks_at_once_share_a_sheet(run: Path, album: Path, tmp_path: Path) -> None:
    small_run(tmp_path / "other", seed=1, settings=("test_dropout=false",))
    colortrain.load(tmp_path / "other").save(tmp_path / "exported")
    both, sheet = ["--run", tmp_path / "exported"], tmp_path / "sheet.jpg"
    assert colour(run, tmp_path / "out", album, *both, "--sheet", sheet) == 0
    names = ["cat.png", "deep/cup.of.coffee.png", "deep/er/old.png"]
    assert files(tmp_path / "out") == sorted(
        f"{folder}/{name}" for folder in ("exported", "run") for name in names
    )
    for folder, network in (("run", run), ("exported", tmp_path / "other")):
        alone = tmp_path / "alone" / folder
        assert colour(network, alone, album) == 0
        for name in names:
            assert np.array_equal(read(alone / name), read(tmp_path / "out" / folder / name))
    with Image.open(sheet) as drawn:
        assert (drawn.format, drawn.size) == ("JPEG", (3 * 196 + 4, 18 + 3 * 196 + 4))
    with pytest.raises(UserError, match=r"out/exported/cat\.png exists \(and 6 more\)"):
        colour(run, tmp_path / "out", album, *both, "--sheet", sheet)
    (tmp_path / "out" / "run" / "cat.png").unlink()
    assert colour(run, tmp_path / "out", album, *both, "--skip-existing") == 0
    assert (tmp_path / "out" / "run" / "cat.png").is_file()


def test_a_device_that_is_not_there_is_one_line(run: Path, album: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device abacus"):
        colour(run, tmp_path / "out", album, "--device", "abacus")

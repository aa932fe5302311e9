"""Tests of info: the table has exact counts, and the sheet shows the samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.color import lab_to_rgb, unpack
from shards.errors import UserError
from shards.format.manifest import load_manifest
from shards.format.tar_layout import read_pixels
from shards.inspect.info import describe, save_sheet
from tests.support.small_shard_set import small_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_set(tmp_path / "set", size=16, count=12, splits=("train", "val"))


def test_table_has_a_row_per_split(root: Path) -> None:
    manifest = load_manifest(root)
    lines = describe(root, manifest).splitlines()
    assert lines[0] == f"{root}: dataset {manifest.dataset_id}"
    assert lines[1:3] == ["samples of 16 x 16 pixels, uint8 Lab, fit crop", "images left out: none"]
    rows = [line.split() for line in lines[4:]]
    assert rows == [
        ["split", "shards", "samples", "bytes"],
        ["train", "2", "6", "20,480"],
        ["val", "2", "6", "20,480"],
    ]


def test_sheet_shows_the_first_samples_in_rows_of_eight(root: Path, tmp_path: Path) -> None:
    manifest = load_manifest(root)
    save_sheet(root, manifest, tmp_path / "sheet.png", count=10)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 20 - 4, 8 * 20 - 4, 3)
    pixels = read_pixels(root / manifest.splits["train"][0].path, 5, 16, "uint8")
    for index, (stored,) in enumerate(pixels):
        tile = sheet[:16, 20 * index : 20 * index + 16]
        assert np.array_equal(tile, lab_to_rgb(unpack(np.asarray(stored))))
    assert (sheet[20:, 2 * 20 :] == 255).all()  # only two tiles in the second row


def test_sheet_without_samples_raises(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--count 0: must be at least 1"):
        save_sheet(root, load_manifest(root), tmp_path / "sheet.png", count=0)
    empty = replace(load_manifest(root), splits={"train": ()})
    with pytest.raises(UserError, match="has no samples to show"):
        save_sheet(root, empty, tmp_path / "sheet.png", count=1)
    assert not (tmp_path / "sheet.png").exists()

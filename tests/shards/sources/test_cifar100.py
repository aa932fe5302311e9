"""Tests of cifar100: both layouts give the pixels that their files contain."""

from pathlib import Path

import numpy as np
import pytest

from shards.errors import UserError
from shards.sources.listing import open_sources, read_bytes
from tests.support import dataset_layouts
from tests.support.dataset_layouts import cifar_pixels
from tests.support.photographs import fingerprint, make_folder, pack_folder

ELSEWHERE = Path("/nonexistent")


def parts() -> dict[str, np.ndarray]:
    return {"train": cifar_pixels(16)[:12], "test": cifar_pixels(16)[12:]}


def make_binary(folder: Path) -> Path:
    return dataset_layouts.make_cifar100_binary(folder, parts())


def make_python(folder: Path) -> Path:
    return dataset_layouts.make_cifar100_python(folder, parts())


@pytest.mark.parametrize("make", [make_binary, make_python])
def test_images_have_the_pixels_of_the_file(tmp_path: Path, make: type) -> None:
    listing = open_sources(str(make(tmp_path / "cifar")), ELSEWHERE)
    found = [read_bytes(each, 1 << 20) for each in listing.sources if each.split == "train"]
    assert found == [row.tobytes() for row in cifar_pixels(16)[:12]]
    assert [each.split for each in listing.sources] == ["test"] * 4 + ["train"] * 12


def test_both_layouts_give_the_same_shards(tmp_path: Path) -> None:
    # The folders into which the official archives unpack.
    make_binary(tmp_path / "binary" / "cifar-100-binary")
    make_python(tmp_path / "python" / "cifar-100-python")
    tars = []
    for name in ("binary", "python"):
        pack_folder(tmp_path / name, tmp_path / f"{name}-shards", splits="source")
        files = fingerprint(tmp_path / f"{name}-shards")
        tars.append({file: hash for file, hash in files.items() if file.endswith("tar")})
    assert tars[0] == tars[1]
    assert {Path(file).parts[0] for file in tars[0]} == {"train", "test"}


def test_one_batch_is_a_source(tmp_path: Path) -> None:
    listing = open_sources(str(make_binary(tmp_path / "x") / "test.bin"), ELSEWHERE)
    assert len(listing.sources) == 4
    make_python(tmp_path / "y")
    assert len(open_sources(str(tmp_path / "y" / "t*"), ELSEWHERE).sources) == 16


def test_batch_that_is_cut_short_is_rejected(tmp_path: Path) -> None:
    path = make_binary(tmp_path / "cifar") / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="36887 bytes, which is not a multiple of 3074"):
        open_sources(str(tmp_path / "cifar"), ELSEWHERE)


def test_folders_and_files_of_photographs_are_no_batches(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "train", 3)
    (tmp_path / "a" / "meta").write_text("")
    make_folder(tmp_path / "b", 3)
    (tmp_path / "b" / "test").write_text("")
    for name in ("a", "b"):
        assert len(open_sources(str(tmp_path / name), ELSEWHERE).sources) == 3

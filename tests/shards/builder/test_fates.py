"""Tests of fates: numbers of images in the shards are exact, whatever is left out."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from shards.builder.build import BuildOptions, build_part
from shards.builder.merge import merge
from shards.builder.parts import Part
from shards.builder.plan import Parameters
from shards.errors import UserError
from shards.format.manifest import load_manifest
from shards.inspect.verify import verify
from tests.support.photographs import encode, fingerprint, pack_folder, random_crops

# 60 images, of which 6 are broken, 6 grey and 6 are copies of others.
BROKEN, GREY, COPIES = range(0, 60, 10), range(1, 60, 10), range(2, 60, 10)
OPTIONS: dict[str, Any] = {
    "size": 16,
    "splits": "train=20,val=10",
    "spare": 1.0,
    "drop_grey": True,
    "shard_size": 7,
}


def name_of(number: int) -> str:
    return f"{number:02d}.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    crops = list(random_crops(60, 24))
    for number, crop in enumerate(crops):
        if number in BROKEN:
            data = b"broken"
        elif number in GREY:
            data = encode(crop.mean(-1).astype("uint8"))
        else:
            data = encode(crops[number + 1 + (number in COPIES)] if number in COPIES else crop)
        (folder / name_of(number)).write_bytes(data)
    # Each copy is equal to the image with the next but one number.
    assert (folder / "02.png").read_bytes() == (folder / "04.png").read_bytes()
    return folder


def ranked(seed: int, numbers: list[int]) -> list[int]:
    """Return numbers of images in the documented order of choice."""
    return sorted(
        numbers, key=lambda n: hashlib.sha256(f"{seed}\0{name_of(n)}".encode()).digest()[:8]
    )


def packed(root: Path) -> dict[str, list[int]]:
    """Return the numbers of the images that the record files give for each split."""
    found: dict[str, list[int]] = {}
    for path in sorted((root / "sources").iterdir()):
        for entry in map(json.loads, path.read_text().splitlines()[1:]):
            if "reason" not in entry:
                found.setdefault(entry["split"], []).append(int(entry["source"][:2]))
    return found


def sizes(root: Path) -> dict[str, int]:
    manifest = load_manifest(root)
    return {split: manifest.samples(split) for split in manifest.splits}


def check_choice(root: Path, seed: int) -> None:
    """Check the splits against the documented rule, with one of two equal images."""
    found = packed(root)
    chosen = found["train"] + found["val"]
    original = {number: number + 2 for number in COPIES}
    distinct = [original.get(number, number) for number in chosen]
    assert len(set(distinct)) == 30
    assert not set(chosen) & {*BROKEN, *GREY}
    # The build keeps either of two equal images. The others are chosen in order.
    dropped = {copy if copy not in chosen else first for copy, first in original.items()}
    usable = [n for n in range(60) if n not in {*BROKEN, *GREY} | dropped]
    order = ranked(seed, usable)
    assert set(order[:20]) == set(found["train"])
    assert set(order[20:30]) == set(found["val"])


@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_exact_although_images_are_left_out(
    photos: Path, tmp_path: Path, seed: int
) -> None:
    result = pack_folder(photos, tmp_path / "out", **OPTIONS, seed=seed)
    assert sizes(tmp_path / "out") == {"train": 20, "val": 10}
    assert result.num_packed == 30
    assert result.num_sources == 60
    assert sum(result.manifest.left_out.values()) == 30
    assert result.failures.keys() == {"unreadable", "grey", "duplicate"}
    check_choice(tmp_path / "out", seed)
    verify(tmp_path / "out", quiet=True)
    listed = (tmp_path / "out" / "left_out.tsv").read_text().splitlines()
    assert len(listed) == sum(result.failures.values())
    before = fingerprint(tmp_path / "out")
    pack_folder(photos, tmp_path / "out", **OPTIONS, seed=seed, workers=2)  # checks and resumes
    assert fingerprint(tmp_path / "out") == before


def test_parts_give_the_bytes_of_a_single_build(photos: Path, tmp_path: Path) -> None:
    pack_folder(photos, tmp_path / "plain", **OPTIONS)
    folders = [tmp_path / f"part{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        options = BuildOptions(out=folder, quiet=True)
        build_part(str(photos), Parameters(**OPTIONS), Part(number, 3), options)
    merge(folders, BuildOptions(out=tmp_path / "merged", quiet=True))
    assert fingerprint(tmp_path / "merged") == fingerprint(tmp_path / "plain")


def test_repaired_image_takes_its_place_again(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    pack_folder(folder, tmp_path / "out", **OPTIONS)
    for number, crop in zip(BROKEN, random_crops(6, 20), strict=True):
        (folder / name_of(number)).write_bytes(encode(crop))
    pack_folder(folder, tmp_path / "out", **OPTIONS)
    pack_folder(folder, tmp_path / "new", **OPTIONS)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "new")
    assert sizes(tmp_path / "out") == {"train": 20, "val": 10}
    assert {*packed(tmp_path / "out")["train"], *packed(tmp_path / "out")["val"]} & {*BROKEN}


def test_image_that_was_dropped_is_packed_again_when_it_is_needed(
    photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    pack_folder(folder, tmp_path / "out", **OPTIONS)
    lost = packed(tmp_path / "out")["train"][0]
    (folder / name_of(lost)).write_bytes(b"broken")
    for path in (tmp_path / "out" / "sources").iterdir():
        if f'"{name_of(lost)}"' in path.read_text():
            path.unlink()
    pack_folder(folder, tmp_path / "out", **OPTIONS)
    pack_folder(folder, tmp_path / "new", **OPTIONS)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "new")
    assert sizes(tmp_path / "out") == {"train": 20, "val": 10}


def test_too_few_spare_images_are_one_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"could be packed for train, val, which need 30: .*--spare"
    ):
        pack_folder(photos, tmp_path / "out", **{**OPTIONS, "spare": 0.0})
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_rest_gets_every_other_image(photos: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "splits": "train=rest,val=10"}
    result = pack_folder(photos, tmp_path / "out", **options)
    assert sizes(tmp_path / "out") == {"train": 60 - 18 - 10, "val": 10}
    assert not result.unused
    assert result.failures == {"duplicate": 6, "grey": 6, "unreadable": 6}

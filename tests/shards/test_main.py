"""Tests of the command line: output, exit status, and one-line errors."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.errors import run_command
from shards.format.manifest import load_manifest
from tests.support.photographs import encode, fingerprint, make_folder, photograph, random_crops


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos"), 12)


def run(*argv: object) -> int:
    return run_command("shards", main, [str(each) for each in argv])


def test_build_verify_info_statistics(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build = ("build", photos, out, "--size", 32, "--workers", 1, "--splits", "train=.5,val=.5")
    assert run(*build) == 0
    assert "12 of 12 images" in capsys.readouterr().out
    assert run("verify", out, "--workers", 1) == 0
    assert "all 12 samples are intact" in capsys.readouterr().out
    assert run("info", out, "--sheet", tmp_path / "sheet.png", "--count", 10) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[-2:]] == ["train", "val"]
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (8 * 36 - 4, 2 * 36 - 4)
    assert np.asarray(sheet).std() > 20
    assert run("statistics", out, "--workers", 1) == 0
    document = json.loads((out / "statistics.json").read_text())
    assert set(document["splits"]) == {"train", "val"}
    assert run(*build) == 0  # also with statistics.json in it


def test_exit_status_is_1_if_images_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "photos", 3)
    (folder / "bad.jpg").write_bytes(b"x")
    assert run("build", folder, tmp_path / "out", "--size", 32, "--workers", 1) == 1
    assert (
        f"left out: 1 unreadable; each is listed in {tmp_path / 'out' / 'left_out.tsv'}"
        in capsys.readouterr().out
    )
    assert run("build", folder, tmp_path / "strict", "--size", 32, "--workers", 1, "--strict") == 2


def tree(folder: Path, **counts: int) -> Path:
    """Write small photographs into folders, for example train=5, val=2."""
    crops = random_crops(sum(counts.values()), 24)
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        for number in range(count):
            (folder / split / f"{number:02d}.png").write_bytes(encode(next(crops)))
    return folder


def sizes(out: Path) -> dict[str, int]:
    manifest = load_manifest(out)
    return {split: manifest.samples(split) for split in manifest.splits}


def test_renamed_splits_with_numbers_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = tree(tmp_path / "coco", train2014=30, val2014=12)
    build = ["build", coco, tmp_path / "out", "--size", 16, "--workers", 1, "--splits", "source"]
    build += ["--rename", "train2014=train,val2014=val", "--take", "train=20,val=5"]
    assert run(*build) == 0  # images that are not chosen are not left out
    assert sizes(tmp_path / "out") == {"train": 20, "val": 5}
    text = capsys.readouterr().out
    assert "25 of 42 images" in text
    assert "not in any split: 17 not chosen" in text
    assert not (tmp_path / "out" / "left_out.tsv").exists()
    assert run("verify", tmp_path / "out", "--workers", 1) == 0
    assert run("info", tmp_path / "out") == 0
    assert "17 not chosen" in capsys.readouterr().out
    assert run(*build, "--strict") == 0
    capsys.readouterr()
    for change in (["--seed", "1"], ["--take", "train=20,val=4"], ["--spare", "0.5"]):
        assert run(*build, *change) == 2
        assert f"holds another build ({change[0][2:]} was" in capsys.readouterr().err


def test_lists_of_places365_give_their_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = tree(tmp_path / "places", data_256=12, val_256=6)
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("".join(f"/{number:02d}.png {number}\n" for number in range(10)))
    val.write_text("".join(f"{number:02d}.png 165\n" for number in range(4)))
    build = ["build", places, "{}", "--size", 16, "--workers", 1, "--splits"]
    build += [f"train={train}:data_256,val={val}:val_256"]
    assert run(*(str(each).format(tmp_path / "out") for each in build)) == 0
    assert sizes(tmp_path / "out") == {"train": 10, "val": 4}
    assert "not in any split: 4 in no list" in capsys.readouterr().out
    # Parts by a copy of the lists in another folder, with numbers of images.
    copies = shutil.copytree(tmp_path, tmp_path / "copies", ignore=lambda *_: ["out", "places"])
    for out, folder in (("plain", tmp_path), ("parts", copies), ("parts", tmp_path)):
        lists = f"train={folder}/train.txt:data_256,val={folder}/val.txt:val_256"
        part = ["--part", f"{1 + (folder == copies)}/2"] if out == "parts" else []
        argv = [*build[:2], tmp_path / out, *build[3:-1], lists, "--take", "train=5", *part]
        assert run(*argv) == 0
    assert run("merge", tmp_path / "parts", "--workers", 1) == 0
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "plain")
    assert sizes(tmp_path / "parts") == {"train": 5, "val": 4}
    capsys.readouterr()
    val.write_text("05.png 165\n")
    assert run(*(str(each).format(tmp_path / "out") for each in build)) == 2
    assert "its source files are different, or its lists" in capsys.readouterr().err


def test_validation_carved_from_training_images_of_cifar10(tmp_path: Path) -> None:
    folder, random = tmp_path / "cifar", np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("data_batch_1.bin", 20), ("test_batch.bin", 6)):
        random.integers(0, 256, (count, 3073), np.uint8).tofile(folder / name)
    build = ["build", folder, tmp_path / "out", "--size", 32, "--workers", 1]
    assert run(*build, "--splits", "source", "--carve", "val=train:0.1") == 0
    assert sizes(tmp_path / "out") == {"test": 6, "train": 18, "val": 2}
    held_out = [
        json.loads(line)["source"]
        for path in (tmp_path / "out" / "sources").iterdir()
        for line in path.read_text().splitlines()[1:]
        if json.loads(line)["split"] == "test"
    ]
    assert len(held_out) == 6
    assert all(name.startswith("test_batch") for name in held_out)


USER_ERRORS = [
    (["build", "{missing}", "{out}", "--size", "32"], "no such source"),
    (["build", "{missing}/*.tar", "{out}", "--size", "32"], "no such source"),
    (["build", "{empty}", "{out}", "--size", "32"], "no images in"),
    (["build", "{photos}", "{photos}", "--size", "32"], "is not empty and holds no shard set"),
    (["build", "{photos}", "{file}", "--size", "32"], "is a file"),
    (["build", "{photos}", "{file}/out", "--size", "32"], "Not a directory at"),
    (["build", "{photos}", "/proc/out", "--size", "32"], "No such file or directory at /proc/out"),
    (["build", "{photos}", "{out}"], "the following arguments are required: --size"),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--fit", "stretch"],
        "invalid choice: 'stretch'",
    ),
    (["pack", "{photos}"], "invalid choice: 'pack'"),
    (["build", "{photos}", "{out}", "--size", "0"], "--size 0: give a number of pixels"),
    (["build", "{photos}", "{out}", "--size", "32", "--splits", "train=.9"], "add up to 0.9"),
    (
        ["build", "{photos}/class0", "{out}", "--size", "32", "--splits", "source"],
        "is not in a subfolder: move it",
    ),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--splits", "train={missing}.txt"],
        "no list",
    ),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--splits", "train=/dev/null"],
        "no list",
    ),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--splits", "source", "--take", "train=5"],
        "unknown split 'train'; valid, nearest first: class",
    ),
    (["build", "{photos}", "{out}", "--size", "32", "--splits", "a=9,b=9"], "need at least 18"),
    (["build", "{photos}", "{out}", "--size", "32", "--workers", "0"], "--workers 0"),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--part", "3/2"],
        "--part 3/2: give I/N with I from 1 to N",
    ),
    (["build", "{photos}", "{out}", "--size", "32", "--part", ""], "--part : give I/N"),
    (["merge", "{missing}"], "has no build.json"),
    (["merge", "{out}", "{photos}"], "has no build.json"),
    (["verify", "{missing}"], "no folder"),
    (["verify", "{empty}"], "has no manifest.json"),
    (["info", "{photos}"], "has no manifest.json"),
    (["statistics", "{file}"], "no folder"),
]


@pytest.mark.parametrize(("argv", "message"), USER_ERRORS)
def test_user_errors_print_one_line_and_leave_no_files(
    photos: Path, tmp_path: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    paths = {name: tmp_path / name for name in ("missing", "empty", "file", "out")}
    before = sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))
    assert run(*(each.format(photos=photos, **paths) for each in argv)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("colortrain shards: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert (sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))) == before


@pytest.mark.parametrize("length", [0, 512, 10_239])
def test_truncated_shard_gives_a_one_line_error_in_every_command(
    photos: Path, tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("build", photos, out, "--size", 32, "--workers", 1) == 0
    os.truncate(out / "000003.tar", length)
    for argv in (
        ["statistics", out, "--workers", 1],
        ["info", out, "--sheet", tmp_path / "sheet.png"],
    ):
        capsys.readouterr()
        assert run(*argv) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(
            f"colortrain shards: error: {out}/000003.tar has {length} bytes "
            "instead of 10240: restore it"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_unwritable_out_gives_a_one_line_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    assert run("build", photos, tmp_path / "out", "--size", 32) == 2
    assert "Permission denied at" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["build", "merge", "verify", "info", "statistics"])
def test_help_ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.strip().startswith(f"colortrain shards {command}")


def test_out_inside_source_builds_and_resumes(photos: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 6)
    (folder / "one.png").write_bytes(_png())
    for _ in range(2):
        argv = ("build", folder, folder / "out", "--size", 32, "--workers", 1)
        assert run(*argv) == 0
        (folder / "out" / "sheet.png").write_bytes(_png())


def _png() -> bytes:
    return encode(photograph()[:64, :64])

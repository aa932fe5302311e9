"""The doors as a user knocks on them: output, exit status, and one line for every mistake."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.errors import run_command
from tests.support.photographs import make_folder, photograph


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos"), 12)


def knock(*argv: object) -> int:
    return run_command("shards", main, [str(each) for each in argv])


def test_build_verify_info_statistics(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build = ("build", photos, out, "--size", 32, "--workers", 1, "--splits", "train=.5,val=.5")
    assert knock(*build) == 0
    assert "12 of 12 images" in capsys.readouterr().out
    assert knock("verify", out, "--workers", 1) == 0
    assert "all 12 samples are whole" in capsys.readouterr().out
    assert knock("info", out, "--sheet", tmp_path / "sheet.png", "--count", 10) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[-2:]] == ["train", "val"]
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (8 * 36 - 4, 2 * 36 - 4)
    assert np.asarray(sheet).std() > 20
    assert knock("statistics", out, "--workers", 1) == 0
    document = json.loads((out / "statistics.json").read_text())
    assert set(document["splits"]) == {"train", "val"}
    assert knock(*build) == 0  # a finished set, statistics and all, is its own build's


def test_exit_status_tells_that_something_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "photos", 3)
    (folder / "bad.jpg").write_bytes(b"x")
    assert knock("build", folder, tmp_path / "out", "--size", 32, "--workers", 1) == 1
    assert (
        f"left out: 1 unreadable; each is listed in {tmp_path / 'out' / 'left_out.tsv'}"
        in capsys.readouterr().out
    )
    assert (
        knock("build", folder, tmp_path / "strict", "--size", 32, "--workers", 1, "--strict") == 2
    )


MISTAKES = [
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
        "lies in no first folder",
    ),
    (["build", "{photos}", "{out}", "--size", "32", "--workers", "0"], "--workers 0"),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--part", "3/2"],
        "--part 3/2: write I/N with I from 1 to N",
    ),
    (["build", "{photos}", "{out}", "--size", "32", "--part", ""], "--part : write I/N"),
    (["merge", "{missing}"], "has no build.json"),
    (["merge", "{out}", "{photos}"], "has no build.json"),
    (["verify", "{missing}"], "no folder"),
    (["verify", "{empty}"], "has no manifest.json"),
    (["info", "{photos}"], "has no manifest.json"),
    (["statistics", "{file}"], "no folder"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES)
def test_mistakes_get_one_line_and_leave_nothing(
    photos: Path, tmp_path: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    places = {name: tmp_path / name for name in ("missing", "empty", "file", "out")}
    before = sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))
    assert knock(*(each.format(photos=photos, **places) for each in argv)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("colortrain shards: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert (sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))) == before


@pytest.mark.parametrize("length", [0, 512, 10_239])
def test_a_shard_cut_short_gets_one_line_from_every_reader(
    photos: Path, tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert knock("build", photos, out, "--size", 32, "--workers", 1) == 0
    os.truncate(out / "000003.tar", length)
    for argv in (
        ["statistics", out, "--workers", 1],
        ["info", out, "--sheet", tmp_path / "sheet.png"],
    ):
        capsys.readouterr()
        assert knock(*argv) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(
            f"colortrain shards: error: {out}/000003.tar has {length} bytes instead of 10240: restore it"
        )


def test_a_bug_is_told_apart_from_images_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("shards", lambda _: 1 // 0) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_out_gets_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    assert knock("build", photos, tmp_path / "out", "--size", 32) == 2
    assert "Permission denied at" in capsys.readouterr().err


@pytest.mark.parametrize("door", ["build", "merge", "verify", "info", "statistics"])
def test_help_ends_with_an_example(door: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([door, "--help"])
    assert caught.value.code == 0
    assert (
        capsys.readouterr()
        .out.rstrip()
        .splitlines()[-1]
        .strip()
        .startswith(f"python -m shards {door}")
    )


def test_out_inside_source_builds_and_goes_on(photos: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 6)
    (folder / "one.png").write_bytes(_png())
    for _ in range(2):
        argv = ("build", folder, folder / "out", "--size", 32, "--workers", 1)
        assert knock(*argv) == 0
        (folder / "out" / "sheet.png").write_bytes(_png())


def _png() -> bytes:
    from tests.support.photographs import encode

    return encode(photograph()[:64, :64])

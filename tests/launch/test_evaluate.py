"""The door that scores: the same file from one process and from two, and mistakes in one line."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from colortrain.metrics.evaluate import ScoringConfig, score_split
from colortrain.metrics.extractors import load_extractors
from colortrain.runs.checkpoint import load_generator
from launch.evaluate import main, write_json
from shards.errors import UserError
from shards.read.dataset import Split
from tests.support.processes import run_command
from tests.support.small_run import small_run
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN with steps 3 and 8, shards of 32 px with train and val."""
    folder = tmp_path_factory.mktemp("evaluate")
    small_run(folder / "run", 3, seed=0)
    small_run(folder / "run", 8, seed=1)
    small_set(folder / "shards", count=38, splits=("train", "val"))
    return folder


def evaluated(place: Path, out: Path, *words: str) -> dict[str, Any]:
    command = [
        "--run",
        str(place / "run"),
        "--shards",
        str(place / "shards"),
        "--json",
        str(out),
        *words,
    ]
    assert main(command) == 0
    document = json.loads(out.read_text())
    assert isinstance(document, dict)
    return document


def test_scores_are_those_of_the_newest_checkpoint_on_val(place: Path, tmp_path: Path) -> None:
    document = evaluated(place, tmp_path / "scores.json")
    generator, recipe, _ = load_generator(place / "run", step=8)
    split = Split(place / "shards", "val")
    expected = score_split(generator, recipe.codec, split, "cpu", ScoringConfig(dropout=True))
    assert (document["step"], document["recipe"], document["samples"]) == (8, "nampouri_unet", 19)
    assert document["protocol"]["dropout"] is recipe.test_dropout is True
    assert document["metrics"] == expected["metrics"]


def test_words_choose_checkpoint_split_limit_and_dropout(place: Path, tmp_path: Path) -> None:
    words = ["--checkpoint", "3", "--split", "train", "--limit", "5", "--dropout", "both"]
    document = evaluated(place, tmp_path / "scores.json", *words)
    generator, recipe, _ = load_generator(place / "run", step=3)
    split = Split(place / "shards", "train")
    configs = (
        ScoringConfig(dropout=dropout, limit=5, extractors=load_extractors())
        for dropout in (True, False)
    )
    on, off = (score_split(generator, recipe.codec, split, "cpu", each) for each in configs)
    assert document["samples"] == 5
    assert document["metrics"] == on["metrics"]
    assert document["other_dropout"] == off
    assert on["metrics"]["l1"]["generated"] != off["metrics"]["l1"]["generated"]


@pytest.mark.parametrize("setting", ["ema.half_life=100", "ema.share=0.1"])
def test_averaged_weights_are_preferred(setting: str, tmp_path: Path) -> None:
    small_run(tmp_path / "run", settings=(setting,))
    small_set(tmp_path / "shards", count=4)
    averaged, plain = (
        evaluated(tmp_path, tmp_path / "s.json", f"--{word}") for word in ("ema", "no-ema")
    )
    assert (averaged["ema"], plain["ema"]) == (True, False)
    assert averaged["metrics"]["l1"]["generated"] != plain["metrics"]["l1"]["generated"]
    assert averaged["metrics"]["l1"]["grey"] == plain["metrics"]["l1"]["grey"]


@pytest.mark.distributed
def test_two_processes_write_the_same_file_as_one(place: Path, tmp_path: Path) -> None:
    """19 samples in chunks of 3: the ranks get four and three chunks, the last chunk has one sample."""
    files = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        words = [
            "--run",
            place / "run",
            "--shards",
            place / "shards",
            "--json",
            out,
            "--batch-size",
            3,
            "--dropout",
            "both",
            "--vgg16",
            "random",
        ]
        done = run_command("launch.evaluate", words, processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("L1 of ab / 110") == 2, "rank 0 alone prints, one table a mode"
        files.append(out.read_text())
    assert files[0] == files[1]


def test_sizes_that_differ_are_named(place: Path, tmp_path: Path) -> None:
    small_set(tmp_path, size=48, count=4)
    with pytest.raises(
        UserError,
        match=r"holds 48 px samples, the run was trained at 32 px: build shards with --size 32",
    ):
        main(["--run", str(place / "run"), "--shards", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "tset"], "unknown split 'tset'; valid, nearest first: train, val"),
        (["--checkpoint", "4"], "no intact checkpoint of step 4"),
        (["--limit", "0"], "at least 1"),
        (["--dropout", "maybe"], "--dropout"),
        (["--json", "."], "--json . is a folder"),
        (
            ["--json", "/dev/null/new/scores.json"],
            "--json /dev/null/new/scores.json: /dev/null is no folder",
        ),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    place: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    out = tmp_path / "scores.json"
    with pytest.raises(UserError, match=message):
        main(
            [
                "--run",
                str(place / "run"),
                "--shards",
                str(place / "shards"),
                "--json",
                str(out),
                *words,
            ]
        )
    assert not out.exists()


def test_a_folder_that_may_not_be_written_to_is_named_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.evaluate.score", lambda *_: pytest.fail("scored"))
    monkeypatch.setattr(
        "os.access", lambda path, mode: Path(path) != tmp_path
    )  # root may write anywhere
    with pytest.raises(UserError, match=f"{tmp_path} is no folder that you may write to"):
        evaluated(place, tmp_path / "new" / "scores.json")


def test_scores_are_shown_even_if_they_cannot_be_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("launch.evaluate.write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        evaluated(place, tmp_path / "scores.json")
    shown = capsys.readouterr().out
    assert "L1 of ab / 110" in shown
    assert "written to" not in shown


def test_an_explicit_split_is_never_replaced_by_the_only_one(place: Path, tmp_path: Path) -> None:
    small_set(tmp_path, count=4)
    with pytest.raises(UserError, match="unknown split 'test'; valid, nearest first: all"):
        main(["--run", str(place / "run"), "--shards", str(tmp_path), "--split", "test"])


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json({"metrics": {"l1": {"generated": float("nan"), "grey": 0.1}}}, tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "metrics": {"l1": {"generated": None, "grey": 0.1}}
    }

"""The `colortrain evaluate` command: scores, options, several processes and errors."""

from __future__ import annotations

import errno
import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from colortrain.metrics.evaluate import ScoringConfig, score_split
from colortrain.metrics.extractors import load_extractors
from colortrain.runs.checkpoint import load_generator
from launch.evaluate import load_on_rank_0, main, make_parser, write_json
from shards.errors import UserError
from shards.format.manifest import Manifest, save_manifest
from shards.read.dataset import Split
from tests.support.processes import run_command
from tests.support.small_run import small_run
from tests.support.small_shard_set import small_set, write_tar


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 3 and 8, and shards of 32 px, train and val."""
    folder = tmp_path_factory.mktemp("evaluate")
    small_run(folder / "run", 3, seed=0)
    small_run(folder / "run", 8, seed=1)
    small_set(folder / "shards", count=38, splits=("train", "val"))
    return folder


def arguments(folder: Path, *options: str) -> list[str]:
    return ["--run", str(folder / "run"), "--shards", str(folder / "shards"), *options]


def evaluated(folder: Path, out: Path, *options: str) -> dict[str, Any]:
    assert main(arguments(folder, "--json", str(out), *options)) == 0
    document = json.loads(out.read_text())
    assert isinstance(document, dict)
    return document


def test_scores_are_those_of_the_newest_checkpoint_on_val(folder: Path, tmp_path: Path) -> None:
    document = evaluated(folder, tmp_path / "scores.json")
    generator, recipe, _ = load_generator(folder / "run", step=8)
    split = Split(folder / "shards", "val")
    expected = score_split(generator, recipe.codec, split, "cpu", ScoringConfig(dropout=True))
    assert (document["step"], document["recipe"], document["samples"]) == (8, "nampouri_unet", 19)
    assert document["protocol"]["dropout"] is recipe.test_dropout is True
    assert document["metrics"] == expected["metrics"]


def test_options_select_checkpoint_split_limit_and_dropout(folder: Path, tmp_path: Path) -> None:
    options = ["--checkpoint", "3", "--split", "train", "--limit", "5", "--dropout", "both"]
    document = evaluated(folder, tmp_path / "scores.json", *options)
    generator, recipe, _ = load_generator(folder / "run", step=3)
    split = Split(folder / "shards", "train")
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
def test_averaged_weights_are_the_default(setting: str, tmp_path: Path) -> None:
    small_run(tmp_path / "run", settings=(setting,))
    small_set(tmp_path / "shards", count=4)
    averaged, plain = (
        evaluated(tmp_path, tmp_path / "s.json", option) for option in ("--ema", "--no-ema")
    )
    assert (averaged["ema"], plain["ema"]) == (True, False)
    assert averaged["metrics"]["l1"]["generated"] != plain["metrics"]["l1"]["generated"]
    assert averaged["metrics"]["l1"]["grey"] == plain["metrics"]["l1"]["grey"]


@pytest.mark.distributed
def test_two_processes_write_the_same_file_as_one(folder: Path, tmp_path: Path) -> None:
    """19 samples in batches of 3: the ranks get four and three batches."""
    files = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        options = ["--json", str(out), "--batch-size", "3", "--dropout", "both"]
        args = arguments(folder, *options, "--vgg16", "random")
        done = run_command("launch.evaluate", args, processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("L1 of ab / 110") == 2, "only rank 0 prints, one table per mode"
        files.append(out.read_text())
    assert files[0] == files[1]


def test_other_ranks_take_the_generator_from_rank_0(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here rank 1: it neither reads nor hashes the checkpoint."""
    expected, recipe, step = load_generator(folder / "run")
    weights = list(expected.state_dict().values())
    monkeypatch.setattr("launch.evaluate.load_generator", lambda *_, **__: pytest.fail("read"))
    monkeypatch.setattr(
        "colortrain.distributed.from_rank_0.broadcast_object_list", lambda _: [(recipe, step), None]
    )
    monkeypatch.setattr(
        "torch.distributed.broadcast", lambda tensor, source: tensor.copy_(weights.pop(0))
    )
    rank: Any = SimpleNamespace(is_main_process=False, num_processes=2, device=torch.device("cpu"))
    args = make_parser().parse_args(arguments(folder))
    generator, *rest = load_on_rank_0(args, rank)
    assert rest == [recipe, step]
    assert not generator.training
    for name, tensor in expected.state_dict().items():
        assert torch.equal(generator.state_dict()[name], tensor)


def test_shards_of_another_size_are_rejected(folder: Path, tmp_path: Path) -> None:
    small_set(tmp_path, size=48, count=4)
    with pytest.raises(
        UserError,
        match="has samples of 48 px, but the run was trained at 32 px: build shards with --size 32",
    ):
        main(["--run", str(folder / "run"), "--shards", str(tmp_path)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "tset"], "unknown split 'tset'; valid, nearest first: train, val"),
        (["--checkpoint", "4"], "no intact checkpoint of step 4"),
        (["--limit", "0"], "at least 1"),
        (["--dropout", "maybe"], "--dropout"),
        (["--json", "."], "--json . is a folder"),
        (
            ["--json", "/dev/null/new/scores.json"],
            "--json /dev/null/new/scores.json: /dev/null is not a writable folder",
        ),
    ],
)
def test_errors_are_reported_and_nothing_is_written(
    folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "scores.json"
    with pytest.raises(UserError, match=message):
        main(arguments(folder, "--json", str(out), *options))
    assert not out.exists()


def test_a_read_only_folder_is_reported_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.evaluate.score", lambda *_: pytest.fail("scored"))
    monkeypatch.setattr(
        "os.access", lambda path, mode: Path(path) != tmp_path
    )  # root can write to any folder
    with pytest.raises(UserError, match=f"{tmp_path} is not a writable folder"):
        evaluated(folder, tmp_path / "new" / "scores.json")


def test_scores_are_printed_even_if_they_cannot_be_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("launch.evaluate.write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        evaluated(folder, tmp_path / "scores.json")
    printed = capsys.readouterr().out
    assert "L1 of ab / 110" in printed
    assert "written to" not in printed


def test_an_explicit_split_is_never_replaced_by_the_only_one(folder: Path, tmp_path: Path) -> None:
    small_set(tmp_path, count=4)
    with pytest.raises(UserError, match="unknown split 'test'; valid, nearest first: all"):
        main(["--run", str(folder / "run"), "--shards", str(tmp_path), "--split", "test"])


def test_nan_is_written_as_null(tmp_path: Path) -> None:
    write_json({"metrics": {"l1": {"generated": float("nan"), "grey": 0.1}}}, tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "metrics": {"l1": {"generated": None, "grey": 0.1}}
    }


@pytest.mark.filterwarnings("ignore:.*index.npy was missing")
def test_black_photographs_are_scored(folder: Path, tmp_path: Path) -> None:
    """The ratio to their colourfulness, which is 0, has no value and no interval."""
    black = np.full((3, 32, 32), 128, np.uint8)
    black[0] = 0
    shards = tmp_path / "shards"
    shard = write_tar(shards, "000000.tar", [0, 1], [black, black])
    manifest = Manifest(size=32, fit="crop", dtype="uint8", splits={"all": (shard,)}, left_out={})
    save_manifest(manifest, shards)
    argv = ["--run", str(folder / "run"), "--shards", str(shards)]
    assert main([*argv, "--json", str(tmp_path / "scores.json")]) == 0
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["metrics"]["colourfulness_ratio"]["generated"] is None
    assert document["intervals"]["colourfulness_ratio"] == {}
    assert len(document["intervals"]["l1"]["generated"]) == 2


def test_scores_are_written_even_if_they_cannot_be_printed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), "latin-1"))
    with pytest.raises(UnicodeEncodeError):
        evaluated(folder, tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_bytes())["samples"] == 19

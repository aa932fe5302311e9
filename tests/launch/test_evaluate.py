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
from colortrain.metrics.registry import METRICS
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.history import read_evaluation
from launch.evaluate import load_on_rank_0, main, make_parser, write_json
from shards.errors import UserError
from shards.format.manifest import Manifest, save_manifest
from shards.read.dataset import Split
from tests.colortrain.metrics.test_network_metrics import Small
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


def test_the_inception_score_is_a_mean_and_a_deviation_over_splits(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 19 images; the default is 10 splits."""
    monkeypatch.setattr("colortrain.metrics.extractors.load_inception", lambda *_: Small())
    documents = [
        evaluated(folder, tmp_path / "scores.json", "--inception", "random", *options)
        for options in ([], ["--is-splits", "10"], ["--is-splits", "3"])
    ]
    assert documents[0] == documents[1]
    printed = capsys.readouterr().out
    for document, parts in zip(
        documents[1:], ("10 splits of 1 or 2 images", "3 splits of 6 or 7 images"), strict=True
    ):
        assert document["protocol"]["deviations"] == {"inception_score": parts}
        means = document["metrics"]["inception_score"]
        deviations = document["deviations"]["inception_score"]
        assert set(means) == set(deviations) == {"generated", "grey", "median", "truth"}
        assert f"{means['truth']:.3f} ± {deviations['truth']:.3f}" in printed
        assert f"± the standard deviation over {parts}" in printed
    assert documents[1]["metrics"]["inception_score"] != documents[2]["metrics"]["inception_score"]
    assert read_evaluation(tmp_path) == {}
    (tmp_path / "evaluation.json").write_text(json.dumps(documents[2]))
    assert read_evaluation(tmp_path)["deviations"] == documents[2]["deviations"]


NAMED = ["psnr_pooled", "colourfulness_ratio", "lpips_squeeze", "frechet_squeezenet"]


def test_named_metrics_are_computed_alone_with_the_same_values(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--squeezenet", "random", "--limit", "8")
    every = evaluated(folder, tmp_path / "all.json", *options)
    alone = evaluated(folder, tmp_path / "named.json", *options, "--metrics", *NAMED)
    assert list(alone["metrics"]) == NAMED
    assert alone["metrics"] == {name: every["metrics"][name] for name in NAMED}
    assert alone["intervals"] == {name: every["intervals"][name] for name in NAMED[:3]}
    assert set(alone["metrics"]["frechet_squeezenet"]) == {"generated", "grey", "median"}
    assert set(alone["protocol"]["extractors"]) == {"lpips_squeeze", "frechet_squeezenet"}
    assert alone["protocol"]["left_out"] == {}
    assert "not computed" not in capsys.readouterr().out.rpartition("95 %: bootstrap")[2]


@pytest.mark.parametrize("first", [["--limit", "19"], ["--metrics", "l1", "rmse"]])
def test_named_metrics_are_added_to_earlier_scores(
    folder: Path, tmp_path: Path, first: list[str]
) -> None:
    out = tmp_path / "scores.json"
    earlier = evaluated(folder, out, *first)
    both = evaluated(folder, out, "--squeezenet", "random", "--metrics", "lpips_squeeze", "l1")
    assert both["metrics"].keys() == earlier["metrics"].keys() | {"lpips_squeeze"}
    names = list(both["metrics"])
    assert names == [name for name in METRICS if name in names]  # in the order of tables
    assert {**both["metrics"], **earlier["metrics"]} == both["metrics"]
    assert len(both["intervals"]["lpips_squeeze"]["generated"]) == 2
    kept = ("run", "recipe", "step", "samples", "ema")
    assert [both[name] for name in kept] == [earlier[name] for name in kept]
    # the Fréchet distance still lacks its weights, and what the first one lacked
    frechet = "lpips_squeeze, frechet_squeezenet"
    assert both["protocol"]["left_out"] == earlier["protocol"]["left_out"]
    assert (frechet in earlier["protocol"]["left_out"]) is (first[0] == "--limit")
    complete = evaluated(folder, out, "--squeezenet", "random", "--metrics", "frechet_squeezenet")
    assert frechet not in complete["protocol"]["left_out"]
    assert complete["metrics"].keys() == both["metrics"].keys() | {"frechet_squeezenet"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "3"], "scores of step 8, not 3"),
        (["--limit", "5"], "scores of samples 19, not 5"),
        (["--split", "train"], "scores of split val, not train"),
        (["--dropout", "off"], "scores of dropout True, not False"),
    ],
)
def test_metrics_of_other_images_are_not_added(
    folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "scores.json"
    evaluated(folder, out, "--metrics", "l1")
    before = out.read_bytes()
    with pytest.raises(UserError, match=f"{out} has {message}: give --json FILE for a new file"):
        evaluated(folder, out, "--metrics", "rmse", *options)
    out.write_text("[]")
    with pytest.raises(UserError, match=f"{out} is damaged"):
        evaluated(folder, out, "--metrics", "rmse")
    assert before != out.read_bytes() == b"[]"


def test_images_that_are_too_small_for_lpips_are_one_line(tmp_path: Path) -> None:
    small_run(tmp_path / "run", settings=("size=16", "generator.levels=3"))
    small_set(tmp_path / "shards", size=16, count=4)
    args = arguments(tmp_path, "--json", str(tmp_path / "s.json"), "--squeezenet", "random")
    with pytest.raises(UserError, match=r"LPIPS requires images of at least 17 px, .* of 16 px"):
        main(args)
    assert main([*args, "--metrics", "frechet_squeezenet", "l1"]) == 0


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
        args = arguments(folder, *options, "--squeezenet", "random")
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
        (["--is-splits", "0"], "at least 1"),
        (["--metrics", "l1", "lpip"], "unknown metric 'lpip'; valid, nearest first: lpips, "),
        (["--metrics", "frechet_classifier"], "unknown metric 'frechet_classifier'"),
        (["--is-splits", "20"], "--is-splits 20 requires at least 20 images, 19 are scored"),
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

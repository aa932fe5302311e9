"""Training from plain tars (--stream): on two processes, and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.processes import run_command

THIN = [
    "size=32",
    "generator.levels=3",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
]


def arguments(*more: object) -> list[object]:
    sets = [
        text
        for change in [*THIN, "log_every=2", "evaluate_every=100"]
        for text in ("--set", change)
    ]
    return ["--recipe", "nampouri_unet", *sets, *more]


@pytest.mark.distributed
def test_two_processes_train_on_tars_without_an_index(shards: Path, tmp_path: Path) -> None:
    source = ["--stream", shards / "train" / "*.tar", "--epoch-images", 11, "--validation", shards]
    for images in (24, 40):
        argv = arguments(*source, "--run", tmp_path / "run", "--images", images)
        done = run_command("launch.train", argv, processes=2)
        assert done.returncode == 0, done.stderr
        assert (
            done.stderr.count("--stream is not exact") + done.stdout.count("--stream is not exact")
            == 1
        )
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["images"] for line in lines if line["kind"] == "start"] == [0, 24]
    assert [line["images"] for line in lines if line["kind"] == "end"] == [24, 40]
    assert [line["samples"] for line in lines if line["kind"] == "validation"] == [11, 11]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stream", "nowhere/*.tar", "--epoch-images", 10], "nowhere"),
        (["--stream", "nowhere/*.tar"], "--stream requires --epoch-images N"),
        (["--shards", "nowhere", "--epoch-images", 10], "are for --stream only"),
        (["--shards", "nowhere", "--stream", "nowhere/*.tar"], "not allowed with argument"),
        ([], "one of the arguments --shards --stream is required"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, more: list[object], message: str) -> None:
    done = run_command("launch.train", arguments(*more, "--run", tmp_path / "run"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()

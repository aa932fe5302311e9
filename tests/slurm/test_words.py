"""The words of the doors: what is refused on the login node, before anything is sent."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from launch import train
from shards.__main__ import make_parser as shards_parser
from shards.errors import UserError
from slurm import batch, build_shards, jobs, submit, sweep
from tests.support.processes import ROOT


@pytest.mark.parametrize("given", [["--processes", "2"], ["--processes=2"], ["--run=other"]])
def test_words_that_the_doors_say_themselves(given: list[str]) -> None:
    name = given[0].partition("=")[0]
    arguments = submit.parser().parse_args(["--cluster", "site.toml", "--run", "run", "--", *given])
    with pytest.raises(UserError, match=f"^{name} after --: leave it out"):
        submit.training_words(arguments)
    with pytest.raises(UserError, match=f"^{name} of launch.train: leave it out"):
        sweep.words_of(("n_critic=1",), Path("run"), given)


BUILD = ["photos", "set", "--size", "32"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["photos", "set", "--size", "banana"], "argument --size: invalid int value: 'banana'"),
        ([*BUILD, "--foo"], "unrecognized arguments: --foo"),
        (["photos", "--size", "32"], "the following arguments are required: OUT"),
        ([*BUILD, "--part=1/2"], "--part after --: leave it out"),
    ],
)
def test_words_of_packing_are_checked_before_anything_is_sent(
    tmp_path: Path, given: list[str], said: str
) -> None:
    (tmp_path / "site.toml").touch()
    with pytest.raises(UserError) as error:
        build_shards.main(
            ["--cluster", str(tmp_path / "site.toml"), "--parts", "2", "--dry-run", "--", *given]
        )
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("given", "workers"), [([], 3), (["--workers", "5"], 5), (["--workers=5"], 5)]
)
def test_a_part_has_the_workers_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], workers: int
) -> None:
    """Else one a CPU."""
    sent: list[jobs.Shards] = []

    def submit(cluster: object, folder: Path, told: object, calls: list[jobs.Shards]) -> list[str]:
        sent.extend(calls)
        return ["1"]

    monkeypatch.setattr(build_shards, "check_against_site", lambda cluster: None)
    monkeypatch.setattr(batch, "submit", submit)
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text("cpus = 3")
    assert build_shards.main(["--cluster", "site.toml", "--parts", "2", "--", *BUILD, *given]) == 0
    *parts, merge = [call.calls for call in sent]
    asked = [shards_parser().parse_args(words) for ((*words,),) in parts]
    assert [(one.part, one.workers) for one in asked] == [("1/2", workers), ("2/2", workers)]
    assert merge == (("merge", "set", "--workers", "3"), ("verify", "set"))


def commands_of_the_docs() -> dict[str, list[str]]:
    """What a shell makes of docs/SLURM.md's commands: the words of each door, those of the last command with it."""
    text = (ROOT / "docs" / "SLURM.md").read_text()
    lines = re.findall(r"^    ((?:WORDS=|python -m slurm\.)(?:.*\\\n)*.*)$", text, re.MULTILINE)
    script = "\n".join(["python() { printf '%q ' \"$@\"; echo; }", *lines])
    said = subprocess.run(
        ["bash", "-uc", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return {words[1]: words[2:] for words in map(shlex.split, said.splitlines())}


def test_commands_of_the_docs_run_as_they_stand() -> None:
    found = commands_of_the_docs()
    assert list(found) == ["slurm.build_shards", "slurm.submit", "slurm.status", "slurm.sweep"]
    _, out = build_shards.build_words(
        build_shards.parser().parse_args(found["slurm.build_shards"]).build
    )
    asked = train.make_parser().parse_args(
        submit.training_words(submit.parser().parse_args(found["slurm.submit"]))
    )
    assert asked.shards == [str(out)]
    assert train.resolve(asked).size == 32
    arguments, common = sweep.parser().parse_known_args(found["slurm.sweep"])
    points = sweep.grid_points(arguments.grid)
    assert train.make_parser().parse_args(sweep.words_of(points[0], out, common)).set == list(points[0])

"""Building shards on a cluster: what is checked and what is submitted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from shards.__main__ import make_parser as make_shards_parser
from shards.errors import UserError
from slurm import batch, build_shards, jobs
from tests.support.slurm_commands import SINFO, install_commands

BUILD = ["photos", "set", "--size", "32"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["photos", "set", "--size", "banana"], "argument --size: invalid int value: 'banana'"),
        ([*BUILD, "--foo"], "unrecognized arguments: --foo"),
        (["photos", "--size", "32"], "the following arguments are required: OUT"),
        ([*BUILD, "--part=1/2"], "--part after --: remove it"),
    ],
)
def test_arguments_of_the_build_are_checked_before_anything_is_submitted(
    tmp_path: Path, argv: list[str], message: str
) -> None:
    site = tmp_path / "site.toml"
    site.touch()
    with pytest.raises(UserError) as error:
        build_shards.main(["--cluster", str(site), "--parts", "2", "--dry-run", "--", *argv])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "workers"), [([], 3), (["--workers", "5"], 5), (["--workers=5"], 5)]
)
def test_a_part_has_one_worker_per_cpu_or_as_many_as_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], workers: int
) -> None:
    submitted: list[jobs.ShardsJob] = []

    def submit(
        cluster: object, folder: Path, parameters: object, calls: list[jobs.ShardsJob]
    ) -> list[str]:
        submitted.extend(calls)
        return ["1"]

    install_commands(tmp_path, monkeypatch, {"sinfo": SINFO})
    monkeypatch.setattr(batch, "submit", submit)
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text("cpus = 3")
    argv = ["--cluster", "site.toml", "--parts", "2", "--", *BUILD, *options]
    assert build_shards.main(argv) == 0
    *parts, merge = [call.calls for call in submitted]
    args = [make_shards_parser().parse_args(part_argv) for ((*part_argv,),) in parts]
    assert [(each.part, each.workers) for each in args] == [("1/2", workers), ("2/2", workers)]
    assert merge == (("merge", "set", "--workers", "3"), ("verify", "set"))


def test_a_dry_run_prints_both_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second job depends on the array, and ends if a part has failed.

    Both print the command that resumes the build: the same, without --dry-run, in the
    folder from which it was submitted.
    """
    install_commands(tmp_path, monkeypatch, {"sinfo": SINFO})
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text("nodes = 9\ngpus = 8")
    argv = ["--cluster", "site.toml", "--parts", "4", "--dry-run", "--", *BUILD]
    assert build_shards.main(argv) == 0
    array, merge = capsys.readouterr().out.split("#!/bin/bash")[1:]
    argv.remove("--dry-run")
    assert "#SBATCH --array=0-3%4" in array
    assert "#SBATCH --dependency=afterok:ARRAY" in merge
    for script in (array, merge):
        assert "#SBATCH --nodes=1" in script
        assert "#SBATCH --cpus-per-task=1" in script
        (requeue,) = (line for line in script.splitlines() if line.startswith("requeue "))
        folder, _, command = shlex.split(requeue)[-1].partition(" && ")
        assert shlex.split(folder) == ["cd", str(tmp_path)]
        assert shlex.split(command) == ["colortrain", "build_shards", *argv]
        assert "#SBATCH --gpus" not in script
        assert "#SBATCH --kill-on-invalid-dep=yes" in script
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "site.toml"]

"""The journal: which files are this command's own, after any interruption."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import colortrain
from colortrain.inference.colorizer import Colorizer
from launch.colorize_journal import JOURNAL, Journal, earlier_results, select_jobs
from launch.image_jobs import FileVersion, Job
from shards.errors import UserError
from tests.support.small_run import small_run


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Colorizer]:
    """Two networks that differ in their weights alone."""
    folder = tmp_path_factory.mktemp("journal")
    for seed in (0, 1):
        small_run(folder / str(seed), seed=seed)
    return [colortrain.load(folder / str(seed)) for seed in (0, 1)]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    source = tmp_path / "in" / "one.png"
    source.parent.mkdir()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(source)
    return Job(source, (tmp_path / "out" / "one.png",))


def write(journal: Journal, job: Job, content: bytes = b"result") -> None:
    with journal.writing(job.targets[0], job, 0, FileVersion.of(job.source)):
        job.targets[0].write_bytes(content)


def journal_of(job: Job, network: Colorizer, dropout: bool | None = None) -> Journal:
    return Journal(job.targets[0].parent, [network], dropout)


def select(
    job: Job, journal: Journal, force: bool = False, skip_existing: bool = False
) -> list[Job]:
    return select_jobs([job], journal, None, force, skip_existing)


def test_only_the_same_network_options_and_source_make_a_file_its_own(
    job: Job, networks: list[Colorizer], tmp_path: Path
) -> None:
    assert select(job, journal_of(job, networks[0])) == [job]
    write(journal_of(job, networks[0]), job)
    assert select(job, journal_of(job, networks[0])) == []
    assert select(job, journal_of(job, networks[0], dropout=True)) == [], "the recipe's setting"
    for journal, reason in (
        (journal_of(job, networks[1]), "it was colorized by another network"),
        (journal_of(job, networks[0], dropout=False), "colorized with another --dropout"),
    ):
        with pytest.raises(UserError, match=rf"one\.png exists, and .*{reason}: .*--force"):
            select(job, journal)
    os.utime(job.source, (1, 1))
    assert select(job, journal_of(job, networks[0])) == []
    job.source.write_bytes(b"another image")
    with pytest.raises(UserError, match=r"made from another version of .*in/one\.png"):
        select(job, journal_of(job, networks[0]))
    assert select(job, journal_of(job, networks[0]), force=True) == [job]
    assert select(job, journal_of(job, networks[0]), skip_existing=True) == []
    write(journal_of(job, networks[0]), job)
    assert select(job, journal_of(job, networks[0])) == [], "the newest entry counts"


def test_the_network_is_known_by_its_weights_not_by_its_folder(
    networks: list[Colorizer], tmp_path: Path
) -> None:
    networks[0].save(tmp_path)
    assert colortrain.load(tmp_path).fingerprint() == networks[0].fingerprint()
    assert networks[1].fingerprint() != networks[0].fingerprint()


class KilledError(BaseException):
    """Ends a command at a chosen place."""


def killed_while_writing(journal: Journal, job: Job, content: bytes | None) -> None:
    """End a command before its file is written, or after, if there is `content`."""
    with contextlib.suppress(KilledError), journal.writing(*_entry(job)):
        if content is not None:
            job.targets[0].unlink(missing_ok=True)  # replaced, as by a rename
            job.targets[0].write_bytes(content)
        raise KilledError


def test_a_file_written_just_before_a_kill_is_known(job: Job, networks: list[Colorizer]) -> None:
    killed_while_writing(journal_of(job, networks[0]), job, b"complete")
    assert select(job, journal_of(job, networks[0])) == []


def test_a_file_not_written_before_a_kill_is_written_again(
    job: Job, networks: list[Colorizer]
) -> None:
    killed_while_writing(journal_of(job, networks[0]), job, None)
    assert select(job, journal_of(job, networks[0])) == [job]


@pytest.mark.parametrize("content", [None, b"result"])
def test_a_foreign_file_is_not_taken_for_a_result_after_a_kill(
    job: Job, networks: list[Colorizer], content: bytes | None
) -> None:
    """With --force, a kill before or after the file was replaced."""
    job.targets[0].parent.mkdir()
    job.targets[0].write_bytes(b"foreign")
    journal = journal_of(job, networks[0])
    killed_while_writing(journal, job, content)
    with pytest.raises(UserError, match="it was not written by this command"):
        select(job, journal_of(job, networks[0]))
    with journal.writing(*_entry(job)):
        pass  # the file was not replaced, as after an error of a video
    with pytest.raises(UserError, match="it was not written by this command"):
        select(job, journal_of(job, networks[0]))


def _entry(job: Job) -> tuple[Path, Job, int, FileVersion]:
    return job.targets[0], job, 0, FileVersion.of(job.source)


def test_a_line_cut_short_is_skipped_and_the_next_one_is_kept(
    job: Job, networks: list[Colorizer], tmp_path: Path
) -> None:
    write(journal_of(job, networks[0]), job)
    path = tmp_path / "out" / JOURNAL
    data = path.read_bytes()
    other = Job(job.source, (tmp_path / "out" / "two.png",))
    for length in range(data.index(b"\n") + 1, len(data)):
        path.write_bytes(data[:length])
        write(journal_of(job, networks[0]), other)
        assert select(other, journal_of(job, networks[0])) == []
    for garbage in (b"[]", b"{", b'{"file": 1}', b'{"file": "one.png", "source": 3}', b"[" * 9999):
        path.write_bytes(data[: data.index(b"\n") + 1] + garbage)
        with pytest.raises(UserError, match="exists"):
            select(job, journal_of(job, networks[0]))


@pytest.mark.parametrize("content", [b"", b"mine\n", b'{"format": "colortrain colorize 2"}\n'])
def test_a_file_that_is_no_journal_is_not_changed(
    job: Job, networks: list[Colorizer], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "out" / JOURNAL
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"colorized\.jsonl was not written by .*: move it"):
        journal_of(job, networks[0])
    assert path.read_bytes() == content


def test_names_of_any_bytes_are_kept(networks: list[Colorizer], tmp_path: Path, job: Job) -> None:
    name = os.fsdecode(b'n\xff\n"\xc3\xbc.png')
    unusual = Job(job.source, (tmp_path / "out" / name,))
    write(journal_of(job, networks[0]), unusual)
    assert select(unusual, journal_of(job, networks[0])) == []
    assert earlier_results(tmp_path / "out") == {
        tmp_path / "out" / JOURNAL,
        tmp_path / "out" / name,
    }
    lines = (tmp_path / "out" / JOURNAL).read_bytes().splitlines()
    assert [json.loads(line).keys() for line in lines] == [
        {"format"},
        {"file", "network", "dropout", "source"},
    ]


def test_temporary_files_of_a_killed_command_are_removed(
    job: Job, networks: list[Colorizer], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    stale = tmp_path / "out" / f".one.png.{os.uname().nodename}.{2**22 + 1}.tmp"
    stale.touch()
    write(journal_of(job, networks[0]), job)
    assert not stale.exists()

"""The journal of `colortrain colorize`: a list of the files that it wrote to a folder.

    OUT/colorized.jsonl    the first line names the format; then one line for each file
                           written: its path, its source, the network and its options

When the command resumes, the journal says what is left to do, and which existing files
it must not overwrite.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colortrain.inference.colorizer import Colorizer
from launch.image_jobs import FileVersion, Job
from shards.errors import UserError
from shards.files import fsync_file, remove_stale_temporaries, write_atomic
from shards.json_files import parse_json

JOURNAL = "colorized.jsonl"
_HEADER = {"format": "colortrain colorize 1"}


class Journal:
    """The journal of one output folder, for one command's networks and options."""

    def __init__(self, out: Path, networks: Sequence[Colorizer], dropout: bool | None) -> None:
        self.path, self.dropout = out / JOURNAL, dropout
        self._networks = [(network.fingerprint(), network) for network in networks]
        self._entries = _read(self.path)

    def use_dropout(self, number: int, job: Job) -> bool:
        """Return whether network `number` uses dropout for the image or video `job`."""
        if self.dropout is None:
            return not job.is_video and self._networks[number][1].description.test_dropout
        return self.dropout

    def _settings(self, number: int, job: Job) -> dict[str, Any]:
        return {
            "network": self._networks[number][0],
            "dropout": self.use_dropout(number, job),
        }

    def why_not_own(self, job: Job, number: int) -> str:
        """Return a message that says why an output file is not kept, or "" if it is.

        It is kept if this command wrote it with the same network and options, and from
        the same content of the source. number: index of the output file and of its
        network.
        """
        entry = self._entries.get(self._name(job.targets[number]))
        if entry is None:
            return "it was not written by this command"
        settings = self._settings(number, job)
        if entry.get("network") != settings["network"]:
            return "it was colorized by another network"
        if entry.get("dropout") != settings["dropout"]:
            return "it was colorized with another --dropout"
        version = _version(entry.get("source"))
        if version is None or not version.is_of(job.source):
            return f"it was made from another version of {job.source}"
        return ""

    def owns(self, path: Path) -> bool:
        """Return whether the journal has a line about the contact sheet `path`."""
        return self._name(path) in self._entries

    @contextmanager
    def writing(
        self, path: Path, job: Job | None = None, number: int = 0, source: FileVersion | None = None
    ) -> Iterator[None]:
        """Write a line about the file `path`, which the `with` block writes.

        For a colorized file, job: its image or video; number: index of its network;
        source: the content of the image or video when it was read. For a contact sheet,
        job and source are None.
        """
        entry: dict[str, Any] = {"file": self._name(path)}
        if job is not None and source is not None:
            entry |= {**self._settings(number, job), "source": dataclasses.asdict(source)}
        before = _identity(path)
        # First, so that after an interruption there is a line about each file.
        if before is None:
            self._append(entry)
            remove_stale_temporaries(path)
        yield
        # Last, so that no line describes a file that still has its old content.
        if before is not None and _identity(path) != before:
            self._append(entry)

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.path.parent)

    def create(self) -> None:
        """Create the journal file with only its first line, unless it exists."""
        if not self.path.exists():
            write_atomic(self.path, json.dumps(_HEADER).encode() + b"\n")

    def _append(self, entry: Mapping[str, Any]) -> None:
        self.create()
        line = json.dumps(entry).encode() + b"\n"
        with open(self.path, "a+b") as stream:
            # A newline first after a line that was cut short.
            stream.write(line if _ends_with_newline(stream.fileno()) else b"\n" + line)
            fsync_file(stream, self.path)
        self._entries[entry["file"]] = dict(entry)


def select_jobs(
    jobs: Sequence[Job], journal: Journal, sheet: Path | None, force: bool, skip_existing: bool
) -> list[Job]:
    """Return the jobs to run, without those whose output files exist and are all kept.

    An output file is kept if this command wrote it from the same source; with
    `skip_existing` every existing file is kept, with `force` none. Raises UserError for
    an existing file that is not kept, unless `force` is given. sheet: path of the
    contact sheet.
    """
    taken: list[tuple[Path, str]] = []
    selected = []
    for job in jobs:
        reasons = {
            target: "" if skip_existing else journal.why_not_own(job, number)
            for number, target in enumerate(job.targets)
            if not force and os.path.lexists(target)
        }
        taken += [(target, reason) for target, reason in reasons.items() if reason]
        if len(reasons) < len(job.targets):
            selected.append(dataclasses.replace(job, kept=frozenset(reasons)))
    if sheet is not None and sheet.exists() and not force and not journal.owns(sheet):
        taken.append((sheet, "it was not written by this command"))
    if taken:
        path, reason = taken[0]
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise UserError(
            f"{path} exists{more}, and {reason}: choose another --out, or give --force or "
            "--skip-existing"
        )
    return selected


def earlier_results(out: Path) -> frozenset[Path]:
    """Return the real paths of the journal in `out` and of all files that it lists."""
    return frozenset(
        Path(os.path.realpath(out / name)) for name in (JOURNAL, *_read(out / JOURNAL))
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return a file's inode and modification time, or None if there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _ends_with_newline(descriptor: int) -> bool:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1) == b"\n"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the newest entry of a journal about each file, by the file's name.

    Raises UserError if the file `path` is not a journal.
    """
    try:
        first, *lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    if _parse(first) != _HEADER:
        raise UserError(
            f"{path} was not written by this version of `colortrain colorize`: "
            "move it, or choose another --out"
        )
    entries = [_parse(line) for line in lines]
    return {entry["file"]: entry for entry in entries if isinstance(entry.get("file"), str)}


def _parse(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line, or {} if the line contains none."""
    try:
        document = parse_json(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _version(document: Any) -> FileVersion | None:
    if not isinstance(document, dict) or document.keys() != {"size", "changed", "sha256"}:
        return None
    return FileVersion(**document)

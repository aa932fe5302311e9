"""Read the records of a run: the journal RUN/metrics.jsonl and other JSON files.

Each line of the journal is a JSON object with "kind", "step", "time" and other values.
The kinds are "start", "train", "validation", "checkpoint", "skipped" (how often
a "validation" or "saving" was skipped to save time), "resync", "warning", "stop" and
"end".
"""

# This module does not import torch.
from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from colortrain.runs.layout import evaluation_file, journal_file
from colortrain.serialize import finite
from shards.json_files import fits, fitting_fields, parse_json

Line = dict[str, Any]
_Numbers = dict[str, float | None]
_Metrics = dict[str, _Numbers]
_END_OF_TIME = 1e11  # seconds since 1970: the year 5138


class JournalLine(TypedDict, total=False):
    """The types of the values in a line of metrics.jsonl."""

    kind: str
    step: int
    time: float
    images: int
    epoch: float
    lr: float
    seconds: float
    images_per_second: float
    data_wait: float
    losses: _Numbers
    gradient_norms: _Numbers
    metrics: _Metrics
    samples: int
    protocol: Protocol
    world: int
    device: str
    mixed_precision: str
    about: str
    text: str
    resync: bool
    difference: float | None


_REQUIRED = {
    "train": ("images",),
    "validation": ("images", "metrics"),
    "warning": ("about", "text"),
}


class _Median(TypedDict):
    split: str
    oracle: bool
    ab: tuple[float, float]


class _Extractor(TypedDict):
    extractor: str
    weights: str
    resize: str


class Protocol(TypedDict, total=False):
    """How scores were measured, and on which photographs."""

    dataset_id: str
    split: str
    size: int
    fit: str
    dropout: bool
    lightness: str
    median: _Median
    extractors: dict[str, _Extractor]
    left_out: dict[str, str]
    deviations: dict[str, str]


class Evaluation(TypedDict, total=False):
    """The types of the values in evaluation.json."""

    recipe: str
    step: int
    ema: bool
    samples: int
    metrics: _Metrics
    protocol: Protocol
    intervals: dict[str, dict[str, tuple[float, float]]]
    deviations: _Metrics


def read_lines(path: Path, kind: Any = Line) -> list[Line]:
    """Return the objects in a JSON Lines file; an empty list if there is no file.

    Lines that are not a valid JSON object of type `kind` are left out.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    # the last line of a run that was killed or is still writing may be incomplete
    parsed = (_parse(line, kind) for line in data.splitlines())
    return [line for line in parsed if line is not None]


def _parse(data: bytes, kind: Any) -> dict[str, Any] | None:
    try:
        value = finite(parse_json(data))
    except ValueError:
        return None
    return value if fits(kind, value) else None


def parse_journal_line(data: bytes) -> Line | None:
    """Return one line of metrics.jsonl, or None if it is incomplete or damaged.

    Values of another type than in `JournalLine` are left out.
    """
    line = fitting_fields(JournalLine, _parse(data, Line) or {})
    if not 0 <= line.get("time", 0) < _END_OF_TIME:
        del line["time"]
    required = ("kind", "step", *_REQUIRED.get(line.get("kind", ""), ()))
    return line if all(name in line for name in required) else None


def read_document(path: Path, kind: Any = Line) -> dict[str, Any]:
    """Return the JSON object in a file, or {} if it has no valid one of type `kind`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    return _parse(data, kind) or {}


def read_evaluation(run: Path) -> dict[str, Any]:
    """Return the scores in RUN/evaluation.json; {} if it is missing or damaged."""
    # leaves out values of another type than in `Evaluation`
    return fitting_fields(Evaluation, read_document(evaluation_file(run)))


def read_journal(run: Path, kind: str | None = None) -> list[Line]:
    """Return the lines of RUN/metrics.jsonl of one kind, or of all kinds, in order."""
    try:
        data = journal_file(run).read_bytes()
    except FileNotFoundError:
        return []
    lines = (parse_journal_line(line) for line in data.splitlines())
    return [line for line in lines if line and (kind is None or line["kind"] == kind)]


def last_scores(run: Path) -> dict[str, float]:
    """Return the generator's scores in a run's last validation, by metric name.

    "grey l1" is the L1 of the grayscale baseline. The result is {} before the first
    validation.
    """
    validations = [line["metrics"] for line in read_journal(run, "validation")]
    if not validations:
        return {}
    last = validations[-1]
    scores = {name: values.get("generated") for name, values in last.items()}
    scores["grey l1"] = last.get("l1", {}).get("grey")
    # NaN was written as null
    return {name: value for name, value in scores.items() if value is not None}

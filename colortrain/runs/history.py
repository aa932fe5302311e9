"""Read the records of a run: the journal RUN/metrics.jsonl and other JSON files.

This module does not import torch. Each line of the journal is a JSON object with
"kind", "step", "time" and other values that depend on the kind. The kinds are "start",
"train" (losses, learning rates), "validation" (metrics), "checkpoint", "warning",
"stop" and "end".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colortrain.runs.layout import journal_file

Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """Return the JSON objects of a JSON Lines file; an empty list if there is no file.

    Lines that are not valid JSON are left out. Such a line is, for instance, the
    incomplete last line of a run that was killed or is still writing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    parsed = (_parse(line) for line in text.splitlines())
    return [line for line in parsed if line is not None]


def _parse(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    The result is {} if the file does not exist or does not contain a valid JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def read_journal(run: Path, kind: str | None = None) -> list[Line]:
    """Return the lines of RUN/metrics.jsonl in order, as JSON objects.

    If `kind` is given, only lines of that kind ("train", "validation", ...) are
    returned.
    """
    lines = read_lines(journal_file(run))
    return [line for line in lines if kind is None or line.get("kind") == kind]


def last_scores(run: Path) -> dict[str, float]:
    """Return the generator's scores in a run's last validation, by metric name.

    The L1 of the grayscale baseline is added as "grey l1". Metrics without a value
    (NaN, written as null) are left out. The result is {} if there has been no
    validation.
    """
    validations = [line["metrics"] for line in read_journal(run, "validation")]
    if not validations:
        return {}
    last = validations[-1]
    scores = {name: values.get("generated") for name, values in last.items()}
    scores["grey l1"] = last.get("l1", {}).get("grey")
    return {name: value for name, value in scores.items() if value is not None}

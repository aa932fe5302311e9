"""Add metrics to scores that were measured before, under the same conditions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colortrain.metrics.registry import METRICS, Scores
from colortrain.runs.history import Evaluation
from shards.errors import UserError
from shards.json_files import read_json

_ADVICE = "give --json FILE for a new file, or leave out --metrics to replace it"
_BY_METRIC = ("metrics", "intervals", "deviations")
_PROTOCOL_BY_METRIC = ("extractors", "deviations")


def read_comparable(path: Path, facts: Mapping[str, Any]) -> Scores:
    """Return the scores in the file `path`, or {} if there is no such file.

    `facts` are values that the file must have, such as "step" and "samples"; those in
    facts["protocol"] must be in its protocol. Raises UserError if the file is damaged
    or has another value, which means that its scores are not of the same images.
    """
    if not path.is_file():
        return {}
    scores: Scores = read_json(path, Evaluation, _ADVICE)
    pairs = [(name, scores.get(name), value) for name, value in facts.items()]
    protocol = scores.get("protocol", {})
    pairs += [(name, protocol.get(name), value) for name, value in facts["protocol"].items()]
    for name, old, new in pairs:
        if name != "protocol" and old != new:
            raise UserError(f"{path} has scores of {name} {old}, not {new}: {_ADVICE}")
    return scores


def add_scores(old: Scores, new: Scores) -> Scores:
    """Return `old` with the metrics of `new`, which replace those of the same names.

    Both are documents as in evaluation.json, of the same images; `old` may be {}.
    """
    scores = _joined(old, new, _BY_METRIC)
    protocol = _joined(old.get("protocol", {}), new["protocol"], _PROTOCOL_BY_METRIC)
    left_out = {**new["protocol"]["left_out"], **old.get("protocol", {}).get("left_out", {})}
    protocol["left_out"] = {
        names: how
        for names, how in left_out.items()
        if not set(names.split(", ")) <= scores["metrics"].keys()
    }
    return {**scores, "protocol": protocol}


def _joined(old: Scores, new: Scores, by_metric: tuple[str, ...]) -> Scores:
    """Return old | new; the dicts named `by_metric` have the metrics of both."""
    joined = {**old, **new}
    for name in by_metric:
        both = {**old.get(name, {}), **new.get(name, {})}
        if both:
            joined[name] = {
                **{metric: both[metric] for metric in METRICS if metric in both},
                **both,
            }
    return joined

"""The report's summary of a run as text: facts, main scores, sentences and warnings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS
from colortrain.metrics.score_tables import COLUMNS, LABELS, compared_with_grayscale
from colortrain.recipes import headline_of
from colortrain.training.alarms import SEPIA
from launch.report.run_history import RunHistory, Session

END_LABELS = {  # the text for each `Session.end`
    "finished": "finished",
    "stopped": "stopped by a signal",
    "killed": "killed",
    "open": "running, or killed",
}
_CARDS = ("l1", "psnr", "colourfulness_ratio", "fid", "frechet_lab", "ssim", "sepia")
# Warnings in the journal that `warnings` replaces by one about the latest scores.
_REPLACED = ("sepia",)


def summarize(history: RunHistory) -> dict[str, Any]:
    """Return the summary of one run: its facts, main scores, sentences and warnings."""
    return {
        "facts": facts(history),
        "cards": cards(history),
        "sentences": sentences(history),
        "warnings": warnings(history),
    }


def facts(history: RunHistory) -> list[tuple[str, str]]:
    """Return facts about a run as (name, value) pairs of texts."""
    recipe, last = history.recipe, history.sessions[-1] if history.sessions else None
    rows = [
        ("recipe", f"{recipe.name}, {recipe.size} px, batch {recipe.batch_size}"),
        ("images seen", f"{history.images:,}"),
        ("training time", duration(history.seconds)),
        ("images per second", f"{_rate(history):,.1f}" if history.seconds else "–"),
    ]
    if last:
        rows += [
            ("processes", f"{last.world} on {last.device}"),
            ("state", _state(history.sessions)),
        ]
    return rows


def _rate(history: RunHistory) -> float:
    images = sum(
        line.get("images_per_second", 0.0) * line.get("seconds", 0.0) for line in history.train
    )
    return images / history.seconds


def _state(sessions: Sequence[Session]) -> str:
    last, earlier = sessions[-1], [session.end for session in sessions[:-1]]
    ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime(last.ended))
    parts = [f"{END_LABELS[last.end]} {ended} UTC"]
    phrases = {
        "stopped": "stopped by a signal",
        "killed": "killed",
        "finished": "resumed after its end",
    }
    parts += [
        f"{_times(earlier.count(end))} {phrase}"
        for end, phrase in phrases.items()
        if end in earlier
    ]
    return "; ".join(parts)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def duration(seconds: float) -> str:
    """Return a duration as text: "12 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def cards(history: RunHistory) -> list[dict[str, Any]]:
    """Return the main scores of a run, each as a dict of texts for the page."""
    paper = headline_of(history.recipe).values()
    rows = []
    for name in _CARDS:
        values = history.metrics.get(name, {})
        if values.get("generated") is None:
            continue
        metric = METRICS[name]
        references = {LABELS[version]: values.get(version) for version in COLUMNS[1:]}
        references["paper"] = paper.get(name)
        shown = [
            f"{k} {metric.text(value)}" for k, value in references.items() if value is not None
        ]
        rows.append(
            {
                "label": metric.label,
                "better": metric.symbol,
                "value": metric.text(values["generated"]),
                "references": " · ".join(shown),
            }
        )
    return rows


def sentences(history: RunHistory) -> list[str]:
    """Return sentences about a run's L1, compared with baselines, and colourfulness."""
    values = history.metrics.get("l1", {})
    generated, grey, median = (values.get(name) for name in ("generated", "grey", "median"))
    if generated is None or grey is None:
        return ["No held-out scores yet."]
    is_level = compared_with_grayscale(history.scores, "l1") == "level"
    note = " (the 95 % interval of the difference contains 0)" if is_level else ""
    to_grey = f"{_relation(generated, grey)} that of the grayscale baseline{note}"
    to_median = f", {_relation(generated, median)} that of one median colour" if median else ""
    lines = [f"L1 is {to_grey}{to_median}."]
    ratio = history.metrics.get("colourfulness_ratio", {}).get("generated")
    if ratio is not None:
        lines.append(f"The images are {ratio:.2f} times as colourful as the photographs.")
    return lines


def _relation(value: float, reference: float) -> str:
    difference = value / reference - 1
    if abs(difference) < 0.002:
        return "equal to"
    return f"{abs(difference) * 100:.1f} % {'above' if difference > 0 else 'below'}"


def warnings(history: RunHistory) -> list[str]:
    """Return the warnings about a run, as sentences."""
    lines = []
    ratio = history.metrics.get("colourfulness_ratio", {}).get("generated")
    if ratio is not None and ratio < SEPIA:
        lines.append(
            f"Colourfulness is {ratio:.2f} of the truth's. Values below {SEPIA} mean that colours "
            "tend to sepia."
        )
    l1 = history.metrics.get("l1", {})
    generated, median = l1.get("generated"), l1.get("median")
    if generated is not None and median is not None and generated > median:
        lines.append("One constant colour has a lower L1. Compare the images, not the L1.")
    newest = {
        line["about"]: line
        for line in history.other_lines
        if line["kind"] == "warning" and line["about"] not in _REPLACED
    }
    return lines + [f"At step {line['step']:,}: {line['text']}." for line in newest.values()]

"""What a reader wants first: how a run stands, its scores against grey's in words, and what to worry about."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS
from colortrain.metrics.score_tables import compared_with_grayscale
from colortrain.recipes import headline_of
from colortrain.training.alarms import SEPIA
from launch.report.run_history import Session, Story

_CARDS = ("l1", "psnr", "colourfulness_ratio", "fid", "frechet_lab", "ssim", "sepia")
_NOW = ("sepia",)  # told of the last scores instead


def summary(story: Story) -> dict[str, Any]:
    """Facts, cards and sentences of one run."""
    return {
        "facts": facts(story),
        "cards": cards(story),
        "sentences": sentences(story),
        "warnings": warnings(story),
    }


def facts(story: Story) -> list[tuple[str, str]]:
    """What was run, on what, for how long, and how it ended."""
    last = story.sessions[-1] if story.sessions else None
    found = [
        ("recipe", f"{story.recipe.name}, {story.recipe.size} px, batch {story.recipe.batch_size}"),
        ("images seen", f"{story.images:,}"),
        ("training", duration(story.seconds)),
        ("images a second", f"{_rate(story):,.1f}" if story.seconds else "–"),
    ]
    if last:
        found += [
            ("processes", f"{last.world} on {last.device}"),
            ("state", _state(story.sessions)),
        ]
    return found


def _rate(story: Story) -> float:
    return sum(line["images_per_second"] * line["seconds"] for line in story.train) / story.seconds


def _state(sessions: Sequence[Session]) -> str:
    last, early = sessions[-1], [session.how for session in sessions[:-1]]
    words = {"open": "running, or killed", "stopped": "stopped by a signal"}.get(last.how, last.how)
    told = [f"{words} {time.strftime('%Y-%m-%d %H:%M', time.gmtime(last.ended))} UTC"]
    counts = {
        "stopped": "stopped by a signal",
        "killed": "killed",
        "finished": "gone on with after its end",
    }
    told += [f"{early.count(how)} times {phrase}" for how, phrase in counts.items() if how in early]
    return "; ".join(told).replace("1 times", "once")


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def cards(story: Story) -> list[dict[str, Any]]:
    """The few numbers to look at, each beside grey, median and the paper's."""
    paper = headline_of(story.recipe).values()
    made = []
    for name in _CARDS:
        values = story.metrics.get(name, {})
        if values.get("generated") is None:
            continue
        metric = METRICS[name]
        beside = {
            **{v: values.get(v) for v in ("grey", "median", "truth")},
            "paper": paper.get(name),
        }
        shown = [f"{v} {metric.text(value)}" for v, value in beside.items() if value is not None]
        made.append(
            {
                "label": metric.label,
                "better": metric.symbol,
                "value": metric.text(values["generated"]),
                "beside": " · ".join(shown),
            }
        )
    return made


def sentences(story: Story) -> list[str]:
    """How the run compares with a grey picture and with one constant colour."""
    values = story.metrics.get("l1", {})
    mine, grey, median = (values.get(version) for version in ("generated", "grey", "median"))
    if mine is None or grey is None:
        return ["No held-out scores yet."]
    beside_median = f", {_beside(mine, median)} a constant median colour's" if median else ""
    chance = (
        ", which may be chance" if compared_with_grayscale(story.scores, "l1") == "level" else ""
    )
    told = [f"L1 is {_beside(mine, grey)} a grey picture's{chance}{beside_median}."]
    ratio = story.metrics.get("colourfulness_ratio", {}).get("generated")
    if ratio is not None:
        told.append(f"Pictures are {ratio:.2f} times as colourful as the photographs.")
    return told


def _beside(mine: float, other: float) -> str:
    share = mine / other - 1
    return (
        "level with"
        if abs(share) < 0.002
        else f"{abs(share) * 100:.1f} % {'above' if share > 0 else 'below'}"
    )


def warnings(story: Story) -> list[str]:
    """What to worry about."""
    found = []
    ratio = story.metrics.get("colourfulness_ratio", {}).get("generated")
    if ratio is not None and ratio < SEPIA:
        found.append(
            f"Colourfulness is {ratio:.2f} of the truth's: below {SEPIA}, colours are on their way to sepia."
        )
    l1 = story.metrics.get("l1", {})
    mine, median = l1.get("generated"), l1.get("median")
    if mine is not None and median is not None and mine > median:
        found.append("One constant colour has a lower L1: look at the pictures, not at L1.")
    newest = {
        line["about"]: line
        for line in story.others
        if line["kind"] == "warning" and line["about"] not in _NOW
    }
    return found + [f"At step {line['step']:,}: {line['text']}." for line in newest.values()]

"""Scores as text: tables for terminals and for Markdown, with a caption and notes."""

from __future__ import annotations

from colortrain.metrics.registry import Metric, Scores, metric_named

COLUMNS = ("generated", "grey", "median", "truth")  # versions of the images, as keys of scores
HEAD = (
    "metric",
    "better",
    "generated",
    "95 %",
    "vs. grayscale",
    "grayscale",
    "median colour",
    "truth",
)
LABELS = dict(zip(COLUMNS, (HEAD[2], *HEAD[-3:]), strict=True))  # column titles


def table_rows(scores: Scores) -> list[list[str]]:
    """Return the rows of the table of scores: one row per metric, a text per column.

    `HEAD` contains the titles of the columns.
    """
    return [_row(metric_named(name), scores) for name in scores["metrics"]]


def _row(metric: Metric, scores: Scores) -> list[str]:
    values = scores["metrics"][metric.name]
    spreads = scores.get("deviations", {}).get(metric.name, {})
    generated, *others = (metric.text(values.get(v), spreads.get(v)) for v in COLUMNS)
    ends = scores.get("intervals", {}).get(metric.name, {}).get("generated", ())
    interval = " to ".join(map(metric.text, ends))
    comparison = compared_with_grayscale(scores, metric.name)
    return [metric.label, metric.symbol, generated, interval, comparison, *others]


def compared_with_grayscale(scores: Scores, name: str) -> str:
    """Return whether generated images score better than the grayscale baseline.

    The result, for the metric `name`, is "better", "worse" or "level". It is "level" if
    the 95 % interval of the difference contains 0. It is "" if there is no interval, or
    if neither higher nor lower values of the metric are better.
    """
    direction = metric_named(name).direction
    ends = scores.get("intervals", {}).get(name, {}).get("generated - grey")
    if not ends or direction not in ("lower", "higher"):
        return ""
    low, high = ends if direction == "higher" else (-ends[1], -ends[0])
    return "better" if low > 0 else "worse" if high < 0 else "level"


def has_caption(scores: Scores) -> bool:
    """Return whether `scores` contains what `caption` and `notes` need."""
    needed = {"dataset_id", "split", "size", "fit", "dropout", "lightness", "median"}
    return "samples" in scores and needed <= scores.get("protocol", {}).keys()


def caption(scores: Scores) -> str:
    """Return a line that says on which samples the scores were measured, and how."""
    protocol = scores["protocol"]
    median = protocol["median"]
    source = median["split"]
    if median["oracle"]:
        source += ", the split that is scored (an oracle)"
    return (
        f"{scores['samples']:,} samples of {protocol['split']} of {protocol['dataset_id']}, "
        f"{protocol['size']} px ({protocol['fit']}), "
        f"dropout {'on' if protocol['dropout'] else 'off'}, "
        f"L {'generated' if protocol['lightness'] == 'made' else 'given'}; "
        f"median a, b = {median['ab'][0]:g}, {median['ab'][1]:g} of {source}"
    )


def notes(scores: Scores) -> list[str]:
    """Return the notes under a table of scores, one line of text each.

    They are about intervals, deviations, feature extractors and missing metrics.
    """
    protocol = scores["protocol"]
    lines = []
    if "intervals" in scores:
        lines.append(
            "95 %: bootstrap over images; vs. grayscale: from the differences per image; "
            "metrics of whole sets have no interval"
        )
    lines += [
        f"{metric_named(name).label}: ± the standard deviation over {parts}"
        for name, parts in protocol.get("deviations", {}).items()
    ]
    by_facts: dict[tuple[str, ...], list[str]] = {}
    for name, facts in protocol.get("extractors", {}).items():
        key = (facts["extractor"], facts["weights"], f"resize {facts['resize']}")
        by_facts.setdefault(key, []).append(name)
    lines += [
        f"{', '.join(names)}: {', '.join(facts)}; n = {scores['samples']:,}"
        for facts, names in by_facts.items()
    ]
    missing = protocol.get("left_out", {}).items()
    return lines + [f"not computed: {names}; requires {how}" for names, how in missing]


def text_table(scores: Scores) -> str:
    """Return the scores as a plain-text table, with a caption and notes."""
    lines = [list(HEAD), *table_rows(scores)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([caption(scores), *(line.rstrip() for line in text), *notes(scores)]) + "\n"

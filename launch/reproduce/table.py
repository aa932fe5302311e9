"""Write the table of `colortrain reproduce` as Markdown.

In all functions, `results` has one dict with the scores and the cost of each network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS
from colortrain.metrics.score_tables import COLUMNS, LABELS
from colortrain.recipes import get_recipe
from launch.compare import differences_note, row_name
from launch.reproduce.datasets import NAZERI

# The metrics that are printed and their column heads. Decimals and directions are in
# `colortrain.metrics.registry.METRICS`.
HEADS = {
    "mae": "MAE",
    "accuracy_2": "acc. 2 %",
    "accuracy_5": "acc. 5 %",
    "accuracy_ab_2": "acc. 2 %, ab",
    "accuracy_ab_5": "acc. 5 %, ab",
    "l1": "L1",
    "psnr": "PSNR",
    "psnr_pooled": "PSNR, pooled",
    "ssim": "SSIM",
    "frechet_classifier": "Fréchet distance, classifier",
    "frechet_lab": "Fréchet distance, Lab fields",
    "colourfulness_ratio": "colourfulness / truth",
    "bright_spots": "bright spots, %",
    "sepia": "sepia",
}


def markdown(table: str, results: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """Return the caption, the table, the training curves and the notes as Markdown.

    table: its name, such as "nazeri"; facts: the conditions of the scores, such as
    device and data.
    """
    shown = [name for name in HEADS if first_scores(name, results)]
    head = ["network", "seed", *(HEADS[name] for name in shown), "seconds", "peak MB", "parameters"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    lines.append(["better", "", *(METRICS[name].symbol for name in shown), "", "", ""])
    lines += [baseline_row(version, results, shown) for version in COLUMNS[1:]]
    if table == "nazeri":
        trained = {result["recipe"] for result in results}
        lines += [published_row(name, shown) for name in NAZERI if name in trained]
    best = {name: best_value(name, results) for name in shown}
    lines += [network_row(result, shown, best) for result in results]
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return (
        "\n".join(
            [
                *caption(facts),
                "",
                *rows,
                *curves(results),
                "",
                *notes(facts),
                *differences_note(results),
            ]
        )
        + "\n"
    )


def best_value(metric: str, results: Sequence[dict[str, Any]]) -> float | None:
    """Return the best value of a metric among all networks, or None if none has it."""
    values = [value for row in results if (value := generated_score(metric, row)) is not None]
    truth = first_scores(metric, results).get("truth", 1.0)
    return min(values, key=lambda value: METRICS[metric].distance(value, truth), default=None)


def network_row(
    result: dict[str, Any], shown: Sequence[str], best: dict[str, float | None]
) -> list[str]:
    """Return the row of a trained network, with its scores and its cost, for the table.

    shown: metrics that have a column; best: the best value of each, which is set in
    bold.
    """
    cells = []
    for name in shown:
        value, text = generated_score(name, result), _number(generated_score(name, result), name)
        cells.append(f"**{text}**" if text and value == best[name] else text)
    cost = [f"{result['seconds']:.0f}", f"{result['peak_mb']:.0f}", f"{result['parameters']:,}"]
    return [row_name(result), str(result["seed"]), *cells, *cost]


def generated_score(metric: str, result: dict[str, Any]) -> float | None:
    """Return a metric of the images that a network generated, or None."""
    # Missing if colortrain did not have the metric when the network was scored.
    value: float | None = result["metrics"].get(metric, {}).get("generated")
    return value


def first_scores(metric: str, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the values of a metric by image version: "generated", "grey", "truth", ...

    They are from the first network that has the metric; {} if none has it.
    """
    # Used for the baselines, whose values are the same for all networks.
    return next((row["metrics"][metric] for row in results if metric in row["metrics"]), {})


def baseline_row(
    version: str, results: Sequence[dict[str, Any]], shown: Sequence[str]
) -> list[str]:
    """Return the row of a baseline, with its scores, for the table of `reproduce`.

    version: the baseline, "grey", "median" or "truth"; shown: metrics that have a
    column.
    """
    values = (first_scores(name, results).get(version) for name in shown)
    cells = [_number(value, name) for value, name in zip(values, shown, strict=True)]
    return [f"*{LABELS[version]}*", "", *cells, "", "", ""]


def published_row(name: str, shown: Sequence[str]) -> list[str]:
    """Return the row with the scores that the paper of the recipe `name` reports.

    shown: metrics that have a column in the table.
    """
    values = get_recipe(name).headline.values()
    cells = [_number(values.get(metric), metric) for metric in shown]
    return [f"{name}, the paper", "", *cells, "", "", ""]


def curves(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of the scores at all checkpoints, or no lines."""
    # For Nazeri's table; for other tables, only the last checkpoint is scored.
    points = [(result["recipe"], point) for result in results for point in result.get("curve", [])]
    if not points:
        return []
    head = [
        "",
        "| network | images | MAE | acc. 2 % | acc. 5 % |",
        "| --- | --: | --: | --: | --: |",
    ]
    return head + [
        f"| `{name}` | {point['images']:,} | {point['mae']:.2f} | {point['accuracy_2']:.1f} "
        f"| {point['accuracy_5']:.1f} |"
        for name, point in points
    ]


def caption(facts: dict[str, Any]) -> list[str]:
    """Return the caption: how many images were used for training and for scores."""
    base_channels = facts["base_channels"]
    width = "published size" if base_channels is None else f"{base_channels} base channels"
    reasons = (f"{count:,} {reason}" for reason, count in facts["left_out"].items())
    return [
        f"Each network was trained on {facts['images']:,} images out of "
        f"{facts['training_pictures']:,} (left out: {', '.join(reasons) or 'none'}), "
        f"{facts['size']} px, {width}, batch sizes as in each recipe; scored on "
        f"{facts['held_out_pictures']:,} images of {facts['held_out']}."
    ]


def notes(facts: dict[str, Any]) -> list[str]:
    """Return the notes below the table: device, code, meaning of some columns."""
    machine = facts["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    processes = ", ".join(map(str, facts["processes"])) or "unknown"
    load = ", ".join(f"{value:.1f}" for value in machine["load_average"])
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {gpus}, load average {load} at the end; "
        f"{machine['date']}; commit {facts['commit'] or 'unknown'}, networks trained at "
        f"{', '.join(facts['trained_at'])}, mixed precision {', '.join(facts['mixed_precision'])}, "
        f"processes per network: {processes}; "
        f"peak MB of {' or '.join(facts['peak_of'])}. Accuracy and MAE include L, which is exact "
        "for networks that take L as input and do not change it.",
    ]
    if facts["judge"]:
        lines.append(f"Fréchet distance: {facts['judge']}.")
    if facts["another_judges"]:
        lines.append(
            "Not in the table, because they were scored with another classifier: "
            f"{', '.join(facts['another_judges'])}."
        )
    return lines


def _number(value: float | None, metric: str) -> str:
    return "" if value is None else f"{value:.{METRICS[metric].decimals}f}"

"""The table as Markdown: one line a network, grey and the papers' own figures beside them, conditions below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS
from colortrain.recipes import get_recipe
from launch.reproduce.datasets import NAZERI

# What is printed, and under which head; decimals and which way is better stand in `colortrain.metrics.registry.METRICS`.
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
    "fid": "Fréchet distance, classifier",
    "frechet_lab": "Fréchet distance, Lab fields",
    "colourfulness_ratio": "colourfulness / truth",
    "bright_spots": "bright spots, %",
    "sepia": "sepia",
}
_DECIMALS = {"fid": 3}  # a small classifier's distances are below 1


def markdown(table: str, results: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The whole text."""
    shown = [name for name in HEADS if reference(name, results)]
    head = ["network", "seed", *(HEADS[name] for name in shown), "seconds", "peak MB", "parameters"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    lines.append(["better", "", *(METRICS[name].symbol for name in shown), "", "", ""])
    lines += [baseline(version, results, shown) for version in ("grey", "median", "truth")]
    if table == "nazeri":
        lines += [
            published(name, shown)
            for name in dict.fromkeys(result["recipe"] for result in results)
            if name in NAZERI
        ]
    best = {name: closest(name, results) for name in shown}
    lines += [line(result, shown, best) for result in results]
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*caption(facts), "", *rows, *curves(results), "", *notes(facts)]) + "\n"


def closest(metric: str, results: Sequence[dict[str, Any]]) -> float | None:
    """The best that any network reached: the highest, the lowest, or the nearest to what the truth has."""
    values = [value for row in results if (value := generated(metric, row)) is not None]
    truth = reference(metric, results).get("truth", 1.0)
    return min(values, key=lambda value: METRICS[metric].distance(value, truth), default=None)


def line(result: dict[str, Any], shown: Sequence[str], best: dict[str, float | None]) -> list[str]:
    """One network's figures, the best of their columns in bold, and what they cost."""
    cells = []
    for name in shown:
        value, text = generated(name, result), _number(generated(name, result), name)
        cells.append(f"**{text}**" if text and value == best[name] else text)
    cost = [f"{result['seconds']:.0f}", f"{result['peak_mb']:.0f}", f"{result['parameters']:,}"]
    return [f"`{result['recipe']}`", str(result["seed"]), *cells, *cost]


def generated(metric: str, result: dict[str, Any]) -> float | None:
    """One network's figure; None if it was scored before there was such a metric."""
    value: float | None = result["metrics"].get(metric, {}).get("generated")
    return value


def reference(metric: str, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """A metric of the first network that was scored by it; empty if none was."""
    return next((row["metrics"][metric] for row in results if metric in row["metrics"]), {})


def baseline(version: str, results: Sequence[dict[str, Any]], shown: Sequence[str]) -> list[str]:
    """Grey, the median colour, or the truth."""
    return [
        f"*{version}*",
        "",
        *(_number(reference(name, results).get(version), name) for name in shown),
        "",
        "",
        "",
    ]


def published(name: str, shown: Sequence[str]) -> list[str]:
    """What the paper says of a network."""
    values = get_recipe(name).headline.values()
    return [
        f"{name}, the paper",
        "",
        *(_number(values.get(metric), metric) for metric in shown),
        "",
        "",
        "",
    ]


def curves(results: Sequence[dict[str, Any]]) -> list[str]:
    """Nazeri's figures along the trainings that were scored on their way."""
    points = [(result["recipe"], point) for result in results for point in result.get("curve", [])]
    if not points:
        return []
    head = [
        "",
        "| on the way | images | MAE | acc. 2 % | acc. 5 % |",
        "| --- | --: | --: | --: | --: |",
    ]
    return head + [
        f"| `{name}` | {at['images']:,} | {at['mae']:.2f} | {at['accuracy_2']:.1f} | {at['accuracy_5']:.1f} |"
        for name, at in points
    ]


def caption(facts: dict[str, Any]) -> list[str]:
    """What was trained on what, and scored on what."""
    width = (
        "published size"
        if facts["base_channels"] is None
        else f"{facts['base_channels']} base channels"
    )
    left_out = (
        ", ".join(f"{count:,} {reason}" for reason, count in facts["left_out"].items()) or "none"
    )
    return [
        f"{facts['images']:,} images seen by each network, of {facts['training_pictures']:,} (left out: {left_out}), "
        f"{facts['size']} px, {width}, batches as each recipe says; scored on {facts['held_out_pictures']:,} pictures, "
        f"{facts['held_out']}."
    ]


def notes(facts: dict[str, Any]) -> list[str]:
    """How to read some of the columns, the device, and the code."""
    machine = facts["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    load = ", ".join(f"{value:.1f}" for value in machine["load_average"])
    found = [
        f"{machine['cpu']}, {machine['cores']} cores, {gpus}, load average {load} at the end; {machine['date']}; "
        f"commit {facts['commit'] or 'unknown'}, networks trained at {', '.join(facts['trained_at'])}, "
        f"mixed precision {', '.join(facts['mixed_precision'])}; peak MB of {' or '.join(facts['peak_of'])}. "
        "Accuracy and MAE count L; a network that is given L has it right.",
    ]
    if facts["judge"]:
        found.append(f"Fréchet distance: {facts['judge']}.")
    if facts["another_judges"]:
        found.append(
            f"Not in the table, for another judge scored them: {', '.join(facts['another_judges'])}."
        )
    return found


def _number(value: float | None, metric: str) -> str:
    return "" if value is None else f"{value:.{_DECIMALS.get(metric, METRICS[metric].decimals)}f}"

"""The table as Markdown: one line a network, grey and the papers' own figures beside them, conditions below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What is printed: metric, head, decimals, and which way is better: 1 up, -1 down, 0 towards 1 or the truth.
COLUMNS = (
    ("mae", "MAE", 2, -1), ("accuracy_2", "acc. 2 %", 1, 1), ("accuracy_5", "acc. 5 %", 1, 1),
    ("accuracy_ab_2", "acc. 2 %, ab", 1, 1), ("accuracy_ab_5", "acc. 5 %, ab", 1, 1), ("l1", "L1", 4, -1),
    ("psnr", "PSNR", 2, 1), ("psnr_pooled", "PSNR, pooled", 2, 1), ("ssim", "SSIM", 4, 1),
    ("fid", "Fréchet distance, classifier", 3, -1), ("frechet_lab", "Fréchet distance, Lab fields", 1, -1),
    ("colourfulness_ratio", "colourfulness / truth", 3, 0), ("bright_spots", "bright spots, %", 3, -1),
    ("sepia", "sepia", 3, 0),
)  # fmt: skip
_ARROWS = {1: "↑", -1: "↓", 0: "→ truth"}
PUBLISHED = {  # nazeri, table 1: MAE, accuracy at 2 % and 5 %
    "nazeri_gan": {"mae": 5.1, "accuracy_2": 24.1, "accuracy_5": 65.5},
    "nazeri_unet_l2": {"mae": 7.9, "accuracy_2": 13.7, "accuracy_5": 37.2},
}


def markdown(table: str, results: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The whole text."""
    shown = [column for column in COLUMNS if column[0] in results[0]["metrics"]]
    head = ["network", "seed", *(title for _, title, _, _ in shown), "seconds", "peak MB", "parameters"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    lines.append(["better", "", *(_ARROWS[better] for *_, better in shown), "", "", ""])
    lines += [baseline(version, results[0], shown) for version in ("grey", "median", "truth")]
    if table == "nazeri":
        lines += [published(name, shown) for name in PUBLISHED if name in {result["recipe"] for result in results}]
    best = {name: closest(name, better, results) for name, _, _, better in shown}
    lines += [line(result, shown, best) for result in results]
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*caption(facts), "", *rows, *curves(results), "", *notes(facts)]) + "\n"


def closest(metric: str, better: int, results: Sequence[dict[str, Any]]) -> float | None:
    """The best that any network reached: the highest, the lowest, or the nearest to what the truth has."""
    values = [value for row in results if (value := row["metrics"][metric].get("generated")) is not None]
    truth = results[0]["metrics"][metric].get("truth", 1.0)
    return min(values, key=lambda value: -better * value if better else abs(value - truth), default=None)


def line(
    result: dict[str, Any], shown: Sequence[tuple[str, str, int, int]], best: dict[str, float | None]
) -> list[str]:
    """One network's figures, the best of their columns in bold, and what they cost."""
    cells = []
    for name, _, decimals, _ in shown:
        value = result["metrics"][name].get("generated")
        cells.append(f"**{_number(value, decimals)}**" if value == best[name] else _number(value, decimals))
    cost = [_number(result["seconds"], 0), _number(result["peak_mb"], 0), f"{result['parameters']:,}"]
    return [f"`{result['recipe']}`", str(result["seed"]), *cells, *cost]


def baseline(version: str, result: dict[str, Any], shown: Sequence[tuple[str, str, int, int]]) -> list[str]:
    """Grey, the median colour, or the truth."""
    cells = [_number(result["metrics"][name].get(version), decimals) for name, _, decimals, _ in shown]
    return [f"*{version}*", "", *cells, "", "", ""]


def published(name: str, shown: Sequence[tuple[str, str, int, int]]) -> list[str]:
    """What the paper says of a network."""
    cells = [_number(PUBLISHED[name].get(metric), decimals) for metric, _, decimals, _ in shown]
    return [f"{name}, the paper", "", *cells, "", "", ""]


def curves(results: Sequence[dict[str, Any]]) -> list[str]:
    """Nazeri's figures along the trainings that were scored on their way."""
    points = [(result["recipe"], point) for result in results for point in result.get("curve", [])]
    if not points:
        return []
    head = ["", "| on the way | images | MAE | acc. 2 % | acc. 5 % |", "| --- | --: | --: | --: | --: |"]
    return head + [
        f"| `{name}` | {at['images']:,} | {at['mae']:.2f} | {at['accuracy_2']:.1f} | {at['accuracy_5']:.1f} |"
        for name, at in points
    ]


def caption(facts: dict[str, Any]) -> list[str]:
    """What was trained on what, and scored on what."""
    width = "published size" if facts["base_channels"] is None else f"{facts['base_channels']} base channels"
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in facts["left_out"].items()) or "none"
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
        f"commit {facts['commit'] or 'unknown'}, networks trained at {', '.join(facts['trained_at'])}. "
        "Accuracy and MAE count L; a network that is given L has it right.",
    ]
    if facts["judge"]:
        found.append(f"Fréchet distance: {facts['judge']}.")
    return found


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"

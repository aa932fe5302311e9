"""Scores as text: what each metric is called, which way is better, tables for terminals and for Markdown."""

from __future__ import annotations

from typing import Any

Scores = dict[str, Any]

# What each metric is called, which way is better, and how many decimals are worth printing.
LABELS = {
    "l1": ("L1 of ab / 110", "↓", 4),
    "psnr": ("PSNR, mean of pictures, dB", "↑", 2),
    "psnr_pooled": ("PSNR, pooled, dB", "↑", 2),
    "ssim": ("SSIM", "↑", 4),
    "accuracy_2": ("accuracy at 2 %, L too, %", "↑", 1),
    "accuracy_5": ("accuracy at 5 %, L too, %", "↑", 1),
    "accuracy_ab_2": ("accuracy at 2 %, ab alone, %", "↑", 1),
    "accuracy_ab_5": ("accuracy at 5 %, ab alone, %", "↑", 1),
    "mae": ("MAE x 100, L too", "↓", 2),
    "mae_lab": ("MAE in Lab units, L too", "↓", 2),
    "colourfulness": ("colourfulness (M3)", "→ truth", 2),
    "colourfulness_ratio": ("colourfulness / truth", "→ 1", 3),
    "colourfulness_absolute": ("colourfulness, absolute variant", "→ truth", 2),
    "colourfulness_absolute_ratio": ("absolute variant / truth", "→ 1", 3),
    "frechet_lab": ("Fréchet distance of 4 x 4 Lab fields (not FID)", "↓", 1),
    "bright_spots": ("bright spots, % of pixels", "↓", 3),
    "sepia": ("sepia (one hue = 1)", "→ truth", 3),
}
COLUMNS = ("generated", "grey", "median", "truth")


def table_rows(scores: Scores) -> list[list[str]]:
    """The scores as text, a row a metric: name, which way is better, then `COLUMNS`."""
    rows = []
    for name, values in scores["metrics"].items():
        label, better, decimals = LABELS.get(name, (name, "", 4))
        shown = [f"{values[column]:.{decimals}f}" if column in values else "" for column in COLUMNS]
        rows.append([label, better, *shown])
    return rows


def caption(scores: Scores) -> str:
    """What the numbers were measured on, in one line."""
    protocol = scores["protocol"]
    median = protocol["median"]
    learnt = f"{median['split']}, the split scored (an oracle)" if median["oracle"] else median["split"]
    return (
        f"{scores['samples']:,} samples of {protocol['split']} of {protocol['dataset_id']}, {protocol['size']} px "
        f"({protocol['fit']}), dropout {'on' if protocol['dropout'] else 'off'}, "
        f"L {'of its own' if protocol['lightness'] == 'made' else 'given'}; "
        f"median a, b = {median['ab'][0]:g}, {median['ab'][1]:g} of {learnt}"
    )


def markdown_table(scores: Scores) -> str:
    """The scores as a Markdown table under a caption."""
    head = ["metric", "better", *COLUMNS]
    lines = [head, ["---", ":-:", *["--:"] * len(COLUMNS)], *table_rows(scores)]
    return "\n".join([caption(scores), "", *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def text_table(scores: Scores) -> str:
    """The scores as aligned columns under a caption, for a terminal or a log."""
    lines = [["metric", "better", *COLUMNS], *table_rows(scores)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([caption(scores), *(line.rstrip() for line in text)]) + "\n"

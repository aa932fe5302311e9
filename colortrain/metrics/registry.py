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
    "fid": ("FID", "↓", 2),
    "fid_diagonal": ("arun's FID, of the diagonal alone", "↓", 2),
    "kid": ("KID", "↓", 5),
    "inception_score": ("inception score", "↑", 3),
    "lpips": ("LPIPS (VGG-16)", "↓", 4),
    "vgg_distance": ("VGG distance", "↓", 4),
    "frechet_lab": ("Fréchet distance of 4 x 4 Lab fields (not FID)", "↓", 1),
    "bright_spots": ("bright spots, % of pixels", "↓", 3),
    "sepia": ("sepia (one hue = 1)", "→ truth", 3),
}
COLUMNS = ("generated", "grey", "median", "truth")


HEAD = ("metric", "better", "generated", "95 %", "than grey", *COLUMNS[1:])
NEEDS_WEIGHTS = ("fid", "fid_diagonal", "kid", "inception_score", "lpips", "vgg_distance")


def table_rows(scores: Scores) -> list[list[str]]:
    """The scores as text, a row a metric, a cell for each of `HEAD`."""
    rows = []
    for name, values in scores["metrics"].items():
        label, better, decimals = LABELS.get(name, (name, "", 4))
        made, *others = [
            f"{values[column]:.{decimals}f}" if column in values else "" for column in COLUMNS
        ]
        low_high = scores.get("intervals", {}).get(name, {}).get("generated", ())
        between = " to ".join(f"{end:.{decimals}f}" for end in low_high)
        rows.append([label, better, made, between, than_grey(scores, name), *others])
    return rows


def than_grey(scores: Scores, name: str) -> str:
    """Whether generated pictures are "better" or "worse" than grey ones beyond chance, "level" if not; empty where
    neither can be said."""
    wanted = LABELS.get(name, ("", "", 0))[1]
    ends = scores.get("intervals", {}).get(name, {}).get("generated - grey")
    if not ends or wanted not in ("↓", "↑"):
        return ""
    low, high = ends if wanted == "↑" else (-ends[1], -ends[0])
    return "better" if low > 0 else "worse" if high < 0 else "level"


def caption(scores: Scores) -> str:
    """What the numbers were measured on, in one line."""
    protocol = scores["protocol"]
    median = protocol["median"]
    learnt = (
        f"{median['split']}, the split scored (an oracle)" if median["oracle"] else median["split"]
    )
    return (
        f"{scores['samples']:,} samples of {protocol['split']} of {protocol['dataset_id']}, {protocol['size']} px "
        f"({protocol['fit']}), dropout {'on' if protocol['dropout'] else 'off'}, "
        f"L {'of its own' if protocol['lightness'] == 'made' else 'given'}; "
        f"median a, b = {median['ab'][0]:g}, {median['ab'][1]:g} of {learnt}"
    )


def notes(scores: Scores) -> list[str]:
    """What intervals are, what networks judged with which weights, and what was left out, a line each."""
    protocol = scores["protocol"]
    lines = []
    if "intervals" in scores:
        lines.append(
            "95 %: bootstrap over pictures; than grey: by differences of the same ones; metrics of whole sets have none"
        )
    by_facts: dict[tuple[str, ...], list[str]] = {}
    for name, facts in protocol.get("extractors", {}).items():
        by_facts.setdefault(
            (facts["extractor"], facts["weights"], f"resize {facts['resize']}"), []
        ).append(name)
    lines += [
        f"{', '.join(names)}: {', '.join(facts)}; n = {scores['samples']:,}"
        for facts, names in by_facts.items()
    ]
    return lines + [
        f"left out: {names}; give {how}" for names, how in protocol.get("left_out", {}).items()
    ]


def markdown_table(scores: Scores) -> str:
    """The scores as a Markdown table under a caption, notes below."""
    lines = [HEAD, ["---", ":-:", *["--:"] * (len(HEAD) - 2)], *table_rows(scores)]
    table = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([caption(scores), "", *table, *("\n" + note for note in notes(scores))]) + "\n"


def text_table(scores: Scores) -> str:
    """The scores as aligned columns under a caption, for a terminal or a log, notes below."""
    lines = [list(HEAD), *table_rows(scores)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([caption(scores), *(line.rstrip() for line in text), *notes(scores)]) + "\n"

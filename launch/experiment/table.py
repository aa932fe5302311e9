"""Write the table of an experiment as Markdown.

In all functions, `results` has one dict with the scores and the cost of each network,
and `shown` has the names of the metrics that have a column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from colortrain.metrics.registry import METRICS
from colortrain.metrics.score_tables import COLUMNS, LABELS
from colortrain.recipe import Recipe
from colortrain.recipes import RECIPES, get_recipe

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
    "rmse": "RMSE",
    "vgg_distance": "VGG distance",
    "lpips": "LPIPS, VGG-16",
    "lpips_squeeze": "LPIPS, SqueezeNet",
    "fid": "FID",
    "fid_diagonal": "FID variant (not FID)",
    "inception_score": "inception score",
    "frechet_squeezenet": "Fréchet distance, SqueezeNet",
    "frechet_classifier": "Fréchet distance, classifier",
    "frechet_lab": "Fréchet distance, Lab fields",
    "colourfulness_ratio": "colourfulness / truth",
    "bright_spots": "bright spots, %",
    "sepia": "sepia",
}


def markdown(results: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """Return the caption, the table and the notes as Markdown.

    facts: the conditions of the scores, such as device and data.
    """
    shown = columns(results, facts["metrics"])
    head = ["network", "seed", *(HEADS[name] for name in shown), "seconds", "peak MB", "parameters"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    lines.append(["better", "", *(METRICS[name].symbol for name in shown), "", "", ""])
    lines += [baseline_row(version, results, shown) for version in COLUMNS[1:]]
    published = published_rows(results, shown)
    best = {name: best_value(name, results) for name in shown}
    lines += [*published, *(network_row(result, shown, best) for result in results)]
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    remarks = [*notes(facts), *published_note(results, bool(published)), *differences_note(results)]
    return "\n".join([*caption(facts), "", *rows, "", *remarks]) + "\n"


def columns(results: Sequence[dict[str, Any]], first: Sequence[str]) -> list[str]:
    """Return the names of the metrics that have a column.

    first: metrics whose columns come first, in this order; those without any score have
    a column only if a paper reports them.
    """
    reported = {name for row in _recipes(results) for name in row.headline.values()}
    names = [name for name in dict.fromkeys([*first, *HEADS]) if name in HEADS]
    return [
        name
        for name in names
        if first_scores(name, results) or (name in first and name in reported)
    ]


def _recipes(results: Sequence[dict[str, Any]]) -> list[Recipe]:
    """Return the published recipes of the results, each once, in their order."""
    names = dict.fromkeys(row["recipe"] for row in results)
    return [get_recipe(name) for name in names if name in RECIPES]


def best_value(metric: str, results: Sequence[dict[str, Any]]) -> float | None:
    """Return the best value of a metric among all networks, or None if none has it."""
    values = [value for row in results if (value := generated_score(metric, row)) is not None]
    truth = first_scores(metric, results).get("truth", 1.0)
    # a network that has diverged has scores that are not finite
    finite = [value for value in values if math.isfinite(value)]
    return min(finite, key=lambda value: METRICS[metric].distance(value, truth), default=None)


def network_row(
    result: dict[str, Any], shown: Sequence[str], best: dict[str, float | None]
) -> list[str]:
    """Return the row of a trained network, with its scores and its cost, for the table.

    best: the best value of each metric, which is set in bold.
    """
    cells = []
    for name in shown:
        value = generated_score(name, result)
        text = _number(value, name, deviation(name, "generated", result))
        cells.append(f"**{text}**" if text and value == best[name] else text)
    cost = [f"{result['seconds']:.0f}", f"{result['peak_mb']:.0f}", f"{result['parameters']:,}"]
    return [row_name(result), str(result["seed"]), *cells, *cost]


def row_name(result: dict[str, Any]) -> str:
    """Return the name of a network in a table, and what it lacks of the paper's."""
    different = result.get("differences") or []
    return f"`{result['network']}`" + (f" ({', '.join(different)})" if different else "")


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
    """Return the row of a baseline, with its scores, for the table.

    version: the baseline, "grey", "median" or "truth".
    """
    cells = [
        _number(
            first_scores(name, results).get(version),
            name,
            next((spread for row in results if (spread := deviation(name, version, row))), None),
        )
        for name in shown
    ]
    return [f"*{LABELS[version]}*", "", *cells, "", "", ""]


def published_rows(results: Sequence[dict[str, Any]], shown: Sequence[str]) -> list[list[str]]:
    """Return a row with the paper's scores for each recipe whose paper has any."""
    rows = []
    for recipe in _recipes(results):
        values = recipe.headline.values()
        if cells := [_number(values.get(metric), metric) for metric in shown if values]:
            source = f"{recipe.name}, the paper's {recipe.headline.source}"
            rows.append([source, "", *cells, "", "", ""])
    return rows


def caption(facts: dict[str, Any]) -> list[str]:
    """Return the caption: how many images were used for training and for scores."""
    base_channels, images = facts["base_channels"], facts["images"]
    width = "published width" if base_channels is None else f"{base_channels} base channels"
    dataset_size = facts["training_images"]
    length = "for the epochs of its paper"
    if images is not None:
        length = f"on {images:,} images, {images / dataset_size:.3g} epochs"
    reasons = (f"{count:,} {reason}" for reason, count in facts["left_out"].items())
    return [
        f"Each network was trained {length} of {dataset_size:,} (left out: "
        f"{', '.join(reasons) or 'none'}), {facts['size']} px, {width}, batch sizes as in each "
        f"recipe; scored on {facts['scored_images']:,} images of {facts['scored']}, dropout as in "
        "each recipe."
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
    if facts["note"]:
        lines.append(facts["note"])
    if facts["classifier"]:
        lines.append(f"Fréchet distance: {facts['classifier']}.")
    if facts["other_classifiers"]:
        lines.append(
            "Not in the table, because they were scored with another classifier: "
            f"{', '.join(facts['other_classifiers'])}."
        )
    return lines


def published_note(results: Sequence[dict[str, Any]], has_rows: bool) -> list[str]:
    """Return a note on what the papers' own scores describe, and papers without scores.

    has_rows: whether the table has rows with scores of papers.
    """
    recipes = _recipes(results)
    sizes = sorted({f"{each.size} px" for each in recipes if each.headline.figures})
    lines = [
        "Rows of papers have the scores that the authors report for their own networks and "
        f"photographs ({', '.join(sizes)}): they are comparable with the rows below only as far "
        "as data, size and length are the published ones."
    ]
    remarks = [f"{each.name}: {each.headline.text()}." for each in recipes if each.headline.note]
    return [*(lines if has_rows else []), *remarks]


def differences_note(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return a note about the rows that lack something of their papers, or no note."""
    if not any(result.get("differences") for result in results):
        return []
    return [
        "Rows with a remark in brackets are not their papers' systems as published: --vgg16 and "
        "--resnet18 give pretrained weights, --stretch-schedules fits schedules to the run."
    ]


def deviation(metric: str, version: str, result: dict[str, Any]) -> float | None:
    """Return the standard deviation of a score over parts of the images, or None."""
    value: float | None = result.get("deviations", {}).get(metric, {}).get(version)
    return value


def _number(value: float | None, metric: str, deviation: float | None = None) -> str:
    return METRICS[metric].text(value, deviation)

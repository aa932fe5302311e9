"""Draw the figures of an experiment: sample photographs and curves of all networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import generate
from colortrain.metrics.registry import metric_named
from colortrain.metrics.score_tables import LABELS
from colortrain.runs.checkpoint import load_generator
from colortrain.runs.history import read_journal
from colortrain.visualize import save_png, smooth, titled_grid, to_grayscale
from shards.color import gamut_mapped_rgb
from shards.errors import UserError
from shards.files import open_atomic
from shards.read.dataset import Split, open_held_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PHOTOS = 8  # rows of the image
_GRAYSCALE = LABELS["grey"]
_COLUMNS = 3  # panels in a row of the curves
_VALIDATED = ("l1", "psnr", "colourfulness_ratio")  # metrics with a panel in all experiments
Lines = list[dict[str, Any]]


def open_photos(shards: Path, size: int) -> Split:
    """Return the held-out split of `shards`, whose photographs are to be drawn.

    Raises UserError unless its samples have `size` pixels.
    """
    split = open_held_out(shards)
    if split.manifest.size != size:
        raise UserError(
            f"--photos {shards} has samples of {split.manifest.size} px, but the networks are "
            f"trained at {size} px: give other shards"
        )
    return split


def draw_samples(runs: dict[str, Path], split: Split, out: Path) -> None:
    """Draw photographs as each run colorizes them, and write the image to `out`.

    runs: run folders by the network's name, one per column; split: samples of the
    networks' size, of which eight are drawn, one per row.
    """
    chosen = np.unique(np.linspace(0, len(split) - 1, _PHOTOS).round().astype(int))
    lab = stored_to_lab(torch.from_numpy(split.read(chosen)))
    columns = [[to_grayscale(one) for one in lab.numpy()]]
    for run in runs.values():
        generator, recipe, _ = load_generator(run)
        generated = generate(generator, recipe.codec, lab, dropout=recipe.test_dropout)
        columns.append(list(generated.numpy()))
    columns.append(list(lab.numpy()))
    rows = [[gamut_mapped_rgb(image) for image in row] for row in zip(*columns, strict=True)]
    titles = [LABELS["grey"], *(name.replace("_", "\n", 1) for name in runs), LABELS["truth"]]
    save_png(titled_grid(rows, titles), out)


def draw_curves(runs: dict[str, Path], metrics: Sequence[str], out: Path) -> None:
    """Draw the curves of all runs by epoch, and write the image to `out`.

    There is a panel for each training loss, with a line per run, and one for each
    metric of the validations, also for those named in `metrics`.
    """
    # Imported here, because it needs a folder for its cache.
    from matplotlib.figure import Figure

    journals = {name: read_journal(run) for name, run in runs.items()}
    shown = list(dict.fromkeys([*metrics, *_VALIDATED]))
    panels = [*_loss_panels(journals), *_metric_panels(journals, shown)]
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 3.6 * rows + 0.6), dpi=100, layout="constrained")
    places = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    colors = {name: f"C{number % 10}" for number, name in enumerate(journals)}
    colors[_GRAYSCALE] = "dimgrey"
    for axes, (title, curves) in zip(places, panels, strict=False):
        _draw_panel(axes, title, curves, colors)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    handles = [
        figure.axes[0].plot([], [], color=color, linestyle=_line_style(name))[0]
        for name, color in colors.items()
    ]
    figure.legend(handles, list(colors), loc="outside lower center", ncols=4, fontsize=9)
    with open_atomic(out) as stream:
        figure.savefig(stream, format="png")


Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # epochs and values by the run's name


def _loss_panels(journals: dict[str, Lines]) -> Iterator[tuple[str, Curves]]:
    """Yield a title and the curves of all runs for each loss that any run has."""
    training = {name: _of_kind(lines, "train") for name, lines in journals.items()}
    losses = {loss for lines in training.values() for line in lines for loss in line["losses"]}
    for loss in sorted(each for each in losses if not each.startswith("score_")):
        curves = {name: _curve(lines, "losses", loss) for name, lines in training.items()}
        yield f"training: {loss}", curves


def _metric_panels(
    journals: dict[str, Lines], metrics: Sequence[str]
) -> Iterator[tuple[str, Curves]]:
    """Yield a title and the curves of all runs for each validated metric."""
    validated = {name: _of_kind(lines, "validation") for name, lines in journals.items()}
    longest = max(validated.values(), key=len)
    for metric in metrics:
        curves = {
            name: _curve(_version(lines, "generated"), "metrics", metric)
            for name, lines in validated.items()
        }
        if any(len(epochs) for epochs, _ in curves.values()):
            gray = _curve(_version(longest, "grey"), "metrics", metric)
            yield f"validation: {metric_named(metric).label}", {**curves, _GRAYSCALE: gray}


def _version(lines: Lines, version: str) -> Lines:
    """Return validations with the scores of one version of the images only."""
    return [
        {**line, "metrics": {name: each.get(version) for name, each in line["metrics"].items()}}
        for line in lines
    ]


def _of_kind(lines: Lines, kind: str) -> Lines:
    return [line for line in lines if line["kind"] == kind]


def _curve(lines: Lines, group: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs (N,) and values (N,) of a loss or metric; N may be 0."""
    points = [
        (line["epoch"], line[group][name])
        for line in lines
        if "epoch" in line and line.get(group, {}).get(name) is not None
    ]
    epochs, values = np.array(points, dtype=float).reshape(-1, 2).T
    return epochs, values


def _draw_panel(axes: Axes, title: str, curves: Curves, colors: dict[str, str]) -> None:
    for name, (epochs, values) in curves.items():
        marker = "o" if title.startswith("validation") else ""
        (line,) = axes.plot(epochs, smooth(values), color=colors[name], linewidth=1.3)
        line.set(marker=marker, markersize=3, linestyle=_line_style(name))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.25)


def _line_style(name: str) -> str:
    return "--" if name == _GRAYSCALE else "-"

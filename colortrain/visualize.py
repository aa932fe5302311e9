"""Pictures for people: sample grids with titled columns, full-size colouring, and the curves of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shards.color import lab_to_rgb, rgb_to_lab
from shards.files import open_atomic

_GAP = 4  # pixels between pictures
_TITLE = 18  # pixels of a title line
_LEGIBLE = 96  # pixels: smaller pictures are shown enlarged, or their titles would not fit


def sample_grid(truth: Tensor, generated: Tensor) -> np.ndarray:
    """Grey | generated | truth, one photo a row (two from five photos on): uint8 (H, W, 3).

    `truth` and `generated` are (B, 3, H, W) in CIELAB units.
    """
    rows = []
    for true, made in zip(
        truth.float().cpu().numpy(), generated.float().cpu().numpy(), strict=True
    ):
        rows.append([lab_to_rgb(to_grayscale(true)), lab_to_rgb(made), lab_to_rgb(true)])
    return titled_grid(
        rows, ["grey", "generated", "truth"], photos_per_row=1 if len(rows) < 5 else 2
    )


def to_grayscale(lab: np.ndarray) -> np.ndarray:
    """The same L without colour: (3, H, W) CIELAB units."""
    return np.concatenate([lab[:1], np.zeros_like(lab[1:])])


def titled_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], photos_per_row: int = 1
) -> np.ndarray:
    """Pictures of one size, (H, W, 3) uint8, on white: each row's side by side under `titles`, small gaps between."""
    assert rows, "a grid needs at least one row"
    height, width = rows[0][0].shape[:2]
    zoom = max(1, -(-_LEGIBLE // width))
    cell_height, cell_width = height * zoom + _GAP, width * zoom + _GAP
    block = (
        len(titles) * cell_width + 3 * _GAP
    )  # one photo's pictures, and more air before the next photo's
    lines, above = (
        -(-len(rows) // photos_per_row),
        _TITLE * max(title.count("\n") + 1 for title in titles),
    )
    across = min(photos_per_row, len(rows))
    canvas = Image.new(
        "RGB", (across * block - 2 * _GAP, above + lines * cell_height + _GAP), "white"
    )
    for number, row in enumerate(rows):
        top, left = (
            above + number // photos_per_row * cell_height,
            number % photos_per_row * block + _GAP,
        )
        for column, picture in enumerate(row):
            shown = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
            canvas.paste(Image.fromarray(shown), (left + column * cell_width, top))
    middles = [i * block + _GAP + (cell_width - _GAP) / 2 for i in range(across)]
    _write_titles(canvas, titles, middles, cell_width, above / 2)
    return np.asarray(canvas)


def _write_titles(
    canvas: Image.Image, titles: Sequence[str], middles: Sequence[float], cell_width: int, y: float
) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for first in middles:
        for column, title in enumerate(titles):
            place = (first + column * cell_width, y)
            draw.text(place, title, fill="black", font=font, anchor="mm", align="center")


def recolor(rgb: np.ndarray, ab: np.ndarray) -> None:
    """Give a picture other colours, in place: its own L at full resolution, joined with `ab` scaled up (bicubic).

    `rgb`: (H, W, 3) uint8; `ab`: (2, h, w) CIELAB units, which cover the same picture, squashed or not. Works through
    blocks of rows, so that a picture of 100 megapixels needs no more than its own 300 MB.
    """
    height, width = rgb.shape[:2]
    channels = [Image.fromarray(np.ascontiguousarray(channel, np.float32)) for channel in ab]
    rows = max(1, _BLOCK // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        box = (0, top * ab.shape[1] / height, ab.shape[2], bottom * ab.shape[1] / height)
        shape = (width, bottom - top)
        lab = rgb_to_lab(rgb[top:bottom])
        for place, channel in enumerate(channels, start=1):
            lab[place] = np.asarray(channel.resize(shape, Image.Resampling.BICUBIC, box=box))
        rgb[top:bottom] = lab_to_rgb(lab)


_BLOCK = 1 << 20  # pixels coloured at once


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 as PNG, whole or not at all."""
    with open_atomic(path) as stream:
        # level 6, the default, takes three times as long for a tenth less (50 megapixels: 32 s against 10 s)
        Image.fromarray(picture).save(stream, "PNG", compress_level=3)


def save_jpeg(picture: np.ndarray, path: Path, quality: int = 88) -> None:
    """Write (H, W, 3) uint8 as JPEG, whole or not at all."""
    with open_atomic(path) as stream:
        Image.fromarray(picture).save(stream, "JPEG", quality=quality, optimize=True)


def loss_curves(lines: Sequence[dict[str, Any]], out: Path) -> None:
    """Write a PNG of training losses, validation L1 and colourfulness, by images seen.

    `lines` are those of a run's journal (`colortrain.runs.history.read_journal`).
    """
    training = [line for line in lines if line.get("kind") == "train"]
    validation = [line for line in lines if line.get("kind") == "validation"]
    figure = Figure(figsize=(12, 7.5), dpi=100, layout="constrained")
    axes = figure.subplots(2, 2)
    names = sorted({name for line in training for name in line["losses"]})
    game = [name for name in names if name in _GAME]
    rest = [name for name in names if name not in _GAME and not name.startswith("score_")]
    _draw_losses(axes[0, 0], training, rest, "training: reconstruction (unweighted)")
    _draw_losses(axes[0, 1], training, game, "training: the adversarial game")
    _draw_metric(axes[1, 0], validation, "l1", "validation: L1 of ab / 110 (lower is better)")
    _draw_metric(
        axes[1, 1],
        validation,
        "colourfulness_ratio",
        "validation: colourfulness / truth (1 is right)",
    )
    with open_atomic(out) as stream:
        figure.savefig(stream, format="png")


_GAME = ("critic", "adversarial", "generator")
_MANY = 200  # points: from here on the curve is a running mean over a pale trace of the points


def _points(lines: list[dict[str, Any]], group: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    found = [
        (line["images"], line[group][name]) for line in lines if line[group].get(name) is not None
    ]
    images, values = np.array(found, dtype=float).reshape(-1, 2).T
    return images, values


def _draw_losses(axes: Axes, lines: list[dict[str, Any]], names: Sequence[str], title: str) -> None:
    smallest, largest = np.inf, -np.inf
    for name in names:
        images, values = _points(lines, "losses", name)
        smallest, largest = (
            min(smallest, values.min(initial=np.inf)),
            max(largest, values.max(initial=-np.inf)),
        )
        (curve,) = axes.plot(images, smooth(values), label=name, linewidth=1.5)
        if len(values) >= _MANY:
            axes.plot(images, values, color=curve.get_color(), alpha=0.2, linewidth=0.6, zorder=1)
    if 0 < 10 * smallest < largest:  # a Wasserstein critic's loss goes below 0
        axes.set_yscale("log")
    _finish(axes, title, "loss", bool(names))


def smooth(values: np.ndarray) -> np.ndarray:
    """The centred mean over a fiftieth of the points, where there are many; shorter windows at both ends."""
    if len(values) < _MANY:
        return values
    half = len(values) // 100
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _draw_metric(axes: Axes, lines: list[dict[str, Any]], metric: str, title: str) -> None:
    versions = {"generated": ("tab:blue", "-"), "grey": ("dimgrey", "--")}
    flat = [{**line, "shown": line.get("metrics", {}).get(metric, {})} for line in lines]
    for version, (colour, style) in versions.items():
        images, values = _points(flat, "shown", version)
        if len(images) and not (
            metric == "colourfulness_ratio" and version == "grey"
        ):  # that one is always 0
            marker = "o" if version == "generated" else None
            axes.plot(
                images,
                values,
                color=colour,
                linestyle=style,
                marker=marker,
                markersize=4,
                label=version,
            )
    if metric == "colourfulness_ratio" and flat:
        axes.axhline(1.0, color="black", linestyle=":", linewidth=1, label="truth")
        axes.set_ylim(bottom=0)
    _finish(axes, title, title.split(": ")[1].split(" (")[0], bool(flat))


def _finish(axes: Axes, title: str, unit: str, drawn: bool) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("images seen")
    axes.set_ylabel(unit)
    axes.grid(which="both", alpha=0.25)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if drawn:
        axes.legend(fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color="dimgrey")

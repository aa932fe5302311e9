"""Draw grids of sample images and loss curves; apply colours at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shards.color import gamut_mapped_rgb, rgb_to_lab
from shards.files import open_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GAP = 4  # pixels between images
_TITLE = 18  # height of a title line in pixels
_MIN_WIDTH = 96  # pixels: smaller images are enlarged, so that their titles fit
_CHUNK_PIXELS = 1 << 20  # pixels that `recolor` converts at once


def sample_grid(truth: Tensor, generated: Tensor) -> np.ndarray:
    """Return one image that shows photographs as grayscale, generated and true.

    truth and generated: (B, 3, H, W), CIELAB units. The result is (H', W', 3) uint8
    sRGB.
    """
    truths, outputs = (lab.float().cpu().numpy() for lab in (truth, generated))
    rows = [
        [gamut_mapped_rgb(lab) for lab in (to_grayscale(true), output, true)]
        for true, output in zip(truths, outputs, strict=True)
    ]
    titles = ["grayscale", "generated", "truth"]
    return titled_grid(rows, titles, photos_per_row=1 if len(rows) < 5 else 2)


def to_grayscale(lab: np.ndarray) -> np.ndarray:
    """Return an image without its colours: the same L, and a = b = 0.

    lab and the result: (3, H, W), CIELAB units.
    """
    return np.concatenate([lab[:1], np.zeros_like(lab[1:])])


def titled_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], photos_per_row: int = 1
) -> np.ndarray:
    """Return one image that shows images in a grid on white, with titled columns.

    rows: for each photograph, one image (H, W, 3) uint8 per title, all of one size.
    `photos_per_row` photographs are placed next to each other. The result is (H', W',
    3) uint8.
    """
    assert rows, "a grid needs at least one row"
    height, width = rows[0][0].shape[:2]
    # small images are enlarged without smoothing
    zoom = max(1, -(-_MIN_WIDTH // width))
    cell_height, cell_width = height * zoom + _GAP, width * zoom + _GAP
    block = len(titles) * cell_width + 3 * _GAP  # one photo, and a wider gap before the next
    across = min(photos_per_row, len(rows))
    lines = -(-len(rows) // photos_per_row)
    top_margin = _TITLE * max(title.count("\n") + 1 for title in titles)
    size = (across * block - 2 * _GAP, top_margin + lines * cell_height + _GAP)
    canvas = Image.new("RGB", size, "white")
    for number, row in enumerate(rows):
        top = top_margin + number // photos_per_row * cell_height
        left = number % photos_per_row * block + _GAP
        for column, image in enumerate(row):
            enlarged = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
            canvas.paste(Image.fromarray(enlarged), (left + column * cell_width, top))
    centres = [i * block + _GAP + (cell_width - _GAP) / 2 for i in range(across)]
    _write_titles(canvas, titles, centres, cell_width, top_margin / 2)
    return np.asarray(canvas)


def _write_titles(
    canvas: Image.Image, titles: Sequence[str], centres: Sequence[float], cell_width: int, y: float
) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for first in centres:
        for column, title in enumerate(titles):
            position = (first + column * cell_width, y)
            draw.text(position, title, fill="black", font=font, anchor="mm", align="center")


def recolor(rgb: np.ndarray, ab: np.ndarray) -> None:
    """Replace the colours of an image in place; its L is kept at full resolution.

    rgb: (H, W, 3) uint8 sRGB. ab: (2, h, w) in CIELAB units, the new colours at any
    size and aspect ratio. Where a colour is outside sRGB, its chroma is reduced.
    """
    height, width = rgb.shape[:2]
    channels = [Image.fromarray(np.ascontiguousarray(channel, np.float32)) for channel in ab]
    # in chunks of rows, so that an image of 100 megapixels needs little more memory
    # than its own 300 MB
    rows = max(1, _CHUNK_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        box = (0, top * ab.shape[1] / height, ab.shape[2], bottom * ab.shape[1] / height)
        shape = (width, bottom - top)
        lab = rgb_to_lab(rgb[top:bottom])
        for index, channel in enumerate(channels, start=1):
            lab[index] = np.asarray(channel.resize(shape, Image.Resampling.BICUBIC, box=box))
        rgb[top:bottom] = gamut_mapped_rgb(lab)


def save_png(image: np.ndarray, path: Path, **options: Any) -> None:
    """Write an image, (H, W, 3) uint8 sRGB, as a PNG file, atomically.

    options: keyword arguments of Pillow's PNG writer, for instance metadata.
    """
    with open_atomic(path) as stream:
        # The default, level 6, takes three times as long (32 s instead of 10 s for 50
        # megapixels), and its files are a tenth smaller.
        Image.fromarray(image).save(stream, "PNG", compress_level=3, **options)


def save_jpeg(image: np.ndarray, path: Path, quality: int = 88) -> None:
    """Write an image, (H, W, 3) uint8 sRGB, as a JPEG file, atomically."""
    with open_atomic(path) as stream:
        Image.fromarray(image).save(stream, "JPEG", quality=quality, optimize=True)


def loss_curves(lines: Sequence[dict[str, Any]], out: Path) -> None:
    """Write a PNG file with the curves of losses, validation L1 and colourfulness.

    lines: the lines of a run's journal, from `read_journal`.
    """
    # Imported here, because it needs a folder for its cache.
    from matplotlib.figure import Figure

    training = [line for line in lines if line.get("kind") == "train"]
    validation = [line for line in lines if line.get("kind") == "validation"]
    figure = Figure(figsize=(12, 7.5), dpi=100, layout="constrained")
    axes = figure.subplots(2, 2)
    names = sorted({name for line in training for name in line.get("losses", {})})
    adversarial = [name for name in names if name in _ADVERSARIAL]
    others = [name for name in names if name not in _ADVERSARIAL and not name.startswith("score_")]
    _draw_losses(axes[0, 0], training, others, "training: reconstruction (unweighted)")
    _draw_losses(axes[0, 1], training, adversarial, "training: adversarial losses")
    _draw_metric(axes[1, 0], validation, "l1", "validation: L1 of ab / 110 (lower is better)")
    _draw_metric(
        axes[1, 1],
        validation,
        "colourfulness_ratio",
        "validation: colourfulness / truth (1 is best)",
    )
    with open_atomic(out) as stream:
        figure.savefig(stream, format="png")


_ADVERSARIAL = ("critic", "adversarial", "generator")
_SMOOTHED_FROM = 200  # points: longer curves are drawn as a running mean over pale points


def _points(lines: list[dict[str, Any]], group: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [
        (line["images"], line[group][name])
        for line in lines
        if line.get(group, {}).get(name) is not None
    ]
    images, values = np.array(points, dtype=float).reshape(-1, 2).T
    return images, values


def _draw_losses(axes: Axes, lines: list[dict[str, Any]], names: Sequence[str], title: str) -> None:
    smallest, largest = np.inf, -np.inf
    for name in names:
        images, values = _points(lines, "losses", name)
        smallest = min(smallest, values.min(initial=np.inf))
        largest = max(largest, values.max(initial=-np.inf))
        (curve,) = axes.plot(images, smooth(values), label=name, linewidth=1.5)
        if len(values) >= _SMOOTHED_FROM:
            axes.plot(images, values, color=curve.get_color(), alpha=0.2, linewidth=0.6, zorder=1)
    if 0 < 10 * smallest < largest:  # a Wasserstein critic's loss can be negative
        axes.set_yscale("log")
    _finish(axes, title, "loss", bool(names))


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the centred moving average (N,) of an array (N,).

    Each average is over about N / 50 values. An array of fewer than 200 values is
    returned as it is.
    """
    if len(values) < _SMOOTHED_FROM:
        return values
    half = len(values) // 100
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _draw_metric(axes: Axes, lines: list[dict[str, Any]], metric: str, title: str) -> None:
    validations = [{**line, "shown": line.get("metrics", {}).get(metric, {})} for line in lines]
    images, values = _points(validations, "shown", "generated")
    if len(images):
        axes.plot(images, values, color="tab:blue", marker="o", markersize=4, label="generated")
    images, values = _points(validations, "shown", "grey")
    if len(images) and metric != "colourfulness_ratio":  # the baseline's ratio is always 0
        axes.plot(images, values, color="dimgrey", linestyle="--", markersize=4, label="grayscale")
    if metric == "colourfulness_ratio" and validations:
        axes.axhline(1.0, color="black", linestyle=":", linewidth=1, label="truth")
        axes.set_ylim(bottom=0)
    _finish(axes, title, title.split(": ")[1].split(" (")[0], bool(validations))


def _finish(axes: Axes, title: str, ylabel: str, has_data: bool) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_title(title, fontsize=11)
    axes.set_xlabel("images seen")
    axes.set_ylabel(ylabel)
    axes.grid(which="both", alpha=0.25)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if has_data:
        axes.legend(fontsize=9)
    else:
        axes.text(0.5, 0.5, "no data yet", transform=axes.transAxes, ha="center", color="dimgrey")

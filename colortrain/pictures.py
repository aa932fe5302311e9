"""Pictures for people: sample grids with titled columns, and the curves of a run."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shards.files import write_whole
from shards.lab import lab_to_rgb

_GAP = 4  # pixels between pictures
_TITLE = 18  # pixels of a title line
_LEGIBLE = 96  # pixels: smaller pictures are shown enlarged, or their titles would not fit


def sample_grid(truth: Tensor, generated: Tensor) -> np.ndarray:
    """Grey | generated | truth, one photo a row (two from five photos on): uint8 (H, W, 3).

    `truth` and `generated` are (B, 3, H, W) in CIELAB units.
    """
    rows = []
    for true, made in zip(truth.float().cpu().numpy(), generated.float().cpu().numpy(), strict=True):
        rows.append([lab_to_rgb(grey(true)), lab_to_rgb(made), lab_to_rgb(true)])
    return titled_grid(rows, ["grey", "generated", "truth"], photos_per_row=1 if len(rows) < 5 else 2)


def grey(lab: np.ndarray) -> np.ndarray:
    """The same L without colour: (3, H, W) CIELAB units."""
    return np.concatenate([lab[:1], np.zeros_like(lab[1:])])


def titled_grid(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], photos_per_row: int = 1) -> np.ndarray:
    """Pictures of one size, (H, W, 3) uint8, on white: each row's side by side under `titles`, small gaps between."""
    assert rows, "a grid needs at least one row"
    height, width = rows[0][0].shape[:2]
    zoom = max(1, -(-_LEGIBLE // width))
    cell_height, cell_width = height * zoom + _GAP, width * zoom + _GAP
    block = len(titles) * cell_width + 3 * _GAP  # one photo's pictures, and more air before the next photo's
    lines = -(-len(rows) // photos_per_row)
    across = min(photos_per_row, len(rows))
    canvas = Image.new("RGB", (across * block - 2 * _GAP, _TITLE + lines * cell_height + _GAP), "white")
    for number, row in enumerate(rows):
        top, left = _TITLE + number // photos_per_row * cell_height, number % photos_per_row * block + _GAP
        for column, picture in enumerate(row):
            shown = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
            canvas.paste(Image.fromarray(shown), (left + column * cell_width, top))
    _write_titles(canvas, titles, [i * block + _GAP for i in range(across)], cell_width)
    return np.asarray(canvas)


def _write_titles(canvas: Image.Image, titles: Sequence[str], lefts: Sequence[int], cell_width: int) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for left in lefts:
        for column, title in enumerate(titles):
            middle = left + column * cell_width + (cell_width - _GAP) / 2
            draw.text((middle, _TITLE / 2), title, fill="black", font=font, anchor="mm")


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 as PNG, whole or not at all."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    write_whole(path, stream.getvalue())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; half a line, which a killed run leaves, is passed over."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def loss_curves(metrics: Path, out: Path) -> None:
    """Draw RUN/metrics.jsonl as PNG: training losses, validation L1 beside grey, colourfulness ratio, by images seen."""
    lines = read_metrics(metrics)
    training = [line for line in lines if line.get("kind") == "train"]
    validation = [line for line in lines if line.get("kind") == "validation"]
    figure = Figure(figsize=(12, 7.5), dpi=100, layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_losses(axes[0, 0], training, ("l1",), "training: reconstruction", log=True)
    _draw_losses(axes[0, 1], training, ("critic", "adversarial"), "training: critic and adversarial", log=False)
    _draw_metric(axes[1, 0], validation, "l1", "validation: L1 of ab / 110 (lower is better)")
    _draw_metric(axes[1, 1], validation, "colourfulness_ratio", "validation: colourfulness / truth (1 is right)")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_whole(out, stream.getvalue())

"""Grids, full-size colouring and curves: sizes, positions and exact pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F

from colortrain import visualize
from colortrain.lab import lab_to_rgb
from colortrain.visualize import (
    loss_curves,
    recolor,
    sample_grid,
    save_png,
    smooth,
    titled_grid,
)
from shards.color import rgb_to_lab
from tests.support.small_shard_set import PHOTOGRAPHS, cut_outs, photograph


@pytest.fixture(scope="module")
def lab() -> Tensor:
    return torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(96, 6)]))


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_grid_shows_grayscale_generated_and_truth(lab: Tensor) -> None:
    generated = torch.cat([lab[:, :1], -lab[:, 1:] / 4], dim=1)  # colours inside sRGB
    grid = sample_grid(lab[:2], generated[:2]).astype(int)
    columns = [(lab * torch.tensor([1.0, 0, 0])[:, None, None])[:2], generated[:2], lab[:2]]
    for column, expected in enumerate(columns):
        left = 4 + column * 100
        for row, rgb in enumerate(lab_to_rgb(expected).permute(0, 2, 3, 1).numpy() * 255):
            top = 18 + row * 100
            assert np.abs(grid[top : top + 96, left : left + 96] - rgb).max() <= 1
    assert (grid[:18, 4:300] < 128).any(), "the titles"
    assert (grid[114:118] == 255).all(), "the gap"


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (18 + 100 + 4, 300 + 4)), (6, (18 + 300 + 4, 624 - 8))]
)
def test_many_photographs_are_shown_two_per_row(
    lab: Tensor, count: int, shape: tuple[int, int]
) -> None:
    assert sample_grid(lab[:count], lab[:count]).shape == (*shape, 3)


def test_small_images_are_enlarged_without_smoothing() -> None:
    image = cut_outs(32, 1)[0]
    grid = titled_grid([[image, image]], ["one", "two"])
    np.testing.assert_array_equal(grid[18 : 18 + 96 : 3, 4 : 4 + 96 : 3], image)
    np.testing.assert_array_equal(grid[20 : 18 + 96 : 3, 6 : 4 + 96 : 3], image)


def test_a_png_is_lossless_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    image = cut_outs(40, 1)[0]
    save_png(image, tmp_path / "new" / "folder.png")
    np.testing.assert_array_equal(read_png(tmp_path / "new" / "folder.png"), image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder.png"]


def test_recolor_with_its_own_colours_restores_the_image() -> None:
    image = photograph("chelsea")
    again = image.copy()
    recolor(again, rgb_to_lab(image)[1:])
    assert np.abs(again.astype(int) - image).max() <= 1


def test_colours_are_interpolated_like_torch_and_lightness_is_kept() -> None:
    image = photograph("coffee").copy()
    before = rgb_to_lab(image)
    small = np.random.default_rng(0).uniform(-12, 12, (2, 16, 16)).astype(np.float32)
    recolor(image, small)
    up = F.interpolate(
        torch.from_numpy(small)[None], image.shape[:2], mode="bicubic", antialias=True
    )[0]
    expected = lab_to_rgb(torch.cat([torch.from_numpy(before[:1]), up])).permute(1, 2, 0).numpy()
    in_srgb = (expected.min(2) > 0.001) & (expected.max(2) < 0.999)
    inside = np.zeros_like(in_srgb)
    inside[20:-20, 20:-20] = True
    assert in_srgb.mean() > 0.8
    assert np.abs(image - expected * 255)[in_srgb & inside].max() <= 1
    assert np.abs(rgb2lab(image)[..., 0] - before[0]).max() <= 0.3


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("ab", [(127, 0), (-90, 90), (5, -128), (400, 400)])
def test_recolor_keeps_the_lightness_under_any_colour(name: str, ab: tuple[int, int]) -> None:
    image = photograph(name)[::4, ::4].copy()
    image[:8], image[-8:] = 0, 255
    before = rgb2lab(image)[..., 0]
    recolor(image, np.broadcast_to(np.array(ab, np.float32)[:, None, None], (2, 4, 4)))
    assert np.abs(rgb2lab(image)[..., 0] - before).max() <= 0.3
    assert (image[:8] == 0).all(), "black stays black"


@pytest.mark.parametrize("shape", [(97, 61), (40, 300), (5, 7)])
def test_chunks_of_rows_leave_no_seam(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = photograph("rocket")[: shape[0], : shape[1]].copy()
    in_chunks = whole.copy()
    ab = np.random.default_rng(1).uniform(-40, 40, (2, 32, 32))
    recolor(whole, ab)
    monkeypatch.setattr(visualize, "_CHUNK_PIXELS", 1000)
    recolor(in_chunks, ab)
    assert np.abs(whole.astype(int) - in_chunks).max() <= 1


def test_smoothing_is_a_centred_moving_average() -> None:
    values = np.random.default_rng(0).random(300)
    smoothed = smooth(values)
    for index, (low, high) in {0: (0, 4), 150: (147, 154), 299: (296, 300)}.items():
        assert smoothed[index] == pytest.approx(values[low:high].mean())
    np.testing.assert_array_equal(smooth(values[:50]), values[:50])


def training(step: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "images": 16 * step,
        "losses": {"critic": 1 / step, "l1": 0.1, "score_real": 1},
    }


def validation(step: int) -> dict[str, Any]:
    metrics = {
        "l1": {"generated": 0.1, "grey": 0.12},
        "colourfulness_ratio": {"generated": 0.5, "grey": 0.0},
    }
    return {"kind": "validation", "step": step, "images": 16 * step, "metrics": metrics}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"kind": "start", "step": 0}],
        [training(1)],
        [validation(1)],
        [*map(training, range(1, 300)), validation(100), {**validation(200), "metrics": {}}],
        # the loss of a Wasserstein critic
        [{**training(step), "losses": {"critic": -step}} for step in (1, 2, 3)],
        [{**training(1), "losses": {"l1": float("nan")}}],
    ],
    ids=["nothing", "start", "one step", "one validation", "a run", "negative", "diverged"],
)
def test_curves_of_any_run_are_drawn(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    loss_curves(lines, tmp_path / "curves.png")
    assert read_png(tmp_path / "curves.png").shape == (750, 1200, 3)


def test_curves_show_what_was_measured(tmp_path: Path) -> None:
    """The same values give the same image; another L1 changes its panel."""
    panels = []
    for value in (0.11, 0.11, 0.05):
        line = validation(10)
        line["metrics"]["l1"]["generated"] = value
        loss_curves([training(5), validation(5), line], tmp_path / "curves.png")
        panels.append(read_png(tmp_path / "curves.png"))
    np.testing.assert_array_equal(panels[0], panels[1])
    changed = (panels[0] != panels[2]).any(axis=2)
    assert changed[390:, :600].any()

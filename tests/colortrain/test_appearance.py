"""Losses of whole pictures: they agree with the metrics they stand for, and have slopes where training begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colortrain.lab import Batch, SymmetricCodec, lab_to_rgb
from colortrain.losses.appearance import ColourfulnessGap, LogError, m3
from colortrain.losses.reconstruction import Measure, Resources
from colortrain.metrics.images import colourfulness, mse
from shards.lab import rgb_to_lab
from tests.shards.pictures import pieces

CODEC = SymmetricCodec()


@pytest.fixture(scope="module")
def batch() -> Batch:
    L, colour = CODEC.encode(torch.from_numpy(np.stack([rgb_to_lab(piece) for piece in pieces(2, side=32)])))
    return Batch(L, colour, torch.zeros(2, 1, 1, 1))


def built(term: ColourfulnessGap | LogError) -> Measure:
    return term.build(Resources(torch.device("cpu"), CODEC, lambda: np.zeros((23, 23))))


def rgb(batch: Batch, colour: torch.Tensor) -> torch.Tensor:
    return lab_to_rgb(CODEC.decode(batch.L, colour))


def test_m3_is_the_metric(batch: Batch) -> None:
    assert torch.allclose(m3(rgb(batch, batch.colour)), colourfulness(rgb(batch, batch.colour)), rtol=1e-3)


def test_the_gap_closes_at_the_truth_and_is_the_truths_at_grey(batch: Batch) -> None:
    measure = built(ColourfulnessGap(cell=1))
    assert float(measure(batch.colour, batch)) == 0
    truth = colourfulness(rgb(batch, batch.colour)).mean()
    assert float(measure(torch.zeros_like(batch.colour), batch)) == pytest.approx(float(truth / 100) ** 2, rel=0.03)


def test_cells_halve_a_line_and_keep_a_patch() -> None:
    """The spread of a line of c on one row of 32 is .174 c; in cells of 4, c / 4 on one row of 8, it is .083 c."""
    grey = Batch(torch.zeros(1, 1, 32, 32), torch.zeros(1, 2, 32, 32), torch.zeros(1, 1, 1, 1))
    line, patch = torch.zeros_like(grey.colour), torch.zeros_like(grey.colour)
    line[..., 0, :], patch[..., :8, :16] = -0.1, -0.1
    kept = [
        float(built(ColourfulnessGap(cell=4))(made, grey) / built(ColourfulnessGap(cell=1))(made, grey)) ** 0.5
        for made in (line, patch)
    ]
    assert kept[0] < 0.5
    assert kept[1] == pytest.approx(1, rel=1e-3)


def test_log_error_is_psnr(batch: Batch) -> None:
    grey = torch.zeros_like(batch.colour)
    decibels = -10 * (mse(rgb(batch, grey), rgb(batch, batch.colour)) + 1e-4).log10()
    assert float(built(LogError())(grey, batch)) == pytest.approx(float(-decibels.mean() / 4.3429), rel=1e-4)


@pytest.mark.parametrize("term", [ColourfulnessGap(), LogError()])
def test_grey_has_a_finite_slope_towards_colour(term: ColourfulnessGap | LogError, batch: Batch) -> None:
    colour = torch.zeros_like(batch.colour).requires_grad_()
    built(term)(colour, batch).backward()
    assert colour.grad is not None
    assert colour.grad.isfinite().all()
    assert colour.grad.abs().max() > 0

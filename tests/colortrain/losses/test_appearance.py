"""Losses of whole images: they agree with their metrics and have finite gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from colortrain.lab import Batch, SymmetricCodec, lab_to_rgb
from colortrain.losses.appearance import (
    ColourfulnessGap,
    LogError,
    SoftAccuracy,
    differentiable_colourfulness,
)
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.metrics.accuracy import accuracy
from colortrain.metrics.image_metrics import colourfulness, mse
from shards.color import rgb_to_lab
from tests.support.photographs import random_crops

CODEC = SymmetricCodec()
Term = ColourfulnessGap | LogError | SoftAccuracy


@pytest.fixture(scope="module")
def batch() -> Batch:
    L, colour = CODEC.encode(
        torch.from_numpy(np.stack([rgb_to_lab(piece) for piece in random_crops(2, side=32)]))
    )
    return Batch(L, colour, torch.zeros(2, 1, 1, 1))


def built(term: Term) -> LossFunction:
    return term.build(LossContext(torch.device("cpu"), CODEC, lambda: np.zeros((23, 23))))


def rgb(batch: Batch, colour: torch.Tensor) -> torch.Tensor:
    return lab_to_rgb(CODEC.decode(batch.L, colour))


def test_differentiable_colourfulness_equals_the_metric(batch: Batch) -> None:
    assert torch.allclose(
        differentiable_colourfulness(rgb(batch, batch.colour)),
        colourfulness(rgb(batch, batch.colour)),
        rtol=1e-3,
    )


def test_colourfulness_gap_at_the_truth_and_at_grayscale(batch: Batch) -> None:
    measure = built(ColourfulnessGap(cell=1))
    assert float(measure(batch.colour, batch)) == 0
    truth = colourfulness(rgb(batch, batch.colour)).mean()
    assert float(measure(torch.zeros_like(batch.colour), batch)) == pytest.approx(
        float(truth / 100) ** 2, rel=0.03
    )


def test_cells_reduce_a_line_but_not_a_patch() -> None:
    """A line of c on one row of 32 has standard deviation 0.174 c.

    In cells of 4 it is c / 4 on one row of 8, with standard deviation 0.083 c.
    """
    grey = Batch(torch.zeros(1, 1, 32, 32), torch.zeros(1, 2, 32, 32), torch.zeros(1, 1, 1, 1))
    line, patch = torch.zeros_like(grey.colour), torch.zeros_like(grey.colour)
    line[..., 0, :], patch[..., :8, :16] = -0.1, -0.1
    kept = [
        float(
            built(ColourfulnessGap(cell=4))(generated, grey)
            / built(ColourfulnessGap(cell=1))(generated, grey)
        )
        ** 0.5
        for generated in (line, patch)
    ]
    assert kept[0] < 0.5
    assert kept[1] == pytest.approx(1, rel=1e-3)


def test_log_error_equals_psnr(batch: Batch) -> None:
    grey = torch.zeros_like(batch.colour)
    decibels = -10 * (mse(rgb(batch, grey), rgb(batch, batch.colour)) + 1e-4).log10()
    assert float(built(LogError())(grey, batch)) == pytest.approx(
        float(-decibels.mean() / 4.3429), rel=1e-4
    )


def test_soft_accuracy_at_the_truth_and_at_a_limit(batch: Batch) -> None:
    """At the limit for 2 % (4.4 in a) a pixel counts half, and mostly for 5 % (11)."""
    measure = built(SoftAccuracy())
    limit = torch.tensor([4.4 / 110, 0.0]).view(2, 1, 1)
    sure, wide = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-4 + 4 * 4.4 / 11))
    assert float(measure(batch.colour, batch)) == pytest.approx(1 - sure**2, abs=1e-4)
    assert float(measure(batch.colour + limit, batch)) == pytest.approx(
        1 - (0.5 + wide) / 2 * sure, abs=1e-3
    )
    assert float(measure(batch.colour + 1, batch)) == pytest.approx(1, abs=1e-6)


def test_soft_accuracy_ranks_like_the_metric(batch: Batch) -> None:
    torch.manual_seed(0)
    generated = [
        batch.colour + spread / 110 * torch.randn_like(batch.colour)
        for spread in (2.0, 4.0, 8.0, 16.0)
    ]
    for percent in (2.0, 5.0):
        soft = [
            float(built(SoftAccuracy(percents=(percent,)))(colour, batch)) for colour in generated
        ]
        truth = CODEC.decode(batch.L, batch.colour)
        hard = [
            float(accuracy(CODEC.decode(batch.L, colour), truth, percent).mean())
            for colour in generated
        ]
        assert soft == sorted(soft)
        assert hard == sorted(hard, reverse=True)


@pytest.mark.parametrize("term", [ColourfulnessGap(), LogError(), SoftAccuracy()])
def test_grayscale_has_a_finite_gradient(term: Term, batch: Batch) -> None:
    colour = torch.zeros_like(batch.colour).requires_grad_()
    built(term)(colour, batch).backward()
    assert colour.grad is not None
    assert colour.grad.isfinite().all()
    assert colour.grad.abs().max() > 0

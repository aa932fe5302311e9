"""The cross-entropy over grid colours: closed forms, targets, required generator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from colortrain.lab import Batch, SymmetricCodec
from colortrain.losses.colour_bins import ColourBins, cross_entropy, nearest_colour_in_gamut
from colortrain.losses.reconstruction import LossContext
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.residual_unet import ResidualUNet, ResidualUNetConfig, colours_in_gamut
from shards.errors import UserError


def small(**settings: object) -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNetConfig(base_channels=4, levels=2, **settings).build()  # type: ignore[arg-type]


def test_cross_entropy_of_uniform_and_of_certain_logits() -> None:
    lookup, count = nearest_colour_in_gamut(), len(colours_in_gamut())
    ab = torch.from_numpy(colours_in_gamut()[:50]).T.reshape(1, 2, 5, 10)
    assert float(cross_entropy(torch.zeros(1, count, 5, 10), ab, lookup)) == pytest.approx(
        math.log(count), rel=1e-5
    )
    sure = (
        torch.nn.functional.one_hot(torch.arange(50).reshape(1, 5, 10), count).permute(0, 3, 1, 2)
        * 50.0
    )
    assert float(cross_entropy(sure, ab, lookup)) == pytest.approx(0, abs=1e-5)


def test_mean_of_the_target_is_the_true_colour() -> None:
    """The target is softmax - gradient of the cross-entropy."""
    ab = torch.tensor([3.0, -12.5]).view(1, 2, 1, 1)
    logits = torch.zeros(1, len(colours_in_gamut()), 1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(cross_entropy(logits, ab, nearest_colour_in_gamut()), logits)
    target = (logits.softmax(1) - slope).flatten()
    assert int((target > 1e-6).sum()) == 4
    assert torch.allclose(target @ torch.from_numpy(colours_in_gamut()), ab.flatten(), atol=1e-4)


def test_recomputing_changes_no_bit_of_the_loss_and_its_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, len(colours_in_gamut()), 4, 4)
    ab, lookup = torch.randn(3, 2, 4, 4) * 40, nearest_colour_in_gamut()
    results = []
    for recompute in (False, True):
        leaf = logits.clone().requires_grad_()
        loss = cross_entropy(leaf, ab, lookup, recompute=recompute)
        results.append((loss, *torch.autograd.grad(loss, leaf)))
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


def test_colour_bins_needs_a_generator_with_logits() -> None:
    network = small().train()
    context = LossContext(
        torch.device("cpu"), SymmetricCodec(), lambda: np.zeros((23, 23)), network
    )
    batch = Batch(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 1, 1))
    measure = ColourBins().build(context)
    assert float(measure(network(batch.L), batch).detach()) > 0
    other = LossContext(
        torch.device("cpu"),
        SymmetricCodec(),
        context.histogram,
        UNetConfig(base_channels=2).build(),
    )
    with pytest.raises(UserError, match="predicts logits"):
        ColourBins().build(other)

"""L1 weighted by the rarity of colours: closed forms of each mode.

The literal mode of the paper degenerates.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from colortrain.lab import Batch, Codec, SymmetricCodec, UnitCodec, stored_to_lab
from colortrain.losses.rebalanced import RebalancedL1, bin_indices, smooth_histogram
from colortrain.losses.reconstruction import L1, LossContext
from shards.color import pack, rgb_to_lab
from shards.inspect.statistics import CENTRES, color_sums
from tests.support.small_shard_set import cut_outs

Mode = Literal["literal", "populated", "smoothed"]
MODES: tuple[Mode, ...] = ("literal", "populated", "smoothed")


def some_fractions(populated: int = 12) -> np.ndarray:
    """Return fractions that halve from bin to bin along a row, and are 0 elsewhere."""
    fractions = np.zeros((23, 23))
    fractions[11, :populated] = 2.0 ** -np.arange(1, populated + 1)
    return fractions / fractions.sum()


def measured(
    term: RebalancedL1 | L1, fractions: np.ndarray, fake: Tensor, real: Tensor, codec: Codec
) -> Tensor:
    context = LossContext(torch.device("cpu"), codec, lambda: fractions)
    return term.build(context)(
        fake, Batch(torch.zeros_like(real[:, :1]), real, real[:, :1, :1, :1])
    )


def test_literal_mode_degenerates_with_an_empty_bin() -> None:
    """With one empty bin the maximum is 1 / eps, and the loss is half of L1.

    Every colour that occurs then has weight 0.5.
    """
    fractions = some_fractions()
    weights = RebalancedL1(mode="literal").bin_weights(fractions)
    assert (weights[fractions > 0] == 0.5).all()
    assert (weights[fractions == 0] == 5).all()
    torch.manual_seed(0)
    real, fake = torch.zeros(2, 2, 4, 4), torch.rand(2, 2, 4, 4)
    loss = measured(RebalancedL1(mode="literal"), fractions, fake, real, SymmetricCodec())
    torch.testing.assert_close(loss, measured(L1(), fractions, fake, real, SymmetricCodec()) / 2)


def test_literal_mode_works_if_every_bin_occurs() -> None:
    fractions = np.ones((23, 23))
    fractions[0, 0] = 1 / 8
    fractions[0, 1] = 100
    weights = RebalancedL1(mode="literal").bin_weights(fractions / fractions.sum())
    assert weights[0, 0] == pytest.approx(5)
    assert weights[5, 5] == pytest.approx(5 / 8, rel=1e-4)
    assert weights[0, 1] == 0.5


def test_populated_weights_are_proportional_until_clamped() -> None:
    """The rarest has weight 5, one twice as common 2.5, one ten times as common 0.5."""
    fractions = some_fractions()
    weights = RebalancedL1(mode="populated").bin_weights(fractions)[11, :12][::-1]
    assert weights.tolist() == pytest.approx([5, 5 / 2, 5 / 4, 5 / 8, *[0.5] * 8], rel=1e-3)


def test_smoothed_has_mean_weight_one() -> None:
    term = RebalancedL1(mode="smoothed")
    fractions = some_fractions()
    weights = term.bin_weights(fractions)
    assert (smooth_histogram(fractions, 5) * weights).sum() == pytest.approx(1)
    assert weights.min() == weights[11, 0]
    assert weights[0, 0] == weights.max()
    assert RebalancedL1(mode="smoothed", mix=1.0).bin_weights(fractions) == pytest.approx(
        np.ones((23, 23))
    )  # uniform weights only


def test_smoothed_equals_zhangs_equation_4() -> None:
    """A single colour has p = 1 in one bin.

    Without smoothing its weight is 1, all others have (0.5 + 0.5 / 313) / (0.5 / 313).
    """
    fractions = np.zeros((23, 23))
    fractions[11, 11] = 1
    weights = RebalancedL1(mode="smoothed", sigma=0.1).bin_weights(fractions)
    assert weights[11, 11] == pytest.approx(1)
    assert weights[0, 0] == pytest.approx(314)


def test_smoothing_keeps_the_sum_and_has_width_sigma() -> None:
    fractions = np.zeros((23, 23))
    fractions[11, 11] = 0.75
    fractions[0, 22] = 0.25  # in a corner, where a kernel would leave the grid
    result = smooth_histogram(fractions, 5.0)
    assert result.sum() == pytest.approx(1)
    assert result[11, 12] / result[11, 11] == pytest.approx(np.exp(-2))  # 10 units away, sigma 5
    assert result[12, 12] / result[11, 11] == pytest.approx(np.exp(-4))


@pytest.mark.parametrize("codec", [SymmetricCodec(), UnitCodec()])
def test_pixels_are_weighted_by_their_true_colour(codec: Codec) -> None:
    """Two pixels, a common and a rare colour, each off by 0.1 in a alone.

    The loss is (0.5 + 5) / 2 * 0.1 / 2.
    """
    fractions = np.zeros((23, 23))
    (
        fractions[CENTRES.index(0), CENTRES.index(0)],
        fractions[CENTRES.index(50), CENTRES.index(-20)],
    ) = (
        0.99,
        0.01,
    )
    lab = torch.tensor([[50.0, 0, 0], [50, 52, -18]]).T.reshape(1, 3, 1, 2)
    real = codec.encode(lab)[1]
    off = torch.tensor([0.1, 0.0]).view(1, 2, 1, 1)
    for fake in (real + off, real - off):
        loss = measured(RebalancedL1(mode="populated"), fractions, fake, real, codec)
        assert loss.item() == pytest.approx((0.5 + 5) / 2 * 0.1 / 2, rel=1e-4)


@pytest.mark.parametrize("codec", [SymmetricCodec(), UnitCodec()])
def test_bins_equal_those_of_shards_statistics(codec: Codec) -> None:
    """Every stored ab, edges included, is in the same bin in spite of the scaling."""
    a, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    stored = np.stack([np.full_like(a, 128), a, b]).astype(np.uint8)
    L, colour = codec.encode(stored_to_lab(torch.from_numpy(stored)[None]))
    result = torch.bincount(bin_indices(Batch(L, colour, L), codec).flatten(), minlength=23 * 23)
    assert result.reshape(23, 23).tolist() == color_sums(stored).counts.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_loss_is_zero_at_the_truth_and_its_gradient_is_the_weight(mode: Mode) -> None:
    fractions = some_fractions()
    real = torch.zeros(1, 2, 2, 2)
    assert measured(RebalancedL1(mode=mode), fractions, real, real, SymmetricCodec()).item() == 0
    fake = torch.full_like(real, 0.3).requires_grad_()
    measured(RebalancedL1(mode=mode), fractions, fake, real, SymmetricCodec()).backward()
    weight = RebalancedL1(mode=mode).bin_weights(fractions)[11, 11]
    assert fake.grad is not None
    torch.testing.assert_close(fake.grad, torch.full_like(fake, weight / 8))


def test_histograms_of_photographs_give_weights() -> None:
    """In all modes but "literal", rare colours have larger weights than common ones."""
    counts = sum(color_sums(pack(rgb_to_lab(picture))).counts for picture in cut_outs(32, 8))
    fractions = counts / np.sum(counts)
    for mode in MODES[1:]:
        weights = RebalancedL1(mode=mode).bin_weights(fractions)
        assert weights[fractions == fractions.max()] == weights.min()
        rarest = fractions == fractions[fractions > 0].min()
        assert (weights[rarest] > 2 * weights.min()).all()


@pytest.mark.parametrize(
    "fields", [{"least": 6.0}, {"least": -1.0}, {"eps": 0.0}, {"sigma": 0.0}, {"mix": 0.0}]
)
def test_invalid_fields_raise(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RebalancedL1(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_the_differences_of_a_and_b_may_be_added(mode: Mode) -> None:
    """Section 1.3.3: the mean over pixels of w (|da| + |db|)."""
    fractions = some_fractions()
    torch.manual_seed(0)
    real, fake = torch.rand(2, 2, 2, 4, 4, dtype=torch.float64).unbind()
    term = RebalancedL1(mode=mode, channels="sum")
    weights = term.bin_weights(fractions).flatten()
    batch = Batch(real[:, :1], real, real[:, :1, :1, :1])
    w = weights[bin_indices(batch, SymmetricCodec()).numpy()]
    a, b = (abs(fake - real).numpy()[:, channel] for channel in (0, 1))
    loss = measured(term, fractions, fake, real, SymmetricCodec())
    assert loss.item() == pytest.approx((w * (a + b)).mean(), rel=1e-6)

"""Metrics of sets of pictures: what the colour fields see, and sums that follow neither order nor sharing out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from colortrain.metrics.features import OutOfRangeError
from colortrain.metrics.image_metrics import ImageBatch, versions
from colortrain.metrics.set_metrics import LAB_FIELDS, SetMetrics, colour_fields
from shards.color import rgb_to_lab
from tests.support.small_shard_set import cut_outs


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """Forty photographs of 32 px, CIELAB."""
    return torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(32, 40)]))


def distance(truth: Tensor, ab: Tensor) -> float:
    set_metrics = SetMetrics([LAB_FIELDS])
    set_metrics.update(versions(torch.cat([truth[:, :1], ab], dim=1), truth), 0)
    return set_metrics.compute()["frechet_lab"]["generated"]


def test_fields_are_means_and_spreads_of_cells(truth: Tensor) -> None:
    cells = (
        truth.double()
        .numpy()
        .reshape(40, 3, 4, 8, 4, 8)
        .transpose(0, 1, 2, 4, 3, 5)
        .reshape(40, 3, 16, 64)
    )
    expected = np.concatenate(
        [cells.mean(-1).reshape(40, -1), cells[:, 1:].std(-1).reshape(40, -1)], axis=1
    )
    np.testing.assert_allclose(colour_fields(truth), expected, atol=1e-9)


def test_worse_colours_are_farther(truth: Tensor) -> None:
    """Fading, other hues, one colour for all, and the right colours on the wrong pictures; the truth is at 0."""
    ab = truth[:, 1:]
    quarter = torch.stack([-ab[:, 1], ab[:, 0]], dim=1)
    assert distance(truth, ab) == pytest.approx(
        0, abs=0.01
    )  # of 20,000 for grey: fewer pictures than features
    fading = [distance(truth, share * ab) for share in (0.9, 0.6, 0.3, 0.0)]
    assert fading == sorted(fading)
    assert distance(truth, quarter) > distance(truth, 0.9 * ab)
    assert distance(truth, ab.mean(dim=(0, 2, 3), keepdim=True).expand_as(ab)) > distance(
        truth, 0.6 * ab
    )
    assert distance(truth, ab.roll(1, dims=0)) > 10 * fading[0]


def test_a_shift_of_all_colours_is_its_square_in_each_cell(truth: Tensor) -> None:
    """Means move by 3 in each of 16 cells, spreads and covariances stay: 16 x 9."""
    moved = truth[:, 1:] + torch.tensor([3.0, 0]).view(2, 1, 1)
    assert distance(truth, moved) == pytest.approx(16 * 9, rel=1e-4)


def test_photographs_that_no_exact_moments_are_of_are_not_passed_over(truth: Tensor) -> None:
    """What is passed over is a network that has diverged; an extractor of too large features is a mistake."""
    shown = versions(truth, truth)
    with pytest.raises(OutOfRangeError, match="below 512"):
        SetMetrics([LAB_FIELDS]).update({**shown, "truth": ImageBatch(truth * 100)}, 0)
    set_metrics = SetMetrics([LAB_FIELDS])
    set_metrics.update({**shown, "generated": ImageBatch(truth * math.nan)}, 0)
    found = set_metrics.compute()["frechet_lab"]
    assert math.isnan(found["generated"])
    assert math.isfinite(found["grey"])


def test_batches_in_any_order_give_the_same_bits(truth: Tensor) -> None:
    pictures = versions(truth.roll(1, dims=0), truth)
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        set_metrics = SetMetrics([LAB_FIELDS])
        for part in order:
            set_metrics.update(
                {
                    name: ImageBatch(shown.lab[16 * part : 16 * part + 16])
                    for name, shown in pictures.items()
                },
                part,
            )
        found.append(set_metrics.compute())
    assert found[0] == found[1]
    assert math.isfinite(found[0]["frechet_lab"]["generated"])
    assert set(found[0]["frechet_lab"]) == {"generated", "grey"}

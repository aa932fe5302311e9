"""Metrics of image sets: colour fields, and sums that do not depend on the order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from colortrain.metrics.features import OutOfRangeError
from colortrain.metrics.image_metrics import ImageBatch, image_versions
from colortrain.metrics.set_metrics import LAB_FIELDS, SetMetrics, colour_fields
from shards.color import rgb_to_lab
from tests.support.small_shard_set import cut_outs


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """Forty photographs of 32 px, CIELAB."""
    return torch.tensor(np.stack([rgb_to_lab(rgb) for rgb in cut_outs(32, 40)]))


def distance(truth: Tensor, ab: Tensor) -> float:
    set_metrics = SetMetrics([LAB_FIELDS])
    set_metrics.update(image_versions(torch.cat([truth[:, :1], ab], dim=1), truth), 0)
    return set_metrics.compute().metrics["frechet_lab"]["generated"]


def test_fields_are_means_and_deviations_of_cells(truth: Tensor) -> None:
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


def test_worse_colours_have_larger_distances(truth: Tensor) -> None:
    """Paler colours, other hues, one colour for all, and colours of other images.

    The distance of the truth is 0.
    """
    ab = truth[:, 1:]
    quarter = torch.stack([-ab[:, 1], ab[:, 0]], dim=1)
    # not exactly 0, since there are fewer images than features; grayscale has 20,000
    assert distance(truth, ab) == pytest.approx(0, abs=0.01)
    fading = [distance(truth, scale * ab) for scale in (0.9, 0.6, 0.3, 0.0)]
    assert fading == sorted(fading)
    assert distance(truth, quarter) > distance(truth, 0.9 * ab)
    assert distance(truth, ab.mean(dim=(0, 2, 3), keepdim=True).expand_as(ab)) > distance(
        truth, 0.6 * ab
    )
    assert distance(truth, ab.roll(1, dims=0)) > 10 * fading[0]


def test_a_shift_adds_its_square_in_each_cell(truth: Tensor) -> None:
    """Only the means change, by 3 in each of 16 cells: 16 x 9."""
    moved = truth[:, 1:] + torch.tensor([3.0, 0]).view(2, 1, 1)
    assert distance(truth, moved) == pytest.approx(16 * 9, rel=1e-4)


def test_only_the_generated_version_may_have_features_out_of_range(truth: Tensor) -> None:
    """A network may diverge; photographs with such features are an error."""
    images = image_versions(truth, truth)
    with pytest.raises(OutOfRangeError, match="below 512"):
        SetMetrics([LAB_FIELDS]).update({**images, "truth": ImageBatch(truth * 100)}, 0)
    set_metrics = SetMetrics([LAB_FIELDS])
    set_metrics.update({**images, "generated": ImageBatch(truth * math.nan)}, 0)
    result = set_metrics.compute().metrics["frechet_lab"]
    assert math.isnan(result["generated"])
    assert math.isfinite(result["grey"])


def test_any_order_of_batches_gives_the_same_bits(truth: Tensor) -> None:
    images = image_versions(truth.roll(1, dims=0), truth)
    result = []
    for order in ([0, 1, 2], [2, 0, 1]):
        set_metrics = SetMetrics([LAB_FIELDS])
        for part in order:
            set_metrics.update(
                {
                    name: ImageBatch(batch.lab[16 * part : 16 * part + 16])
                    for name, batch in images.items()
                },
                part,
            )
        result.append(set_metrics.compute().metrics)
    assert result[0] == result[1]
    assert math.isfinite(result[0]["frechet_lab"]["generated"])
    assert set(result[0]["frechet_lab"]) == {"generated", "grey"}

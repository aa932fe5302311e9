"""nazeri's accuracy and MAE on constructed images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colortrain.metrics.accuracy import accuracy, mae, mae_lab
from colortrain.metrics.image_metrics import image_versions, per_image

AB = slice(1, 3)


def plane(L: float, a: float, b: float, size: int = 8) -> Tensor:
    """Return one image of a single colour, (1, 3, size, size)."""
    return torch.tensor([float(L), a, b]).view(1, 3, 1, 1).expand(1, 3, size, size).clone()


@pytest.mark.parametrize(
    ("off", "at_2", "at_5"),
    [
        ((0, 0, 0), 100, 100),
        ((2, 4, -4), 100, 100),  # 2 % of 100, and whole units below 2 % of 220 = 4.4
        ((2.4, 4.4, 0), 100, 100),  # rounded first: 52.4 is 52, 14.4 is 14
        ((3, 0, 0), 0, 100),
        ((0, 5, 0), 0, 100),
        ((0, 0, 11), 0, 100),  # 5 % of 220, met exactly
        ((0, 0, -12), 0, 0),
        ((6, 0, 0), 0, 0),
    ],
)
def test_thresholds(off: tuple[float, float, float], at_2: float, at_5: float) -> None:
    truth = plane(50, 10, -20)
    result = truth + torch.tensor(off).view(3, 1, 1)
    assert accuracy(result, truth, 2).tolist() == [at_2]
    assert accuracy(result, truth, 5).tolist() == [at_5]


def test_all_channels_of_a_pixel_must_be_accurate() -> None:
    truth = plane(50, 0, 0).repeat(2, 1, 1, 1)
    result = truth.clone()
    result[0, 0, :2] = 90  # two of eight rows wrong in L
    result[0, 1, :, :4] = 30  # half of the columns wrong in a
    assert accuracy(result, truth, 5).tolist() == [37.5, 100]
    assert accuracy(result, truth, 5, AB).tolist() == [50, 100]


def test_mae_is_in_hundredths_of_network_units() -> None:
    truth = plane(50, 0, 0).repeat(3, 1, 1, 1)
    result = truth + torch.tensor([[5.0, 0, 0], [0, 11, 0], [-50, 110, -110]]).view(3, 3, 1, 1)
    torch.testing.assert_close(mae(result, truth), torch.tensor([10 / 3, 10 / 3, 100]))
    torch.testing.assert_close(mae_lab(result, truth), torch.tensor([5 / 3, 11 / 3, 90]))


def test_own_lightness_is_used_if_the_network_predicts_it() -> None:
    truth = plane(50, 10, -20, size=16)
    predicted = truth + torch.tensor([20.0, 3, 0]).view(3, 1, 1)
    displayed = torch.cat([truth[:, :1], predicted[:, 1:]], dim=1)
    rows = per_image(image_versions(displayed, truth, (10, -20)), predicted=predicted)
    assert rows["accuracy_2.generated"].tolist() == [0]
    assert rows["accuracy_ab_2.generated"].tolist() == [100]
    torch.testing.assert_close(rows["mae.generated"], torch.tensor([100 * (0.4 + 3 / 110) / 3]))
    assert rows["accuracy_2.median"].tolist() == [100]
    assert rows["accuracy_2.grey"].tolist() == [0]
    given = per_image(image_versions(displayed, truth))
    assert given["accuracy_2.generated"].tolist() == [100]
    assert "l1.median" not in given
    torch.testing.assert_close(rows["l1.generated"], given["l1.generated"])

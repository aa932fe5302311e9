"""Functions of a batch that are computed image by image, and again for gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colortrain.models.map_images import map_images


@pytest.mark.parametrize("recompute", [False, True])
def test_values_and_gradients_do_not_depend_on_recomputing(recompute: bool) -> None:
    """The oracle: for s = softmax(x), d/dx sum(s * y) = s * (y - sum(s * y))."""
    shapes: list[torch.Size] = []

    def mean(x: Tensor, y: Tensor) -> Tensor:
        shapes.append(x.shape)
        return (x.softmax(1) * y).sum(1)

    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 5, 2, dtype=torch.float64)
    result = map_images(mean, x, y, recompute=recompute)
    result.sum().backward()
    likely = x.detach().softmax(1)
    expected = (likely * y).sum(1)
    torch.testing.assert_close(result.detach(), expected)
    torch.testing.assert_close(x.grad, likely * (y - expected.unsqueeze(1)))
    assert shapes == ([(1, 5, 2)] * 6 if recompute else [(3, 5, 2)])


def test_without_gradients_nothing_is_divided() -> None:
    sizes: list[int] = []

    def count(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    with torch.no_grad():
        map_images(count, torch.zeros(4, 1), recompute=True)
    assert sizes == [4]

"""L1 and L2 against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colortrain.lab import Batch, SymmetricCodec
from colortrain.losses.reconstruction import L1, L2, LossContext


def measured(term: L1 | L2, fake: torch.Tensor, real: torch.Tensor) -> float:
    context = LossContext(torch.device("cpu"), SymmetricCodec(), lambda: np.zeros((23, 23)))
    return term.build(context)(fake, Batch(fake, real, fake)).item()


def test_reconstruction_terms() -> None:
    fake, real = torch.tensor([[0.0, 1], [-1, 0]]), torch.tensor([[0.5, 1], [1, 0]])
    assert measured(L1(), fake, real) == pytest.approx(2.5 / 4)
    assert measured(L2(), fake, real) == pytest.approx(4.25 / 4)


@pytest.mark.parametrize("channels", [2, 3])
def test_l1_may_add_the_channels(channels: int) -> None:
    torch.manual_seed(0)
    fake, real = torch.rand(2, 5, channels, 4, 6, dtype=torch.float64).unbind()
    mean = torch.nn.functional.l1_loss(fake, real).item()
    added = torch.nn.functional.l1_loss(fake, real, reduction="sum").item() / (5 * 4 * 6)
    assert measured(L1(), fake, real) == pytest.approx(mean)
    assert measured(L1(channels="sum"), fake, real) == pytest.approx(added)
    assert added == pytest.approx(channels * mean)

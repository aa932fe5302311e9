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

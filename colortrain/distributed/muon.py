"""The Muon optimizer (Jordan et al. 2024) for hidden weights; Adam for the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from colortrain.recipe import Adam

MOMENTUM = 0.95
_ITERATIONS = 5
# chosen for steepness at 0; singular values end between 0.7 and 1.2, close enough to 1
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Optimizer that updates hidden weights by Muon and all other parameters by Adam.

    `adam.muon` is the learning rate of Muon. If `found_inf` is 1, `step` changes
    nothing.
    """

    # `torch.optim.Muon` accepts only matrices, not convolution kernels
    found_inf: Tensor | None = None  # on the device; 1 where a gradient is not finite

    def __init__(self, module: nn.Module, adam: Adam, *, fused: bool = False) -> None:
        hidden = hidden_weights(module)
        chosen = {id(weight) for weight in hidden}
        others = [parameter for parameter in module.parameters() if id(parameter) not in chosen]
        super().__init__(
            [{"params": hidden, "lr": adam.muon}, {"params": others, "lr": adam.lr}],
            {"fused": fused},
        )
        self.adam = torch.optim.Adam(
            others, lr=adam.lr, betas=adam.betas, eps=adam.eps, fused=fused or None
        )
        # both optimizers use the same state and the same learning rates
        self.adam.state = self.state
        self.param_groups[1] = self.adam.param_groups[0]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        if self.found_inf is not None:
            self.adam.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.adam.step()
        hidden = self.param_groups[0]
        for weight in hidden["params"]:
            if weight.grad is not None:
                self._step(weight, weight.grad, hidden["lr"])

    def _step(self, weight: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[weight]
        if not state:
            state["exp_avg"] = torch.zeros_like(weight)  # momentum, named as in Adam
        momentum = state["exp_avg"].lerp(gradient, 1 - MOMENTUM)
        # a matrix with one row per filter
        nesterov = gradient.lerp(momentum, MOMENTUM).flatten(1)
        scale = max(1.0, nesterov.shape[0] / nesterov.shape[1]) ** 0.5
        updated = weight - lr * scale * orthogonalize(nesterov).view_as(weight)
        if self.found_inf is not None:
            failed = self.found_inf > 0
            momentum = torch.where(failed, state["exp_avg"], momentum)
            updated = torch.where(failed, weight, updated)
        state["exp_avg"].copy_(momentum)
        weight.copy_(updated)


def hidden_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return all matrices and convolution kernels except the first and the last."""
    return [parameter for parameter in module.parameters() if parameter.ndim > 1][1:-1]


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return an approximation of the semi-orthogonal matrix nearest to a matrix (N, M).

    It is U V^T, where U S V^T is the singular value decomposition of the matrix.
    """
    # Newton-Schulz iterations drive all singular values towards 1: each multiplies x by
    # a polynomial in the small square matrix x x^T. Here the iterations update only
    # small matrices: x x^T, and the product of all polynomials so far. x itself is used
    # in two products: the first and the last. This halves the time for a convolution's
    # matrix of 128 x 1152.
    a, b, c = _QUINTIC
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    square = x @ x.T
    product = torch.eye(len(square), dtype=x.dtype, device=x.device)
    for _ in range(_ITERATIONS):
        step = b * square + c * square @ square
        step.diagonal().add_(a)
        product, square = step @ product, step @ square @ step
    x = product @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T

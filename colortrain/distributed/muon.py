"""Muon: steps of hidden weights are orthogonalised momentum, all other parameters' are Adam's (Jordan et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from colortrain.recipe import Adam

MOMENTUM = 0.95
_ITERATIONS = 5
_QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # steepest at 0: singular values end between .7 and 1.2, and that is near enough


class Muon(torch.optim.Optimizer):
    """Adam at `adam.lr` for a module's biases, norms, first and last weights; for those between, at rate `adam.muon`,
    a step along U V^T of the momentum's singular value decomposition, a filter a row. `torch.optim.Muon` takes matrices
    alone, and no others beside them.

    State is Adam's by name: "exp_avg" is the momentum. An update with `found_inf` of 1 changes nothing.
    """

    found_inf: Tensor | None = None  # on the device: 1 where a gradient is not finite

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
        # one state and one list of rates, whoever looks at them
        self.adam.state = self.state
        self.param_groups[1] = self.adam.param_groups[0]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        if self.found_inf is not None:
            self.adam.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.adam.step()
        hidden = self.param_groups[0]
        for weight in hidden["params"]:
            if weight.grad is not None:
                self._step(weight, weight.grad, hidden["lr"])

    def _step(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["exp_avg"] = torch.zeros_like(weight)
        momentum = state["exp_avg"].lerp(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov's
        tall = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
        moved = weight - rate * tall * orthogonal(ahead).view_as(weight)
        if self.found_inf is not None:
            failed = self.found_inf > 0
            momentum = torch.where(failed, state["exp_avg"], momentum)
            moved = torch.where(failed, weight, moved)
        state["exp_avg"].copy_(momentum)
        weight.copy_(moved)


def hidden_weights(module: nn.Module) -> list[nn.Parameter]:
    """Its matrices and convolutions but for the first and the last, which touch pictures."""
    return [parameter for parameter in module.parameters() if parameter.ndim > 1][1:-1]


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly U V^T of a matrix (N, M): Newton and Schulz's iteration drives all singular values towards 1.

    Every step multiplies by a polynomial of the small square x x^T, so the steps are gathered there and the matrix is
    touched twice: half the time for a convolution's 128 x 1152.
    """
    a, b, c = _QUINTIC
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    square = x @ x.T
    gathered = torch.eye(len(square), dtype=x.dtype, device=x.device)
    for _ in range(_ITERATIONS):
        step = b * square + c * square @ square
        step.diagonal().add_(a)
        gathered, square = step @ gathered, step @ square @ step
    x = gathered @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T

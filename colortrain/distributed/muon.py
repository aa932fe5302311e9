"""The Muon optimizer (Jordan et al. 2024) for hidden weights; Adam for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colortrain.recipe import Adam

MOMENTUM = 0.95
_ITERATIONS = 5
# chosen for steepness at 0; singular values end between 0.7 and 1.2, close enough to 1
_QUINTIC = (3.4445, -4.7750, 2.0315)

# The largest batch of weights that are updated together, by device. A GPU takes longer
# to start an operation than to update one small weight; a batch needs three times its
# size in memory. The value for GPUs was chosen without one. On CPUs, small batches stay
# in the cache, which is faster.
MAX_NUMBERS = {"cpu": 1 << 18, "cuda": 1 << 24}


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
        for weights in batches(weight for weight in hidden["params"] if weight.grad is not None):
            self._step(weights, hidden["lr"])

    def _step(self, weights: Sequence[Tensor], lr: float) -> None:
        """Update a list of weights that `batches` returned."""
        # `view` raises an error for tensors that it would have to copy
        targets = [memory_order(weight, weight).view(-1) for weight in weights]
        momenta = [memory_order(self._momentum(weight), weight).view(-1) for weight in weights]
        old = torch.cat(momenta)
        gradient = torch.cat([memory_order(_grad(weight), weight).flatten() for weight in weights])
        if self.found_inf is None:
            momentum = old.lerp_(gradient, 1 - MOMENTUM)
            nesterov = gradient.lerp_(momentum, MOMENTUM)
        else:
            failed = self.found_inf > 0
            momentum = torch.where(failed, old, old.lerp(gradient, 1 - MOMENTUM))
            # zeros make no change
            nesterov = gradient.lerp_(momentum, MOMENTUM).masked_fill_(failed, 0)
        torch._foreach_copy_(momenta, momentum.split([len(each) for each in momenta]))
        changes: list[Tensor] = []
        for update in orthogonalize(stacks_of_matrices(nesterov, weights)):
            scale = max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            changes += update.mul_(lr * scale).flatten(1).unbind()
        torch._foreach_sub_(targets, changes)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["exp_avg"] = torch.zeros_like(weight)  # named as in Adam
        return state["exp_avg"]


def hidden_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return all matrices and convolution kernels except the first and the last."""
    return [parameter for parameter in module.parameters() if parameter.ndim > 1][1:-1]


def matrix_shape(weight: Tensor) -> tuple[int, int]:
    """Return the numbers of rows and columns of a weight, with one row per filter."""
    return len(weight), weight.numel() // len(weight)


def _grad(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def batches(weights: Iterable[Tensor]) -> list[list[Tensor]]:
    """Divide weights into lists whose matrices have equal shorter sides.

    Each list is sorted by shape, and has at most `MAX_NUMBERS` numbers or one weight.
    """
    lists: list[list[Tensor]] = []
    side = numbers = 0
    for weight in sorted(weights, key=lambda weight: (min(shape := matrix_shape(weight)), shape)):
        shorter = min(matrix_shape(weight))
        numbers += weight.numel()
        if shorter != side or numbers > MAX_NUMBERS.get(weight.device.type, MAX_NUMBERS["cuda"]):
            lists.append([])
            side, numbers = shorter, weight.numel()
        lists[-1].append(weight)
    return lists


def memory_order(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return a view of a tensor with its dimensions in the order of `weight` in memory.

    tensor: in the shape of `weight`, which is contiguous or channels_last, so that the
    rows of its matrix stay rows.
    """
    # `orthogonalize` does not depend on the order of a matrix's columns
    return tensor if weight.is_contiguous() else tensor.movedim(1, -1)


def stacks_of_matrices(vector: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the part of a vector for each shape of matrix, as (K, N, M).

    vector: the numbers of all weights. weights: sorted by shape; K have matrices of
    the shape (N, M).
    """
    counts = Counter(matrix_shape(weight) for weight in weights)
    parts = vector.split([count * rows * columns for (rows, columns), count in counts.items()])
    return [part.view(-1, *shape) for part, shape in zip(parts, counts, strict=True)]


def orthogonalize(stacks: Sequence[Tensor]) -> list[Tensor]:
    """Return approximations of the semi-orthogonal matrices nearest to given matrices.

    Of a matrix with the singular value decomposition U S V^T, it is U V^T.

    stacks: tensors (K, N, M), each with K matrices, like the results. K and the longer
    side of a matrix may differ between stacks; the shorter side is the same in all. The
    stacks are overwritten.
    """
    # Newton-Schulz iterations drive all singular values towards 1: each multiplies x by
    # a polynomial in the small square matrix x x^T. Here the iterations update only
    # small matrices: x x^T, and the product of all polynomials so far. x itself is used
    # in two products: the first and the last. This halves the time for a convolution's
    # matrix of 128 x 1152.
    wide = [x if x.shape[1] <= x.shape[2] else x.mT for x in stacks]
    wide = [x.div_(torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7) for x in wide]
    squares = torch.cat([x @ x.mT for x in wide])
    products = _product_of_polynomials(squares).split([len(x) for x in wide])
    results = [product @ x for product, x in zip(products, wide, strict=True)]
    return [x if x.shape == like.shape else x.mT for x, like in zip(results, stacks, strict=True)]


def _product_of_polynomials(square: Tensor) -> Tensor:
    """Return the product of the polynomials of all iterations, (K, N, N).

    square: (K, N, N), x x^T of each matrix x.
    """
    a, b, c = _QUINTIC
    product = None
    for i in range(_ITERATIONS):
        step = b * square + c * square @ square
        step.diagonal(dim1=1, dim2=2).add_(a)
        product = step if product is None else step @ product
        if i < _ITERATIONS - 1:
            square = step @ square @ step
    assert product is not None
    return product

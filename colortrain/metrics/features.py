"""Distances between two sets of pictures, in the feature space of a network that the caller names: numpy, float64.

A set is `Moments` (sums that stream and merge over processes) or `Rows` (the vectors themselves, in order).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEP = 2.0**-12  # features are rounded to this
_MOST = 2.0**9  # and must stay below this
_ROWS = (
    2**11
)  # products of so many rows add up in float64 without rounding: 2 (12 + 9) + 11 = 53 bits
_LARGEST_SET = 2**21  # and of so many in int64


class OutOfRangeError(ValueError):
    """Features that are no numbers, or so large that their moments would not be exact."""


@dataclass(frozen=True)
class Moments:
    """Number, sums (D,) and sums of products (D, D) of feature vectors, in whole steps of 2^-12 and 2^-24: int64.

    Whole numbers add up exactly, so any order and any sharing over processes give the same bits. The rounding is
    below 1e-8 in each variance; features must stay below 512 in magnitude.
    """

    num: int
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Those of (N, D) features; raises `OutOfRangeError` for one that is not below 512."""
        steps = np.rint(np.asarray(features, np.float64) / _STEP)
        if not (np.abs(steps) < _MOST / _STEP).all():
            raise OutOfRangeError(
                f"features must be finite and below {_MOST:.0f} in magnitude: scale them"
            )
        products = np.zeros((steps.shape[1],) * 2, np.int64)
        for start in range(0, len(steps), _ROWS):
            part = steps[start : start + _ROWS]
            products += (part.T @ part).astype(np.int64)
        return cls(len(steps), steps.astype(np.int64).sum(0), products)

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets together."""
        if self.num + other.num > _LARGEST_SET:
            raise ValueError(f"more than {_LARGEST_SET:,} pictures in one set")
        return Moments(self.num + other.num, self.sums + other.sums, self.products + other.products)

    @property
    def mean(self) -> np.ndarray:
        """(D,) float64."""
        return self.sums * _STEP / self.num

    @property
    def covariance(self) -> np.ndarray:
        """(D, D) float64, divided by N - 1; raises `ValueError` below two pictures."""
        if self.num < 2:
            raise ValueError(f"a covariance needs two pictures, got {self.num}")
        return (self.products * _STEP**2 - self.num * np.outer(self.mean, self.mean)) / (
            self.num - 1
        )

    @property
    def std(self) -> np.ndarray:
        """(D,) float64, with N - 1."""
        return np.sqrt(self.covariance.diagonal().clip(0))


@dataclass(frozen=True)
class Rows:
    """Feature vectors in chunks, each with the number of its first picture; those of all processes are added up."""

    chunks: tuple[tuple[int, np.ndarray], ...] = ()

    def __add__(self, other: Rows) -> Rows:
        """Both sets together."""
        return Rows(self.chunks + other.chunks)

    def array(self) -> np.ndarray:
        """(N, D) in the order of pictures, whoever computed them."""
        return np.concatenate([rows for _, rows in sorted(self.chunks, key=lambda chunk: chunk[0])])


def fid(real: Moments, fake: Moments) -> float:
    """Fréchet distance of the Gaussians with these moments (Heusel et al. 2017, equation 6)."""
    root = _root(real.covariance)
    # the trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric
    both = np.linalg.eigvalsh(root @ fake.covariance @ root)
    spread = np.trace(real.covariance) + np.trace(fake.covariance) - 2 * np.sqrt(both.clip(0)).sum()
    return float(np.square(real.mean - fake.mean).sum() + spread)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def fid_diagonal(real: Moments, fake: Moments) -> float:
    """2 |mu - mu'|^2 + |sigma - sigma'|^2, element-wise sigma: what arun calls FID (section II-F), and is not."""
    return float(2 * np.square(real.mean - fake.mean).sum() + np.square(real.std - fake.std).sum())


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """exp of the mean divergence of p(y | x) from p(y) (Salimans et al. 2016, section 4): mean and std over splits.

    `logits`: (N, classes). Splits are runs of pictures in their order, of N / splits each, as in the authors' code.
    """
    if len(logits) < splits:
        raise ValueError(f"{splits} splits need as many pictures, got {len(logits)}")
    wide = np.asarray(logits, np.float64)
    logs = wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
    scores = [_score_of(part) for part in np.array_split(logs, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score_of(logs: np.ndarray) -> float:
    marginal = np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
    return float(np.exp((np.exp(logs) * (logs - marginal)).sum(1).mean()))


def kid(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Kernel distance (Bińkowski et al. 2018, section 4): mean and std of `mmd` over random subsets of both sets.

    (N, D) and (M, D) features; a subset is no larger than the smaller set. The draw follows from `seed` alone.
    """
    size = min(subset_size, len(real), len(fake))
    draw = np.random.default_rng(seed)
    values = [
        mmd(
            real[draw.choice(len(real), size, replace=False)],
            fake[draw.choice(len(fake), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def mmd(one: np.ndarray, other: np.ndarray) -> float:
    """Squared maximum mean discrepancy of the kernel (x . y / D + 1)^3, the unbiased estimate: it may fall below 0."""
    if min(len(one), len(other)) < 2:
        raise ValueError("the unbiased estimate needs two pictures on each side")
    return (
        _mean_off_diagonal(one) + _mean_off_diagonal(other) - 2 * float(_kernel(one, other).mean())
    )


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) @ other.astype(np.float64).T / one.shape[1] + 1) ** 3


def _mean_off_diagonal(features: np.ndarray) -> float:
    kernel = _kernel(features, features)
    return float((kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)))

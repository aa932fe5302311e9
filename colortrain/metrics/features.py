"""Distances between two sets of feature vectors, in numpy and float64.

A set is represented by `Moments`, sums over its vectors, or by `FeatureRows`, the
vectors themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEP = 2.0**-12  # features are rounded to multiples of this
_LIMIT = 2.0**9  # and must be below this in magnitude
# the most rows whose products float64 sums without rounding: 2 (12 + 9) + 11 = 53 bits
_ROWS_PER_PRODUCT = 2**11
_LARGEST_SET = 2**21  # the most rows whose products int64 sums without overflow
# parts of a set for the inception score (Salimans et al. 2016); Arun gives neither
# their number nor the weights and layer of Inception (docs/METRICS.md)
INCEPTION_SPLITS = 10
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # images (Bińkowski et al. 2018)


class OutOfRangeError(ValueError):
    """Raised for features that are not finite, or too large for exact moments."""


@dataclass(frozen=True)
class Moments:
    """Number, sum (D,) and sum of outer products (D, D) of a set of feature vectors.

    Sums and products are int64, in steps of 2^-12 and 2^-24. Features must be below 512
    in magnitude.
    """

    # Sums of integers are exact, so any order and any distribution over processes give
    # the same bits. Rounding to these steps changes each variance by less than 1e-8.
    num: int
    sums: np.ndarray
    products: np.ndarray

    def __post_init__(self) -> None:
        if self.num > _LARGEST_SET:
            raise ValueError(f"a set may have at most {_LARGEST_SET:,} images")

    @classmethod
    def none(cls, width: int) -> Moments:
        """Return the moments of an empty set of features of length `width`."""
        return cls(0, np.zeros(width, np.int64), np.zeros((width, width), np.int64))

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Return the moments of features (N, D).

        Raises OutOfRangeError if a feature is not finite or not below 512 in magnitude.
        """
        steps = np.rint(np.asarray(features, np.float64) / _STEP)
        if not (np.abs(steps) < _LIMIT / _STEP).all():
            raise OutOfRangeError(
                f"features must be finite and below {_LIMIT:.0f} in magnitude: scale them"
            )
        products = np.zeros((steps.shape[1],) * 2, np.int64)
        for start in range(0, len(steps), _ROWS_PER_PRODUCT):
            part = steps[start : start + _ROWS_PER_PRODUCT]
            products += (part.T @ part).astype(np.int64)
        return cls(len(steps), steps.astype(np.int64).sum(0), products)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the union of two sets.

        Raises ValueError for more than 2^21 vectors.
        """
        return Moments(self.num + other.num, self.sums + other.sums, self.products + other.products)

    @property
    def mean(self) -> np.ndarray:
        """Mean vector, (D,) float64."""
        return self.sums * _STEP / self.num

    @property
    def covariance(self) -> np.ndarray:
        """Covariance matrix, (D, D) float64, with divisor N - 1.

        Raises ValueError for fewer than two vectors.
        """
        if self.num < 2:
            raise ValueError(f"a covariance requires at least two images, got {self.num}")
        return (self.products * _STEP**2 - self.num * np.outer(self.mean, self.mean)) / (
            self.num - 1
        )

    @property
    def std(self) -> np.ndarray:
        """Standard deviations, (D,) float64, with divisor N - 1.

        Raises `ValueError` for fewer than two vectors.
        """
        return np.sqrt(self.covariance.diagonal().clip(0))


@dataclass(frozen=True)
class FeatureRows:
    """The feature vectors of a set of images, in chunks.

    A chunk is a pair: the index of its first image, and an array (n, D).
    """

    chunks: tuple[tuple[int, np.ndarray], ...] = ()

    def __add__(self, other: FeatureRows) -> FeatureRows:
        """Return the union of this set of vectors and another one."""
        return FeatureRows(self.chunks + other.chunks)

    def array(self) -> np.ndarray:
        """Return the vectors of all chunks, (N, D), in the order of images."""
        return np.concatenate([rows for _, rows in sorted(self.chunks, key=lambda chunk: chunk[0])])


def fid(real: Moments, fake: Moments) -> float:
    """Return the Fréchet distance of two Gaussians, given the moments of two sets.

    (Heusel et al. 2017, equation 6.) Raises ValueError if a set has fewer than two
    vectors.
    """
    sqrt_real = _sqrt_psd(real.covariance)
    # the trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric
    eigenvalues = np.linalg.eigvalsh(sqrt_real @ fake.covariance @ sqrt_real)
    trace = (
        np.trace(real.covariance)
        + np.trace(fake.covariance)
        - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    )
    return float(np.square(real.mean - fake.mean).sum() + trace)


def _sqrt_psd(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def fid_diagonal(real: Moments, fake: Moments) -> float:
    """Return 2 |mu - mu'|^2 + |sigma - sigma'|^2, which Arun calls FID.

    mu and mu' are the means of the features of the two sets, and sigma and sigma' are
    their element-wise standard deviations (Arun, section II-F). It is not FID. Raises
    ValueError if a set has fewer than two vectors.
    """
    return float(2 * np.square(real.mean - fake.mean).sum() + np.square(real.std - fake.std).sum())


def inception_score(logits: np.ndarray, splits: int = INCEPTION_SPLITS) -> tuple[float, float]:
    """Return the inception score's mean and standard deviation over splits.

    logits: (N, classes). The score is exp of the mean KL divergence of p(y | x) from
    p(y), where x is an image and y its class (Salimans et al. 2016, section 4). The
    score of a split of n images is between 1 and n, so it is smaller for smaller
    splits. Raises ValueError if there are fewer images than splits.
    """
    if len(logits) < splits:
        raise ValueError(f"{splits} splits require at least {splits} images, got {len(logits)}")
    logits64 = np.asarray(logits, np.float64)
    logs = logits64 - np.logaddexp.reduce(logits64, axis=1, keepdims=True)
    # splits are consecutive images, as in the authors' code
    scores = [_split_score(part) for part in np.array_split(logs, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _split_score(logs: np.ndarray) -> float:
    marginal = np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
    return float(np.exp((np.exp(logs) * (logs - marginal)).sum(1).mean()))


def kid(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the kernel inception distance (KID) and its standard deviation.

    real: (N, D), fake: (M, D). KID is the mean of `mmd` over random subsets of both
    sets (Bińkowski et al. 2018, section 4). Raises ValueError if a set has fewer than
    two vectors.
    """
    size = min(subset_size, len(real), len(fake))
    rng = np.random.default_rng(seed)
    values = [
        mmd(
            real[rng.choice(len(real), size, replace=False)],
            fake[rng.choice(len(fake), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def mmd(one: np.ndarray, other: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of two sets of feature vectors.

    one: (N, D), other: (M, D). The kernel is (x . y / D + 1)^3. The estimate is
    unbiased, and may be negative. Raises ValueError if a set has fewer than two
    vectors.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError("the unbiased estimate requires at least two images in each set")
    return (
        _mean_off_diagonal(one) + _mean_off_diagonal(other) - 2 * float(_kernel(one, other).mean())
    )


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) @ other.astype(np.float64).T / one.shape[1] + 1) ** 3


def _mean_off_diagonal(features: np.ndarray) -> float:
    kernel = _kernel(features, features)
    return float((kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)))

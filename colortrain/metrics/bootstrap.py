"""How far a mean over pictures may lie from where other pictures of the same kind would have put it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
_AT_ONCE = 50


def resampled_means(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each metric's mean over as many pictures drawn anew with replacement, (RESAMPLES,) from (N,).

    All metrics see the same draws, so that differences of two versions can be read off. Efron 1979.
    """
    names = list(rows)
    table = np.stack([rows[name] for name in names], axis=1)
    means = np.concatenate([_means(counts, table) for counts in _draws(len(table))])
    return dict(zip(names, means.T, strict=True))


def _draws(num: int) -> Iterator[np.ndarray]:
    """How often each picture is drawn, (_AT_ONCE, N) at a time."""
    draw = np.random.default_rng(SEED)
    for _ in range(RESAMPLES // _AT_ONCE):
        numbers = draw.integers(num, size=(_AT_ONCE, num)) + num * np.arange(_AT_ONCE)[:, None]
        yield np.bincount(numbers.ravel(), minlength=_AT_ONCE * num).reshape(_AT_ONCE, num)


def _means(counts: np.ndarray, table: np.ndarray) -> np.ndarray:
    # einsum without BLAS, whose last bits follow the number of threads
    return np.einsum("bn,nk->bk", counts.astype(np.float64), table, optimize=False) / len(table)


def interval(values: np.ndarray) -> list[float]:
    """The percentile interval of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]

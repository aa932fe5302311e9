"""Bootstrap confidence intervals for means over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
_BATCH = 50


def resampled_means(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return, for each metric, its means over bootstrap resamples of the images.

    rows: one array (N,) per metric, with a value per image. Each result is an array
    (RESAMPLES,). All metrics use the same resamples (Efron 1979).
    """
    # with the same resamples, images can be compared with a baseline in each resample
    names = list(rows)
    table = np.stack([rows[name] for name in names], axis=1)
    means = np.concatenate([_means(counts, table) for counts in _draws(len(table))])
    return dict(zip(names, means.T, strict=True))


def _draws(num: int) -> Iterator[np.ndarray]:
    """Yield integer arrays (_BATCH, num): how often each resample draws each image."""
    rng = np.random.default_rng(SEED)
    for _ in range(RESAMPLES // _BATCH):
        indices = rng.integers(num, size=(_BATCH, num)) + num * np.arange(_BATCH)[:, None]
        yield np.bincount(indices.ravel(), minlength=_BATCH * num).reshape(_BATCH, num)


def _means(counts: np.ndarray, table: np.ndarray) -> np.ndarray:
    # einsum without BLAS, whose last bits depend on the number of threads
    return np.einsum("bn,nk->bk", counts.astype(np.float64), table, optimize=False) / len(table)


def interval(values: np.ndarray) -> list[float]:
    """Return the interval [low, high] that contains 95 % of resampled means.

    values: (RESAMPLES,), the mean of a metric in each resample.
    """
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]

"""Whether a run's images were made square in the way of its recipe's paper."""

from __future__ import annotations

from pathlib import Path

from colortrain.recipe import Recipe
from shards.inspect.aspect import only_squares
from shards.read.backends import scheme_of
from shards.read.dataset import Split
from shards.read.mixture import Mixture, Samples


def fit_warning(recipe: Recipe, samples: Samples) -> str | None:
    """Return a warning if shards were built with another --fit than the paper's.

    The warning is one line. It is None if the paper does not say how images become
    square, if the source images are known to be square, and for data that are not shard
    sets.
    """
    parts: tuple[Split, ...] = ()
    if isinstance(samples, Mixture):
        parts = samples.parts
    elif isinstance(samples, Split):
        parts = (samples,)
    others = {
        part.store.location: part.manifest.fit
        for part in parts
        if recipe.fit not in (None, part.manifest.fit) and not _is_square(part)
    }
    if not others:
        return None
    built = " and ".join(f"{where} was built with --fit {fit}" for where, fit in others.items())
    return (
        f"warning: {built}, but the paper of {recipe.name} uses --fit {recipe.fit}, so scores do "
        f"not compare with the paper's: build the shards with --fit {recipe.fit}, or give "
        "--set fit=none"
    )


def _is_square(part: Split) -> bool:
    return scheme_of(str(part.root)) is None and only_squares(Path(part.root))

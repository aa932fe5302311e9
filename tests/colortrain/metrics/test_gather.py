"""Scores that several processes compute together: the bits of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from colortrain.metrics.features import Moments
from tests.support.processes import run_command


@pytest.mark.distributed
@pytest.mark.parametrize(("diverged", "worlds"), [(False, [2, 7]), (True, [2])])
def test_any_number_of_processes_gives_the_same_bits(
    tmp_path: Path, diverged: bool, worlds: list[int]
) -> None:
    """13 samples in chunks of 3, with dropout; of seven ranks two have no samples.

    With a diverged network, the generated colours of the last chunk are not finite.
    """
    module = "tests.support.score_on_ranks"
    done = run_command(module, [tmp_path, "diverged" if diverged else "finite", *worlds])
    assert done.returncode == 0, done.stderr
    alone = json.loads((tmp_path / "1-0.json").read_text())
    assert {"frechet_lab", "fid", "kid", "inception_score"} <= alone["metrics"].keys()
    for metric in ("fid", "frechet_lab"):
        assert (alone["metrics"][metric]["generated"] is None) is diverged
    for world in worlds:
        for rank in range(world):
            scores = json.loads((tmp_path / f"{world}-{rank}.json").read_text())
            assert scores == alone, f"rank {rank} of {world}"
            # the products of LAB_FIELDS, of four versions: reduced, not gathered
            sent = json.loads((tmp_path / f"sent-{world}-{rank}.json").read_text())
            assert sent["all_gather_object"] + sent["gather_object"] < 80 * 80 * 8


def test_moments_of_no_features_add_nothing() -> None:
    moments = Moments.of(np.random.default_rng(0).normal(size=(5, 3)))
    total = Moments.none(3) + moments
    assert (total.num, total.sums.tolist()) == (5, moments.sums.tolist())
    assert np.array_equal(total.products, moments.products)


def test_a_set_that_is_too_large_is_an_error() -> None:
    """Sums of its products might not fit into int64."""
    none = Moments.none(1)
    assert Moments(2**21, none.sums, none.products).num == 2**21
    with pytest.raises(ValueError, match="at most 2,097,152 images"):
        Moments(2**21 + 1, none.sums, none.products)

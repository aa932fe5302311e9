"""Statistics against numpy on the unpacked arrays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.lab import unpack
from shards.statistics import CENTRES, EDGES, statistics, sums_of
from shards.tars import pixels_view
from tests.shards.pictures import make_folder, pack_folder


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_statistics_are_numpys(tmp_path: Path, dtype: str) -> None:
    outcome = pack_folder(make_folder(tmp_path / "photos", 20), tmp_path / "out", dtype=dtype, splits="train=.6,val=.4")
    document = statistics(tmp_path / "out", workers=1, quiet=True)
    for split, shards in outcome.manifest.splits.items():
        views = [pixels_view(tmp_path / "out" / shard.path, shard.samples, 32, dtype) for shard in shards]
        lab = unpack(np.concatenate(views)).transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
        each = document["splits"][split]
        np.testing.assert_allclose([each["mean"][name] for name in "Lab"], lab.mean(1), rtol=1e-6)
        np.testing.assert_allclose([each["std"][name] for name in "Lab"], lab.std(1), rtol=1e-6)
        expected, _, _ = np.histogram2d(lab[1], lab[2], bins=[np.array(EDGES)] * 2)
        assert np.array_equal(each["ab_histogram"], expected)
        assert each["pixels"] == expected.sum() == outcome.manifest.samples(split) * 32 * 32


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 6), st.integers(1, 6))))
def test_every_pixel_is_counted(stored: np.ndarray) -> None:
    assert sums_of(stored).counts.sum() == stored[0].size


def test_bins_are_centred_on_multiples_of_ten() -> None:
    stored = np.array([[[0]], [[128 + 34]], [[128 - 56]]], np.uint8)
    a, b = np.argwhere(sums_of(stored).counts)[0]
    assert (CENTRES[a], CENTRES[b]) == (30, -60)
    assert EDGES[a] <= 34 < EDGES[a + 1]

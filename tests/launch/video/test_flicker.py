"""Flicker: the change of colours where nothing moves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from launch.video.flicker import Flicker


def test_flicker_is_the_mean_change_of_colours_where_nothing_moves() -> None:
    flicker = Flicker()
    assert math.isnan(flicker.mean)
    L, ab = np.full((4, 4), 50.0), np.zeros((2, 4, 4))
    flicker.add(L, ab)
    moved = L.copy()
    moved[:2] += 10  # moving pixels do not count, whatever their colours
    other = np.stack([np.full((4, 4), 3.0), np.full((4, 4), 4.0)])
    other[:, :2] = 90
    flicker.add(moved, other)
    assert flicker.mean == pytest.approx(5.0)
    flicker.add(moved, other)
    assert flicker.mean == pytest.approx(5 * 8 / (8 + 16)), "a repeated frame adds zeros"

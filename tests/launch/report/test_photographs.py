"""The report's photographs: ranking, histograms of colours, and slider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Page

from launch.report.__main__ import main
from launch.report.photographs import ScoredSamples, _count_ab, photo_section, score_samples


@pytest.fixture(scope="module")
def samples(folder: Path) -> ScoredSamples:
    return score_samples(folder / "one", str(folder / "shards"), 8)


def test_best_and_worst_are_ranked_by_their_improvement_over_grayscale(
    samples: ScoredSamples,
) -> None:
    section = photo_section(samples, 3)
    gains = dict(zip(samples.numbers.tolist(), samples.l1_improvement.tolist(), strict=True))
    ranked = sorted(gains, key=lambda number: -gains[number])
    assert [photo["number"] for photo in section["best"]] == ranked[:3]
    assert [photo["number"] for photo in section["worst"]] == ranked[::-1][:3]
    assert section["num_better"] == sum(gain > 0 for gain in gains.values())
    truth = torch.from_numpy(samples.truth)
    np.testing.assert_allclose(
        samples.metrics["l1.grey"], truth[:, 1:].abs().mean(dim=(1, 2, 3)) / 110, rtol=1e-5
    )


def test_histograms_count_every_pixel_in_the_bin_of_its_colour() -> None:
    lab = np.zeros((1, 3, 2, 2), np.float32)
    lab[0, 1] = [[20, 20], [-110, 500]]  # 500 is outside: counted in the outermost bin
    lab[0, 2] = [[-40, -40], [0, 0]]
    counts = _count_ab(lab)
    middle = len(counts) // 2
    assert counts.sum() == 4
    assert counts[middle - 20, middle + 10] == 2
    assert counts[middle, 0] == counts[middle, -1] == 1


def test_the_slider_divides_before_and_after(
    open_page: Callable[[Path], Page], folder: Path
) -> None:
    args = ["--shards", str(folder / "shards"), "--photos", "8"]
    assert main([str(folder / "one"), "--out", str(folder / "photos"), *args]) == 0
    page = open_page(folder / "photos" / "report.html")
    stack = page.locator(".stack").first
    box = stack.bounding_box()
    assert box is not None

    def cut() -> float:
        return float(stack.evaluate("stack => getComputedStyle(stack).getPropertyValue('--cut')"))

    assert cut() == 0.5
    assert "inset" in stack.locator(".over.grey").evaluate(
        "image => getComputedStyle(image).clipPath"
    )
    stack.locator("input").focus()
    page.keyboard.press("End")
    assert cut() == 1
    stack.locator("input").click(position={"x": 0.25 * box["width"], "y": 0.5 * box["height"]})
    assert cut() == pytest.approx(0.25, abs=0.05)  # the thumb's width is not part of the range
    page.get_by_label("true colours").check()
    assert stack.locator(".over.truth").is_visible()
    assert not stack.locator(".over.grey").is_visible()

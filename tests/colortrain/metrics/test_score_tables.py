"""Score tables: cells, caption and notes of given scores, comparisons by direction."""

from __future__ import annotations

from typing import Any

import pytest

from colortrain.metrics.score_tables import (
    HEAD,
    caption,
    compared_with_grayscale,
    notes,
    table_rows,
    text_table,
)

L1 = {"generated": 0.123456, "grey": 0.25, "median": 0.2}
SCORES: dict[str, Any] = {
    "samples": 1234,
    "metrics": {"l1": L1, "colourfulness": {"generated": 20.0, "truth": 30.0}},
    "intervals": {"l1": {"generated": [0.1, 0.15], "generated - grey": [-0.14, -0.1]}},
    "protocol": {
        "dataset_id": "feed",
        "split": "val",
        "size": 64,
        "fit": "crop",
        "dropout": True,
        "lightness": "given",
        "median": {"ab": [1.5, -2.0], "split": "train", "oracle": False},
        "extractors": {
            name: {"extractor": "InceptionV3", "weights": "w", "resize": "299"}
            for name in ("fid", "kid")
        },
        "left_out": {"lpips": "--lpips"},
    },
}


def test_each_metric_has_one_row_with_a_cell_per_column() -> None:
    first, second = table_rows(SCORES)
    assert dict(zip(HEAD, first, strict=True)) == {
        "metric": "L1 of ab / 110",
        "better": "↓",
        "generated": "0.1235",
        "95 %": "0.1000 to 0.1500",
        "vs. grayscale": "better",
        "grayscale": "0.2500",
        "median colour": "0.2000",
        "truth": "",
    }
    assert second == ["colourfulness (M3)", "→ truth", "20.00", "", "", "", "", "30.00"]


@pytest.mark.parametrize(
    ("metric", "difference", "expected"),
    [
        ("l1", [-0.2, -0.1], "better"),
        ("l1", [0.1, 0.2], "worse"),
        ("l1", [-0.1, 0.1], "level"),
        ("psnr", [1.0, 2.0], "better"),
        ("psnr", [-2.0, -1.0], "worse"),
        ("sepia", [1.0, 2.0], ""),
        ("of another version", [1.0, 2.0], ""),
    ],
)
def test_the_comparison_follows_the_direction(
    metric: str, difference: list[float], expected: str
) -> None:
    scores = {"intervals": {metric: {"generated - grey": difference}}}
    assert compared_with_grayscale(scores, metric) == expected
    assert compared_with_grayscale({}, metric) == ""


def test_caption_and_notes_state_the_protocol() -> None:
    assert caption(SCORES) == (
        "1,234 samples of val of feed, 64 px (crop), dropout on, L given; "
        "median a, b = 1.5, -2 of train"
    )
    lines = notes(SCORES)
    assert lines[1:] == [
        "fid, kid: InceptionV3, w, resize 299; n = 1,234",
        "not computed: lpips; requires --lpips",
    ]
    assert lines[0].startswith("95 %: bootstrap over images")


def test_a_deviation_follows_its_value() -> None:
    """As papers print it: 4.3125 +- 1.8372."""
    name = "inception_score"
    scores: dict[str, Any] = {
        **SCORES,
        "metrics": {name: {"generated": 4.3125, "grey": 2.0, "truth": 4.3412}},
        "deviations": {name: {"generated": 1.8372, "truth": 1.7963}},
        "protocol": {**SCORES["protocol"], "deviations": {name: "10 splits of 123 images"}},
    }
    row = dict(zip(HEAD, table_rows(scores)[0], strict=True))
    assert (row["generated"], row["truth"]) == ("4.312 ± 1.837", "4.341 ± 1.796")
    assert (row["grayscale"], row["median colour"], row["95 %"]) == ("2.000", "", "")
    assert notes(scores)[1] == (
        "inception score: ± the standard deviation over 10 splits of 123 images"
    )


def test_the_table_has_caption_rows_and_notes() -> None:
    text = text_table(SCORES).splitlines()
    assert text[0] == caption(SCORES)
    assert text[1].split() == " ".join(HEAD).split()
    end = text[1].index("generated") + len("generated")
    assert text[2][:end].endswith(" 0.1235")  # numbers are aligned to the right
    assert text[-3:] == notes(SCORES)
    cells = [" ".join(row).split() for row in table_rows(SCORES)]
    assert [line.split() for line in text[2:-3]] == cells

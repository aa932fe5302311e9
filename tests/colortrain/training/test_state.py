"""What ranks compare before a save: fingerprints that any bit changes, and the line that names who differs."""

from __future__ import annotations

import pytest
import torch

from colortrain.training.state import disagreement, fingerprint, scrambled_sum


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_any_changed_bit_changes_the_fingerprint(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensor = (torch.rand(50) * 7).to(dtype)
    seen = {int(fingerprint(tensor))}
    width = 8 * tensor.element_size() if dtype != torch.bool else 1
    for element in (0, 17, 49):
        for bit in range(width):
            other = tensor.clone()
            raw = other.view(torch.uint8)
            raw[element * tensor.element_size() + bit // 8] ^= 1 << (bit % 8)
            seen.add(int(fingerprint(other)))
    assert len(seen) == 1 + 3 * width


def test_drifts_that_cancel_in_a_sum_do_not_cancel_here() -> None:
    """One weight one step up, another one down: as happens when rounding differs."""
    tensor = torch.rand(1000)
    other = tensor.clone()
    other[3], other[4] = (
        torch.nextafter(tensor[3], torch.tensor(2.0)),
        torch.nextafter(tensor[4], torch.tensor(-2.0)),
    )
    assert fingerprint(other) != fingerprint(tensor)
    one, two = (each.view(torch.int32) for each in (tensor, other))
    assert one.sum() == two.sum()
    assert scrambled_sum(one) != scrambled_sum(two)  # what a GPU computes


def test_fingerprints_ignore_layout_and_take_scalars() -> None:
    tensor = torch.rand(2, 3, 4, 5)
    assert fingerprint(tensor.to(memory_format=torch.channels_last)) == fingerprint(tensor)
    assert fingerprint(torch.tensor(3)) != fingerprint(torch.tensor(4))


@pytest.mark.parametrize(
    ("prints", "who", "where"),
    [
        (
            [[1, 2], [1, 3]],
            "rank 1 on b of 2",
            "y",
        ),  # of two, rank 0 is believed: it is what was saved before
        ([[9, 2], [1, 2], [1, 2]], "rank 0 on a of 3", "x"),
        ([[1, 2], [1, 2], [5, 5], [1, 4]], "rank 2 on c, 3 on d of 4", "x"),
    ],
)
def test_the_line_names_the_few_and_the_first_tensor(
    prints: list[list[int]], who: str, where: str
) -> None:
    line = disagreement(prints, ["x", "y"], ["a", "b", "c", "d"], step=40)
    assert line.startswith(f"step 40: {who} no longer holds what the others hold, from {where} on")
    assert "\n" not in line

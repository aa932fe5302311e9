"""The training state: fingerprints, differing ranks, the average, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.recipe import Plateau
from colortrain.runs.checkpoint import save_checkpoint
from colortrain.training.plateau import ReduceOnPlateau
from colortrain.training.state import (
    TrainState,
    describe_difference,
    fingerprint,
    hashed_sum,
    update_ema,
)
from colortrain.training.step import train_step
from tests.support.networks import (
    assert_equal,
    float_batch,
    l1_loss,
    make_pair,
    recipe_with_dropout,
)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_any_changed_bit_changes_the_fingerprint(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensor = (torch.rand(50) * 7).to(dtype)
    prints = {int(fingerprint(tensor))}
    width = 8 * tensor.element_size() if dtype != torch.bool else 1
    for element in (0, 17, 49):
        for bit in range(width):
            other = tensor.clone()
            raw = other.view(torch.uint8)
            raw[element * tensor.element_size() + bit // 8] ^= 1 << (bit % 8)
            prints.add(int(fingerprint(other)))
    assert len(prints) == 1 + 3 * width


def test_changes_that_cancel_in_a_sum_change_the_fingerprint() -> None:
    """One weight is one rounding step larger, another one smaller."""
    tensor = torch.rand(1000)
    other = tensor.clone()
    other[3] = torch.nextafter(tensor[3], torch.tensor(2.0))
    other[4] = torch.nextafter(tensor[4], torch.tensor(-2.0))
    assert fingerprint(other) != fingerprint(tensor)
    one, two = (each.view(torch.int32) for each in (tensor, other))
    assert one.sum() == two.sum()
    assert hashed_sum(one) != hashed_sum(two)  # what a GPU computes


def test_fingerprints_ignore_the_memory_format_and_accept_scalars() -> None:
    tensor = torch.rand(2, 3, 4, 5)
    assert fingerprint(tensor.to(memory_format=torch.channels_last)) == fingerprint(tensor)
    assert fingerprint(torch.tensor(3)) != fingerprint(torch.tensor(4))


@pytest.mark.parametrize(
    ("prints", "ranks", "first"),
    [
        ([[1, 2], [1, 3]], "1 on b (of 2 ranks)", "y"),  # of two, rank 0 is taken as the reference
        ([[9, 2], [1, 2], [1, 2]], "0 on a (of 3 ranks)", "x"),
        ([[1, 2], [1, 2], [5, 5], [1, 4]], "2 on c, 3 on d (of 4 ranks)", "x"),
    ],
)
def test_the_line_names_the_minority_and_the_first_tensor(
    prints: list[list[int]], ranks: str, first: str
) -> None:
    line = describe_difference(prints, ["x", "y"], ["a", "b", "c", "d"], step=40)
    expected = f"the tensors of rank {ranks} differ from those of the others, starting with {first}"
    assert line.startswith(f"step 40: {expected}")
    assert "\n" not in line


def test_the_line_says_what_to_do_about_different_gpus() -> None:
    hosts = ["a (NVIDIA H100)", "b (NVIDIA A100)"]
    line = describe_difference([[1], [2]], ["x"], hosts, step=40)
    assert "of rank 1 on b (NVIDIA A100) (of 2 ranks)" in line
    assert "GPUs of different models" in line
    assert "add --resync" in line


def test_the_average_moves_by_one_minus_decay_and_copies_buffers() -> None:
    ema, module = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    nn.init.constant_(module.weight, 5.0)
    module(torch.rand(2, 2, 3, 3))
    update_ema(ema, module, decay=0.75)
    assert ema.weight.tolist() == [2, 2]
    assert_equal(dict(ema.named_buffers()), dict(module.named_buffers()))


def make_state() -> TrainState:
    generator, critic = make_pair(recipe_with_dropout())
    networks = {"generator": generator, "critic": critic}
    ema = recipe_with_dropout().generator.build()
    plateau = ReduceOnPlateau(Plateau(patience=2))
    return TrainState(networks, ema, plateau, Accelerator(cpu=True))


def test_a_saved_state_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    recipe, state, fresh = recipe_with_dropout(), make_state(), make_state()
    pair = state.networks["generator"], state.networks["critic"]
    train_step(*pair, recipe, [l1_loss], float_batch(0), 0, 0.0)
    state.plateau.step(3.0)
    files = state.tensor_files()
    assert set(files) == {"generator", "critic", "ema", "generator_adam", "critic_adam"}
    folder = save_checkpoint(tmp_path, 1, files, recipe, state.json_state())
    fresh.load(folder, state.json_state())
    for name, tensors in fresh.tensor_files().items():
        assert_equal(tensors, files[name])
    assert fresh.json_state() == state.json_state()


def test_one_process_has_no_buffers_of_other_ranks_and_agrees_with_itself() -> None:
    state = make_state()
    assert state.bn_stats_files() == {}
    state.average_bn_stats()
    assert state.resync() == 0
    state.check_ranks_agree(step=1)

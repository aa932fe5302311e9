"""The training loader: global batches are the same for any world size and any resume.

Flips and crops depend on the position in the sample order alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colortrain.data.loader import Loader, LoaderConfig, augmentation_matrices, crop_and_flip, flips
from colortrain.lab import SymmetricCodec
from shards.errors import UserError
from shards.read.dataset import Split
from shards.read.mixture import Mixture, SampleOrder, Samples
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return Split(small_set(tmp_path_factory.mktemp("set"), size=32, count=37), "train")


CONFIG = LoaderConfig(batch_size=12, seed=5, flip=0.5)


def loader(split: Split, **changes: Any) -> Loader:
    return Loader(split, SymmetricCodec(), replace(CONFIG, **changes))


def stream(loader: Loader, batches: int, images: int = 0) -> torch.Tensor:
    generator = loader.batches(images)
    images_seen = [
        torch.cat([batch.L, batch.colour], dim=1) for batch in islice(generator, batches)
    ]
    generator.close()
    return torch.stack(images_seen)


@pytest.mark.parametrize("world", [2, 3, 4, 6, 12])
def test_ranks_together_read_the_global_batch(split: Split, world: int) -> None:
    expected = stream(loader(split), 7)  # more than one epoch
    parts = [stream(loader(split, rank=rank, world=world), 7) for rank in range(world)]
    assert torch.equal(torch.cat(parts, dim=1), expected)


@pytest.mark.parametrize("batches", [0, 1, 3, 5])
def test_a_resumed_loader_continues_the_same_stream(split: Split, batches: int) -> None:
    assert torch.equal(
        stream(loader(split), 7)[batches:], stream(loader(split), 7 - batches, images=12 * batches)
    )


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    world=st.sampled_from([1, 2, 3, 4, 6, 8]),
    workers=st.sampled_from([0, 1, 3]),
    accumulation=st.sampled_from([1, 2]),
    start=st.integers(0, 6),
    seed=st.integers(0, 9),
    mixed=st.booleans(),
)
def test_global_batches_do_not_depend_on_world_workers_and_accumulation(
    split: Split, world: int, workers: int, accumulation: int, start: int, seed: int, mixed: bool
) -> None:
    """The loader is killed after `start` batches and resumed; order is compared too.

    Gradient accumulation splits a rank's part of each global batch.
    """
    samples: Samples = Mixture([split, split], [Fraction(1), Fraction(2)]) if mixed else split
    batch, stop = 48, 6
    order = samples.order(seed)
    expected = order(0, stop * batch).reshape(stop, world, accumulation, -1)
    batches_read: list[np.ndarray] = []
    for rank in range(world):
        config = LoaderConfig(
            batch_size=batch, seed=seed, flip=0.5, rank=rank, world=world, workers=workers
        )
        loading = Loader(NumberedSamples(samples), SymmetricCodec(), config)
        for first, end in ((0, start), (start, stop)):
            with closing(loading.batches(first * batch)) as batches:
                batches_read += [
                    number_of(batch.L).reshape(accumulation, -1)
                    for batch in islice(batches, end - first)
                ]
    numbers = np.stack(batches_read).reshape(world, stop, accumulation, -1).swapaxes(0, 1)
    np.testing.assert_array_equal(numbers, expected)


class NumberedSamples:
    """Samples whose pixel values are their own number, to identify them in a batch."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.size, self.dataset_id = samples, 1, samples.dataset_id

    def __len__(self) -> int:
        return len(self.samples)

    def order(self, seed: int) -> SampleOrder:
        return self.samples.order(seed)

    def prefetch(self, order: SampleOrder, position: int) -> None:
        pass

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        return np.broadcast_to(
            np.asarray(samples, np.uint8)[:, None, None, None], (len(list(samples)), 3, 1, 1)
        ).copy()


def number_of(L: torch.Tensor) -> np.ndarray:
    return ((L.numpy() + 1) * 127.5).round().astype(np.int64).ravel()


def test_batches_hold_the_stored_pixels_scaled(split: Split) -> None:
    loading = loader(split, batch_size=37, flip=0)
    batch = stream(loading, 1)[0]
    stored = split.read(loading.order(0, 37)).astype(np.float64)
    np.testing.assert_allclose(batch[:, 0], stored[:, 0] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(batch[:, 1:], (stored[:, 1:] - 128) / 110, atol=1e-6)


def test_flips_depend_on_the_position(split: Split) -> None:
    plain, flipped = (stream(loader(split, flip=flip), 4) for flip in (0, 1))
    assert torch.equal(plain.flip(-1), flipped)
    chosen = flips(5, np.arange(48), 0.5).reshape(4, 12)
    random = stream(loader(split), 4)
    for k, i in np.ndindex(4, 12):
        assert torch.equal(random[k, i], flipped[k, i] if chosen[k, i] else plain[k, i])


def test_flips_have_the_given_rate_and_are_independent_of_seed_and_neighbour() -> None:
    positions = np.arange(100_000)
    for probability in (0.0, 0.25, 0.5, 1.0):
        rate = flips(1, positions, probability).mean()
        assert abs(rate - probability) < 5 * np.sqrt(probability * (1 - probability) / 1e5) + 1e-12
    agreement = (flips(1, positions, 0.5) == flips(2, positions, 0.5)).mean()
    assert abs(agreement - 0.5) < 0.01
    flipped = flips(1, positions, 0.5)
    assert abs((flipped[1:] == flipped[:-1]).mean() - 0.5) < 0.01


def test_crops_are_squares_of_all_sizes_inside_the_image() -> None:
    maps = augmentation_matrices(3, np.arange(20_000), 0.5, 0.4)
    side = maps[:, 1, 1]
    assert 0.4 <= side.min() < 0.41
    assert 0.99 < side.max() <= 1
    np.testing.assert_array_equal(np.abs(maps[:, 0, 0]), side)
    assert abs((maps[:, 0, 0] < 0).mean() - 0.5) < 0.02
    for axis in (0, 1):  # corners stay in [-1, 1], and crops reach both edges
        assert (np.abs(maps[:, axis, 2]) + side).max() <= 1 + 1e-6
        assert abs(maps[:, axis, 2].mean()) < 0.01
        assert maps[:, axis, 2].min() < -0.5
    assert abs(np.corrcoef(maps[:, 0, 2], maps[:, 1, 2])[0, 1]) < 0.03


def test_a_cropped_quarter_fills_the_image() -> None:
    lab = torch.zeros(2, 3, 8, 8)
    lab[:, :, :4, 4:] = torch.arange(1.0, 4).view(3, 1, 1)  # the upper right quarter
    maps = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, -0.5]], [[-0.5, 0, 0.5], [0, 0.5, -0.5]]])
    inside = crop_and_flip(lab, maps)[..., 2:-2, 2:-2]  # interpolation mixes the border
    torch.testing.assert_close(inside, torch.arange(1.0, 4).view(1, 3, 1, 1).expand(2, 3, 4, 4))
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    torch.testing.assert_close(
        crop_and_flip(ramp, maps[1:]), crop_and_flip(ramp, maps[:1]).flip(-1)
    )


@pytest.mark.parametrize("world", [2, 3])
def test_crops_depend_on_the_position_and_not_on_the_rank(split: Split, world: int) -> None:
    def read(rank: int, world: int) -> torch.Tensor:
        return stream(loader(split, crop=0.5, rank=rank, world=world), 4)

    expected = read(0, 1)
    assert torch.equal(torch.cat([read(rank, world) for rank in range(world)], dim=1), expected)
    assert not torch.equal(expected, stream(loader(split), 4))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_that_is_still_referenced_is_not_overwritten(split: Split, workers: int) -> None:
    loading = loader(split, workers=workers)
    with closing(loading.batches()) as batches:
        held = [batch.colour[2:5, :1] for batch in islice(batches, 20)]  # views count as references
    assert len(loading._pool.arrays) >= len(held)
    assert torch.equal(torch.stack(held), stream(loader(split), 20)[:, 2:5, 1:2])


def test_buffers_without_references_are_reused(split: Split) -> None:
    loading = loader(split)
    stream(loading, 30)
    # L and colour of the batches that are read ahead or in use
    assert len(loading._pool.arrays) <= 2 * (1 + 3 + 2)


def test_a_world_size_that_does_not_divide_the_batch_size_is_refused(split: Split) -> None:
    with pytest.raises(
        UserError, match=r"does not divide among 5 processes; use one of \[1, 2, 3, 4, 6, 12\]"
    ):
        loader(split, world=5)


def test_a_damaged_shard_raises_an_error_that_names_it(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=32, count=20)
    tar = next(root.rglob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[512:520] = b"nonsense"
    tar.write_bytes(bytes(data))
    with pytest.raises(UserError, match=tar.name):
        stream(loader(Split(root, "train"), batch_size=20), 1)


def test_a_damaged_sample_is_replaced_by_the_same_one_on_every_rank(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=32, count=20)
    tar = next(root.rglob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 1  # one pixel
    tar.write_bytes(bytes(data))
    messages: list[str] = []

    def read(rank: int, world: int) -> tuple[torch.Tensor, int]:
        config = LoaderConfig(batch_size=4, seed=5, flip=0, rank=rank, world=world, max_damaged=1)
        loading = Loader(Split(root), SymmetricCodec(), config, messages.append)
        colours = [batch.colour for batch in islice(loading.batches(), 10)]
        return torch.cat(colours), loading.num_damaged

    expected, count = read(0, 1)
    assert count >= 2  # two epochs, and batches that were read ahead
    parts = [read(rank, 2)[0].view(10, 2, 2, 32, 32) for rank in range(2)]
    assert torch.equal(torch.cat(parts, dim=1).view_as(expected), expected)
    assert len(messages) == 3
    assert all("CRC-32" in message for message in messages)

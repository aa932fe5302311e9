"""The loader: the same global batches for every world size, resumed anywhere, flips that follow the position."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from colortrain.data import Loader, affine_maps, cropped, flips
from colortrain.lab import SymmetricCodec
from shards.errors import UserError
from shards.reader import Split
from tests.colortrain.small_set import small_set


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return Split(small_set(tmp_path_factory.mktemp("set"), size=32, count=37), "train")


def loader(split: Split, batch_size: int = 12, flip: float = 0.5, rank: int = 0, world: int = 1) -> Loader:
    return Loader(split, SymmetricCodec(), batch_size=batch_size, seed=5, flip=flip, rank=rank, world=world)


def stream(loader: Loader, batches: int, images: int = 0) -> torch.Tensor:
    generator = loader.batches(images)
    found = [torch.cat([batch.L, batch.colour], dim=1) for batch in islice(generator, batches)]
    generator.close()
    return torch.stack(found)


@pytest.mark.parametrize("world", [2, 3, 4, 6, 12])
def test_ranks_together_see_the_global_batch(split: Split, world: int) -> None:
    whole = stream(loader(split), 7)  # beyond the end of the epoch
    parts = [stream(loader(split, rank=rank, world=world), 7) for rank in range(world)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("batches", [0, 1, 3, 5])
def test_resumed_anywhere_it_is_the_same_stream(split: Split, batches: int) -> None:
    assert torch.equal(stream(loader(split), 7)[batches:], stream(loader(split), 7 - batches, images=12 * batches))


def test_pixels_are_the_stored_ones_scaled(split: Split) -> None:
    loading = loader(split, batch_size=37, flip=0)
    batch = stream(loading, 1)[0]
    stored = split.read(loading.order(0, 37)).astype(np.float64)
    np.testing.assert_allclose(batch[:, 0], stored[:, 0] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(batch[:, 1:], (stored[:, 1:] - 128) / 110, atol=1e-6)


def test_flips_mirror_and_follow_the_position(split: Split) -> None:
    plain, mirrored = (stream(loader(split, flip=flip), 4) for flip in (0, 1))
    assert torch.equal(plain.flip(-1), mirrored)
    chosen = flips(5, np.arange(48), 0.5).reshape(4, 12)
    some = stream(loader(split), 4)
    for k, i in np.ndindex(4, 12):
        assert torch.equal(some[k, i], mirrored[k, i] if chosen[k, i] else plain[k, i])


def test_flip_rate_and_seeds() -> None:
    positions = np.arange(100_000)
    for probability in (0.0, 0.25, 0.5, 1.0):
        rate = flips(1, positions, probability).mean()
        assert abs(rate - probability) < 5 * np.sqrt(probability * (1 - probability) / 1e5) + 1e-12
    agreement = (flips(1, positions, 0.5) == flips(2, positions, 0.5)).mean()
    assert abs(agreement - 0.5) < 0.01
    neighbours = flips(1, positions, 0.5)
    assert abs((neighbours[1:] == neighbours[:-1]).mean() - 0.5) < 0.01


def test_crops_are_squares_inside_the_picture_of_every_size() -> None:
    maps = affine_maps(3, np.arange(20_000), 0.5, 0.4)
    side = maps[:, 1, 1]
    assert 0.4 <= side.min() < 0.41
    assert 0.99 < side.max() <= 1
    np.testing.assert_array_equal(np.abs(maps[:, 0, 0]), side)
    assert abs((maps[:, 0, 0] < 0).mean() - 0.5) < 0.02
    for axis in (0, 1):  # no corner leaves [-1, 1], and crops reach both edges
        assert (np.abs(maps[:, axis, 2]) + side).max() <= 1 + 1e-6
        assert abs(maps[:, axis, 2].mean()) < 0.01
        assert maps[:, axis, 2].min() < -0.5
    assert abs(np.corrcoef(maps[:, 0, 2], maps[:, 1, 2])[0, 1]) < 0.03


def test_a_quarter_becomes_the_whole() -> None:
    lab = torch.zeros(2, 3, 8, 8)
    lab[:, :, :4, 4:] = torch.arange(1.0, 4).view(3, 1, 1)  # the upper right quarter
    maps = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, -0.5]], [[-0.5, 0, 0.5], [0, 0.5, -0.5]]])
    inside = cropped(lab, maps)[..., 2:-2, 2:-2]  # bilinear mixes a pixel at the border of the quarter
    torch.testing.assert_close(inside, torch.arange(1.0, 4).view(1, 3, 1, 1).expand(2, 3, 4, 4))
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    torch.testing.assert_close(cropped(ramp, maps[1:]), cropped(ramp, maps[:1]).flip(-1))


@pytest.mark.parametrize("world", [2, 3])
def test_crops_follow_the_position_not_the_rank(split: Split, world: int) -> None:
    def some(rank: int, world: int) -> torch.Tensor:
        loading = Loader(split, SymmetricCodec(), batch_size=12, seed=5, flip=0.5, crop=0.5, rank=rank, world=world)
        return stream(loading, 4)

    whole = some(0, 1)
    assert torch.equal(torch.cat([some(rank, world) for rank in range(world)], dim=1), whole)
    assert not torch.equal(whole, stream(loader(split), 4))


def test_a_world_that_does_not_divide_is_refused(split: Split) -> None:
    with pytest.raises(UserError, match=r"does not divide among 5 processes; use one of \[1, 2, 3, 4, 6, 12\]"):
        loader(split, world=5)


def test_a_damaged_shard_stops_the_loop_with_its_name(tmp_path: Path) -> None:
    root = small_set(tmp_path, size=32, count=20)
    tar = next(root.rglob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[512:520] = b"nonsense"
    tar.write_bytes(bytes(data))
    with pytest.raises(UserError, match=tar.name):
        stream(loader(Split(root, "train"), batch_size=20), 1)

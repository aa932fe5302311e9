"""The perceptual loss: zero at the truth, finite gradients, clear errors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from colortrain.lab import Batch, LabCodec, SymmetricCodec, lab_to_rgb
from colortrain.losses import perceptual
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.models.pretrained import PublishedWeights
from colortrain.models.vgg16 import feature_distance, load_vgg16
from shards.errors import UserError

CPU = torch.device("cpu")
autocast = partial(torch.autocast, "cpu", torch.bfloat16)


RANDOM = Perceptual(weights="random")
SYMMETRIC = SymmetricCodec()


def measure(
    term: Perceptual = RANDOM, codec: SymmetricCodec | LabCodec = SYMMETRIC
) -> LossFunction:
    def histogram() -> None:
        raise AssertionError("the loss must not count colours")

    return term.build(LossContext(CPU, codec, histogram))  # type: ignore[arg-type]


def batch(size: int = 16) -> Batch:
    torch.manual_seed(0)
    return Batch(
        0.6 * torch.rand(2, 1, size, size) - 0.3,
        0.2 * torch.rand(2, 2, size, size),
        torch.rand(2, 1, 1, 1),
    )


@pytest.mark.parametrize("codec", [SymmetricCodec(), LabCodec()])
def test_loss_is_zero_only_at_the_truth(codec: SymmetricCodec | LabCodec) -> None:
    ab = batch()
    L, colour = codec.encode(SymmetricCodec().decode(ab.L, ab.colour))
    true = Batch(L, colour, ab.mix)
    assert measure(codec=codec)(colour, true).item() == 0
    assert measure(codec=codec)(colour + 0.1, true).item() > 0


def test_loss_is_the_mean_of_the_metric() -> None:
    true, network = batch(), load_vgg16("random", "")
    fake = true.colour + 0.1 * torch.randn_like(true.colour)

    def rgb(colour: Tensor) -> Tensor:
        return lab_to_rgb(SymmetricCodec().decode(true.L, colour))

    expected = feature_distance(network(rgb(fake)), network(rgb(true.colour)))
    assert expected.shape == (2,)
    torch.testing.assert_close(measure()(fake, true), expected.mean())


@pytest.mark.parametrize(
    ("L", "ab"), [(-1.0, 0.0), (-1.0, 0.5), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
)
def test_gradient_is_finite_everywhere(L: float, ab: float) -> None:
    """At black, at white, and at colours outside sRGB."""
    true = Batch(torch.full((1, 1, 16, 16), L), torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 1, 1))
    fake = torch.full((1, 2, 16, 16), ab, requires_grad=True)
    measure()(fake, true).backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()


def test_gradient_points_to_the_truth_and_vgg_is_frozen() -> None:
    true = batch()
    fake = (true.colour + 0.05).requires_grad_()
    loss = measure()(fake, true)
    loss.backward()
    assert fake.grad is not None
    with torch.no_grad():
        step = 1e-3 * fake.grad / fake.grad.abs().max()
        assert measure()(fake - step, true) < loss
    assert not any(parameter.requires_grad for parameter in load_vgg16("random", "").parameters())


def test_name_shows_random_weights() -> None:
    assert Perceptual().name == "vgg"
    assert Perceptual(weights="random").name == "vgg_random"


def test_without_internet_access_the_error_names_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        "colortrain.models.vgg16.VGG16",
        PublishedWeights((tmp_path / "vgg16-397923af.pth").as_uri()),
    )
    with pytest.raises(UserError) as error:
        measure(Perceptual())
    message = str(error.value)
    assert "\n" not in message
    cache = str(tmp_path / "hub" / "checkpoints")
    option = "--set objective.reconstruction.0.weights=random"
    assert all(part in message for part in ("vgg16-397923af.pth", cache, option))


def test_the_network_runs_in_the_mixed_precision_of_the_run() -> None:
    """The distance is a float32 close to the exact one."""
    dtypes: list[torch.dtype] = []

    class Recording(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.conv2d:
                dtypes.append(result.dtype)
            return result

    context = LossContext(CPU, SYMMETRIC, lambda: np.zeros((23, 23)), autocast=autocast)
    mixed, one = RANDOM.build(context), batch()
    fake = (one.colour + 0.1).requires_grad_()
    with Recording():
        loss = mixed(fake, one)
    (slope,) = torch.autograd.grad(loss, fake)
    assert set(dtypes) == {torch.bfloat16}
    assert loss.dtype == slope.dtype == torch.float32
    exact = measure()(fake, one)
    assert loss.item() == pytest.approx(exact.item(), rel=0.03)
    (exact_slope,) = torch.autograd.grad(exact, fake)
    assert float(torch.cosine_similarity(slope.flatten(), exact_slope.flatten(), 0)) > 0.99


def test_float64_stays_float64() -> None:
    one = batch()
    double = Batch(one.L.double(), one.colour.double(), one.mix)
    context = LossContext(CPU, SYMMETRIC, lambda: np.zeros((23, 23)))
    # weights in float64 too
    with patch.object(perceptual, "load_vgg16", lambda *args: load_vgg16(*args).double()):
        exact = RANDOM.build(context)
    assert exact(double.colour + 0.1, double).dtype == torch.float64

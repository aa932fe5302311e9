"""VGG-16's features and the loss on them, against torchvision's layout and closed forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from colortrain.lab import Batch, LabCodec, SymmetricCodec, lab_to_rgb
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.reconstruction import LossFunction, Resources
from colortrain.metrics.extractors import vgg_distance
from colortrain.models.pretrained import Published
from colortrain.models.vgg16 import VGG16Features, feature_distance, load_vgg16
from shards.errors import UserError

CPU = torch.device("cpu")
CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
}


RANDOM = Perceptual(weights="random")
SYMMETRIC = SymmetricCodec()


def measure(
    term: Perceptual = RANDOM, codec: SymmetricCodec | LabCodec = SYMMETRIC
) -> LossFunction:
    def histogram() -> None:
        raise AssertionError("colours are not asked for")

    return term.build(Resources(CPU, codec, histogram))  # type: ignore[arg-type]


def batch(size: int = 16) -> Batch:
    torch.manual_seed(0)
    return Batch(
        0.6 * torch.rand(2, 1, size, size) - 0.3,
        0.2 * torch.rand(2, 2, size, size),
        torch.rand(2, 1, 1, 1),
    )


def test_names_and_shapes_are_torchvisions() -> None:
    """Those of vgg16's state dict up to features.14; all else in the file is left."""
    expected: dict[str, tuple[int, ...]] = {}
    for place, (inputs, outputs) in CONVOLUTIONS.items():
        expected |= {
            f"features.{place}.weight": (outputs, inputs, 3, 3),
            f"features.{place}.bias": (outputs,),
        }
    found = VGG16Features().state_dict()
    assert {name: tuple(value.shape) for name, value in found.items()} == expected
    assert sum(value.numel() for value in found.values()) == 1_735_488


def test_features_are_relu_1_2_2_2_3_3_of_normalised_rgb() -> None:
    """Against the same network written out by hand."""
    network = load_vgg16("random", "")
    rgb = torch.rand(2, 3, 16, 16)
    x = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    tensors, expected = network.state_dict(), []
    for place in CONVOLUTIONS:
        x = F.conv2d(
            x, tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"], padding=1
        ).relu()
        if place in (2, 7, 14):
            expected.append(x)
            x = F.max_pool2d(x, 2)
    found = network(rgb)
    assert [tuple(one.shape[1:]) for one in found] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_random_weights_are_always_the_same_and_disturb_no_draw() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one = load_vgg16("random", "")
    assert torch.equal(torch.rand(2), expected)
    other = load_vgg16("random", "")
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )
    maps = one(torch.rand(1, 3, 16, 16))
    assert all(0.05 < found.std().item() < 20 for found in maps)  # He's start keeps the scale


def test_distance_is_the_mean_over_each_layer_summed() -> None:
    """Equation 6: |difference|^2 / (C H W), summed over layers."""
    found = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 2, 2)]
    truth = [
        torch.full((2, 3, 4, 4), 2.0),
        torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 6, 2, 2),
    ]
    assert feature_distance(found, truth).tolist() == [5, 13]


@pytest.mark.parametrize("codec", [SymmetricCodec(), LabCodec()])
def test_loss_is_zero_at_the_truth_alone(codec: SymmetricCodec | LabCodec) -> None:
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

    expected = vgg_distance(network, rgb(fake), rgb(true.colour))
    assert expected.shape == (2,)
    torch.testing.assert_close(measure()(fake, true), expected.mean())


@pytest.mark.parametrize(
    ("L", "ab"), [(-1.0, 0.0), (-1.0, 0.5), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
)
def test_slope_is_finite_everywhere(L: float, ab: float) -> None:
    """At black, at white, and at colours that sRGB does not have."""
    true = Batch(torch.full((1, 1, 16, 16), L), torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 1, 1))
    fake = torch.full((1, 2, 16, 16), ab, requires_grad=True)
    measure()(fake, true).backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()


def test_loss_pulls_towards_the_truth_and_teaches_the_generator_alone() -> None:
    true = batch()
    fake = (true.colour + 0.05).requires_grad_()
    loss = measure()(fake, true)
    loss.backward()
    assert fake.grad is not None
    with torch.no_grad():
        step = 1e-3 * fake.grad / fake.grad.abs().max()
        assert measure()(fake - step, true) < loss
    assert not any(parameter.requires_grad for parameter in load_vgg16("random", "").parameters())


def test_logs_tell_random_weights_apart() -> None:
    assert Perceptual().name == "vgg"
    assert Perceptual(weights="random").name == "vgg_random"


def test_weights_from_a_path(tmp_path: Path) -> None:
    """A whole VGG-16 file: the classifier and the deeper layers in it are left."""
    torch.manual_seed(5)
    tensors = {name: torch.rand_like(value) for name, value in VGG16Features().state_dict().items()}
    save_file(tensors | {"classifier.0.bias": torch.zeros(9)}, tmp_path / "vgg.safetensors")
    network = load_vgg16(str(tmp_path / "vgg.safetensors"), "")
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())


def test_without_a_network_the_line_names_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        "colortrain.models.vgg16.VGG16", Published((tmp_path / "vgg16-397923af.pth").as_uri())
    )
    with pytest.raises(UserError) as error:
        measure(Perceptual())
    words = str(error.value)
    assert "\n" not in words
    cache, option = (
        str(tmp_path / "hub" / "checkpoints"),
        "--set objective.reconstruction.0.weights=random",
    )
    assert all(word in words for word in ("vgg16-397923af.pth", cache, option))

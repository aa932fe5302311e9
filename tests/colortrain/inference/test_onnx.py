"""ONNX equals PyTorch for the generator of every recipe, also at other image sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colortrain.inference import onnx
from colortrain.inference.colorizer import Colorizer, describe
from colortrain.recipes import RECIPES, get_recipe
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.sources.decode import fit_image
from tests.support.scaled_recipes import scaled
from tests.support.small_shard_set import photograph

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs colortrain[export]")


def network_of(name: str) -> Colorizer:
    """Return a scaled-down generator with running statistics other than 0 and 1."""
    recipe = scaled(get_recipe(name))
    torch.manual_seed(2)
    generator = recipe.generator.build()
    with torch.no_grad():
        generator(torch.randn(4, 1, recipe.size, recipe.size))
    return Colorizer(generator, describe(recipe, {"step": 0}, "generator"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[object, Path]:
    """Exported files by architecture and codec, since several recipes share them."""
    return {"folder": tmp_path_factory.mktemp("onnx")}


@pytest.mark.parametrize("name", RECIPES)
def test_onnx_equals_pytorch(name: str, exported: dict[object, Path]) -> None:
    network = network_of(name)
    about = network.description
    key = (about.generator, about.codec)
    if key not in exported:
        exported[key] = exported["folder"] / f"{name}.onnx"
        assert onnx.export_onnx(network, exported[key]) <= 1e-4
    session = onnxruntime.InferenceSession(exported[key], providers=["CPUExecutionProvider"])
    cat = Image.fromarray(photograph("chelsea"))
    lightness = rgb_to_lab(np.asarray(fit_image(cat, about.size, "squash")))[None, :1]
    (ab,) = session.run(None, {"L": lightness})
    expected = network.predict_ab([cat], dropout=False)
    assert np.ptp(expected) > 0.05, "the network must generate colours"
    assert np.abs(ab - expected).max() <= 1e-4 * 110
    step = onnx.size_multiple(about.generator)
    tall = np.random.default_rng(5).random((3, 1, 5 * step, 2 * step), dtype=np.float32) * 100
    with torch.no_grad():
        expected = onnx.LightnessToColours(network)(torch.from_numpy(tall)).numpy()
    assert np.abs(session.run(None, {"L": tall})[0] - expected).max() <= 1e-4 * 110
    assert network.generator.training is False


def test_a_file_has_metadata_and_one_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx as library

    network = network_of("nampouri_unet")
    onnx.export_onnx(network, tmp_path / "good.onnx")
    model = library.load(tmp_path / "good.onnx")
    assert [each.version for each in model.opset_import if each.domain == ""] == [onnx.OPSET]
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["recipe"] == "nampouri_unet"
    assert "scale ab towards 0 until it fits" in metadata["usage"]
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["L", "ab"]
    kinds = {node.op_type for node in model.graph.node}
    assert "Dropout" not in kinds, "its masks could not be compared"
    data = (tmp_path / "good.onnx").read_bytes()
    with torch.no_grad():
        next(network.generator.parameters()).mul_(1.01)
    assert onnx.largest_difference(network, data) > onnx.TOLERANCE
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match=r"bad\.onnx would differ from PyTorch by"):
        onnx.export_onnx(network, tmp_path / "bad.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["good.onnx"]


@pytest.mark.parametrize(
    ("name", "step"), [("nampouri_unet", 256), ("nampouri_resnet18", 32), ("arun_wgan_gp", 8)]
)
def test_size_multiple_of_known_architectures(name: str, step: int) -> None:
    assert onnx.size_multiple(get_recipe(name).generator) == step

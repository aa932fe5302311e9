"""Pretrained weights: files, downloads, and the errors for both."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from colortrain.distributed.setup import make_accelerator
from colortrain.models.pretrained import PublishedWeights, load_weights
from colortrain.models.resnet18 import ResNet18, ResNet18UNetConfig
from colortrain.recipe import override
from colortrain.recipes import get_recipe
from colortrain.runs.folder import open_data
from colortrain.training.trainer import Trainer
from shards.errors import UserError, describe
from tests.support.small_shard_set import small_set

THIN = [
    "size=32",
    "generator.base_channels=4",
    "critic.base_channels=4",
    "batch_size=4",
    "images=4",
]


def weights_of(config: ResNet18UNetConfig) -> dict[str, Tensor]:
    """Return random tensors as published: with a classifier, without BN counters."""
    torch.manual_seed(7)
    tensors = ResNet18(config.base_channels).state_dict()
    tensors = {name: torch.rand_like(v) for name, v in tensors.items() if "num_batches" not in name}
    return tensors | {"fc.weight": torch.zeros(3, 2), "fc.bias": torch.zeros(3)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_loaded_from_a_path(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    config = ResNet18UNetConfig(base_channels=4, pretrained=str(path))
    tensors = weights_of(config)
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    network = config.build()
    before = network.state_dict()["decoder.0.conv.weight"].clone()
    config.pretrain(network)
    loaded = network.encoder.state_dict()
    assert all(
        torch.equal(loaded[name], value)
        for name, value in tensors.items()
        if not name.startswith("fc")
    )
    assert torch.equal(network.state_dict()["decoder.0.conv.weight"], before)


def test_unusable_files_raise_one_line_errors(tmp_path: Path) -> None:
    config = ResNet18UNetConfig(base_channels=4, pretrained=str(tmp_path / "w.pth"))
    with pytest.raises(
        UserError, match=r"no weights file .*w\.pth: give imagenet or .* generator\.pretrained=none"
    ):
        config.pretrain(config.build())
    (tmp_path / "w.pth").write_bytes(b"not a state dict")
    with pytest.raises(UserError, match="cannot load weights safely"):
        config.pretrain(config.build())
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"lacks 99 of 100 tensors, the first is bn1\.weight"):
        config.pretrain(config.build())
    torch.save(weights_of(ResNet18UNetConfig(base_channels=2)), tmp_path / "w.pth")
    with pytest.raises(
        UserError,
        match=r"conv1.weight has shape \(2, 3, 7, 7\), the network expects \(4, 3, 7, 7\)",
    ):
        config.pretrain(config.build())


def test_a_pickle_with_code_is_rejected(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path("code")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot load weights safely"):
        load_weights(str(tmp_path / "w.pth"), PublishedWeights("file:///x-00.pth"), "do without")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_downloads_are_verified_and_cached(tmp_path: Path, cache: Path) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "plain.pth")
    content = (tmp_path / "plain.pth").read_bytes()
    named = tmp_path / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    named.write_bytes(content)
    published = PublishedWeights(named.as_uri())
    assert load_weights("imagenet", published, "do without")["a"].tolist() == [0, 1, 2]
    named.unlink()  # from the cache now
    assert load_weights("imagenet", published, "do without")["a"].tolist() == [0, 1, 2]
    (cache / named.name).write_bytes(content[:-1])
    with pytest.raises(
        UserError, match=r"is damaged: its SHA-256 does not begin with .*; delete the file"
    ):
        load_weights("imagenet", published, "do without")


def publish(folder: Path) -> PublishedWeights:
    torch.save({"a": torch.arange(3)}, folder / "plain.pth")
    content = (folder / "plain.pth").read_bytes()
    named = folder / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    named.write_bytes(content)
    return PublishedWeights(named.as_uri())


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)


def test_weights_are_downloaded_where_the_file_system_has_no_locks(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refuse_locks(monkeypatch, errno.ENOSYS)
    published = publish(tmp_path)
    for _ in range(2):
        loaded = load_weights("imagenet", published, "do without")
        assert loaded["a"].tolist() == [0, 1, 2]
    assert capsys.readouterr().err == (
        f"{cache}/.{published.file.name}.lock cannot be locked (Function not implemented): "
        "several processes may download the file at the same time\n"
    )


def test_a_lock_that_fails_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, errno.ESTALE)
    with pytest.raises(OSError, match="Stale file handle") as error:
        load_weights("imagenet", publish(tmp_path), "do without")
    assert str(describe(error.value)).startswith(f"Stale file handle at {cache}/.net-")
    assert not list(cache.glob("net-*"))


def test_a_cache_that_cannot_be_written_to_is_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(
        UserError,
        match=rf"^cannot download net-\w+.pth to {cache} \(Read-only file system\): set TORCH_HOME "
        "to a folder that can be written to, or do without$",
    ):
        load_weights("imagenet", publish(tmp_path), "do without")


def test_a_download_with_another_hash_is_rejected(tmp_path: Path, cache: Path) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "net-00000000.pth")
    with pytest.raises(UserError, match=r"cannot download net-00000000\.pth"):
        load_weights(
            "imagenet", PublishedWeights((tmp_path / "net-00000000.pth").as_uri()), "do without"
        )
    assert not (cache / "net-00000000.pth").exists()


def test_without_internet_access_a_run_fails_before_writing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "colortrain.models.resnet18.RESNET18",
        PublishedWeights((tmp_path / "resnet18-f37072fd.pth").as_uri()),
    )
    recipe = override(get_recipe("nampouri_resnet18"), [*THIN, "generator.base_channels=64"])
    data = open_data(small_set(tmp_path / "set", size=32, count=4, splits=("train", "val")), recipe)
    with pytest.raises(UserError) as error:
        Trainer(recipe, data, tmp_path / "run", make_accelerator())
    message = str(error.value)
    assert "\n" not in message
    option = "--set generator.pretrained=none"
    assert all(part in message for part in ("resnet18-f37072fd.pth", str(cache), option))
    assert not (tmp_path / "run").exists()


def test_only_a_new_run_loads_weights(tmp_path: Path) -> None:
    """The encoder starts with the file's weights; a resumed run does not need it."""
    path = tmp_path / "w.safetensors"
    save_file(weights_of(ResNet18UNetConfig(base_channels=4)), path)
    recipe = override(get_recipe("nampouri_resnet18"), [*THIN, f"generator.pretrained={path}"])
    data = open_data(small_set(tmp_path / "set", size=32, count=8, splits=("train", "val")), recipe)
    trainer = Trainer(recipe, data, tmp_path / "run", make_accelerator())
    initial = trainer.generator.module.state_dict()["encoder.layer2.0.conv1.weight"]
    assert torch.equal(
        initial.cpu(), weights_of(ResNet18UNetConfig(base_channels=4))["layer2.0.conv1.weight"]
    )
    trainer.train()
    path.unlink()
    longer = override(recipe, ["images=8"])
    resumed = Trainer(longer, data, tmp_path / "run", make_accelerator())
    resumed.train()
    assert resumed.step == 2


def test_imagenet_weights_need_64_base_channels() -> None:
    with pytest.raises(UserError, match=r"64 base channels, not 4: set generator\.pretrained=none"):
        override(get_recipe("nampouri_resnet18"), THIN).check()
    override(get_recipe("nampouri_resnet18"), [*THIN, "generator.pretrained=none"]).check()

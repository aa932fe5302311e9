"""A small split, and a generator whose scores differ from the baselines'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colortrain.models.pix2pix import UNetConfig
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return Split(small_set(tmp_path_factory.mktemp("set"), count=13))


@pytest.fixture
def generator() -> nn.Module:
    torch.manual_seed(3)
    network = UNetConfig(base_channels=4, levels=4).build()
    with torch.no_grad():
        network(torch.randn(4, 1, 32, 32))  # running statistics that are not 0 and 1
        network.head.weight.mul_(30)  # colours worth scoring
    return network

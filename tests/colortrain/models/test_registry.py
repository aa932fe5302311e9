"""The unions of networks list every config class of the folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import get_args

import colortrain.models
from colortrain.models.registry import CriticConfig, GeneratorConfig
from colortrain.models.unet_config import UNetConfigBase


def test_every_config_of_the_folder_is_in_a_union() -> None:
    modules = [
        importlib.import_module(f"colortrain.models.{info.name}")
        for info in pkgutil.iter_modules(colortrain.models.__path__)
    ]
    configs = {
        each
        for module in modules
        for name, each in inspect.getmembers(module, inspect.isclass)
        if name.endswith("Config") and each is not UNetConfigBase
    }
    assert configs == {*get_args(GeneratorConfig), *get_args(CriticConfig)}


def test_no_network_is_both() -> None:
    assert not set(get_args(GeneratorConfig)) & set(get_args(CriticConfig))

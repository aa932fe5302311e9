"""The unions of losses list every loss of the folder."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from typing import get_args

import colortrain.losses
from colortrain.losses.registry import AdversarialLoss, ReconstructionLoss


def test_every_loss_of_the_folder_is_in_a_union() -> None:
    modules = [
        importlib.import_module(f"colortrain.losses.{info.name}")
        for info in pkgutil.iter_modules(colortrain.losses.__path__)
    ]
    classes = {
        each
        for module in modules
        for _, each in inspect.getmembers(module, inspect.isclass)
        if dataclasses.is_dataclass(each) and each.__module__.startswith("colortrain.losses")
    }
    reconstruction = {each for each in classes if hasattr(each, "build")}
    adversarial = {each for each in classes if hasattr(each, "critic")}
    assert reconstruction == set(get_args(ReconstructionLoss))
    assert adversarial == set(get_args(AdversarialLoss))

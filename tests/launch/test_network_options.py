"""The options that select trained networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from launch.cli import CommandParser
from launch.network_options import add_network_arguments, choose_device, load_networks, name_runs
from shards.errors import UserError
from tests.support.small_run import small_run


def test_equal_names_get_the_name_of_the_parent_folder() -> None:
    runs = [Path("a/run"), Path("b/run"), Path("b/other")]
    assert name_runs(runs) == dict(zip(("a-run", "b-run", "other"), runs, strict=True))


def test_duplicates_are_errors() -> None:
    with pytest.raises(UserError, match="a/run is given twice"):
        name_runs([Path("a/run"), Path("a/../a/run")])
    with pytest.raises(UserError, match="several runs would have the name a-run"):
        name_runs([Path("x/a/run"), Path("y/a/run")])


def test_networks_are_loaded_with_the_selected_weights(tmp_path: Path) -> None:
    small_run(tmp_path / "run", step=3, settings=("ema.half_life=100",))
    small_run(tmp_path / "run", step=5, settings=("ema.half_life=100",))
    parser = CommandParser("nothing", "Nothing.", "example: none")
    add_network_arguments(parser)
    argv = ["--run", str(tmp_path / "run"), "--device", "cpu"]
    (network,) = load_networks(parser.parse_args(argv)).values()
    assert (network.description.step, network.description.weights) == (5, "ema")
    args = parser.parse_args([*argv, "--checkpoint", "3", "--no-ema"])
    (network,) = load_networks(args).values()
    assert (network.description.step, network.description.weights) == (3, "generator")


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="--device abacus"):
        choose_device("abacus")

"""The options for how steps are computed."""

from __future__ import annotations

import pytest

from colortrain.distributed.compute import ComputeConfig
from launch.cli import CommandParser
from launch.compute_options import add_compute_arguments, compute_config
from shards.errors import UserError


def config(*argv: str, default_accumulate: int = 1) -> ComputeConfig:
    parser = CommandParser("nothing", "Nothing.", "example: none")
    add_compute_arguments(parser)
    return compute_config(parser.parse_args(argv), default_accumulate)


def test_without_options_the_defaults_of_the_config_are_used() -> None:
    assert config() == ComputeConfig()


def test_every_option_sets_its_field() -> None:
    flags = ("--channels-last", "--recompute", "--fused-adam", "--deterministic", "--resync")
    assert config(*flags, "--accumulate", "2", "--max-skipped", "7") == ComputeConfig(
        accumulate=2,
        channels_last=True,
        recompute=True,
        fused_adam=True,
        deterministic=True,
        resync=True,
        max_skipped=7,
    )
    assert config("--compile") == ComputeConfig(compile=True)
    off = config("--no-compile", "--no-channels-last")
    assert off == ComputeConfig(compile=False, channels_last=False)


def test_accelerates_accumulation_is_used_unless_the_option_is_given() -> None:
    assert config(default_accumulate=4).accumulate == 4
    assert config("--accumulate", "1", default_accumulate=4).accumulate == 1


def test_invalid_values_are_errors() -> None:
    with pytest.raises(UserError, match="at least 1"):
        config("--accumulate", "0")
    with pytest.raises(UserError, match="leave out --recompute"):
        config("--compile", "--recompute")

"""The parser and the option types that the commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import pytest

from launch.__main__ import main
from launch.cli import (
    CommandParser,
    add_cache_arguments,
    at_least_one,
    at_least_zero,
    fraction,
    gigabytes,
    make_cache,
    step_or_best,
)
from shards.errors import UserError


@pytest.mark.parametrize("program", ["train", "launch.train", "colortrain train"])
def test_help_shows_the_name_of_the_command(program: str) -> None:
    assert CommandParser(program, "Train.", "example: none").prog == "colortrain train"


def test_errors_of_a_parser_are_one_line() -> None:
    parser = CommandParser("launch.nothing", "Nothing.", "example: none")
    parser.add_argument("--count", type=at_least_one)
    assert parser.parse_args(["--count", "3"]).count == 3
    for wrong in (
        ["--count", "0"],
        ["--count", "-1"],
        ["--count", "1.5"],
        ["--coun", "3"],
        ["more"],
    ):
        with pytest.raises(UserError, match=r"\(see --help\)$") as raised:
            parser.parse_args(wrong)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("convert", "accepted", "rejected"),
    [
        (at_least_one, {"1": 1, "20": 20}, ["0", "-1", "1.5", ""]),
        (at_least_zero, {"0": 0, "7": 7}, ["-1", "x"]),
        (step_or_best, {"best": "best", "12": 12}, ["worst", "-1"]),
        (fraction, {"1": 1.0, "0.01": 0.01}, ["0", "1.1", "nan", "some"]),
        (gigabytes, {"0.5": 0.5}, ["0", "inf", "nan", "much"]),
    ],
)
def test_option_types(
    convert: Callable[[str], object], accepted: dict[str, object], rejected: list[str]
) -> None:
    assert {text: convert(text) for text in accepted} == accepted
    for text in rejected:
        with pytest.raises(argparse.ArgumentTypeError, match="must be"):
            convert(text)


@pytest.mark.parametrize("size", ["nan", "inf", "1e300", "0", "-1", "much"])
def test_an_invalid_cache_size_is_a_one_line_error(
    size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--run", "r", "--shards", "s", "--cache", "c", "--cache-size", size]
    assert main(["evaluate", *argv]) == 2
    error = capsys.readouterr().err
    assert f"--cache-size: must be a number of gigabytes above 0, got '{size}'" in error
    assert error.count("\n") == 1


def test_the_size_of_a_cache_is_given_in_gigabytes() -> None:
    parser = CommandParser("nothing", "Nothing.", "example: none")
    add_cache_arguments(parser)
    cache = make_cache(parser.parse_args(["--cache", "c", "--cache-size", "1.5"]))
    assert cache is not None
    assert cache.max_bytes == 1_500_000_000
    assert make_cache(parser.parse_args([])) is None
    assert math.isclose(parser.parse_args([]).cache_size, 100)

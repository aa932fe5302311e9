"""The description of the machine."""

from __future__ import annotations

import json

import torch

from launch.benchmark.machine import PACKAGES, describe_machine, format_machine, version


def test_the_description_is_json_and_three_lines() -> None:
    facts = describe_machine()
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts["versions"]) == set(PACKAGES)
    first, second, third = format_machine(facts).splitlines()
    assert first.startswith(facts["cpu"])
    assert f"{facts['cores']} cores usable" in first
    assert facts["date"] in second
    assert f"torch {torch.__version__.partition('+')[0]}" in third


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert version("no-such-package") is None
    facts = {**describe_machine(), "versions": {"numpy": "2.0", "litdata": None}}
    assert "litdata" not in format_machine(facts)

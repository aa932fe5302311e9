"""The words of the doors: what is refused on the login node, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import submit, sweep


@pytest.mark.parametrize("given", [["--processes", "2"], ["--processes=2"], ["--run=other"]])
def test_words_that_the_doors_say_themselves(given: list[str]) -> None:
    name = given[0].partition("=")[0]
    arguments = submit.parser().parse_args(["--cluster", "site.toml", "--run", "run", "--", *given])
    with pytest.raises(UserError, match=f"^{name} after --: leave it out"):
        submit.training_words(arguments)
    with pytest.raises(UserError, match=f"^{name} of launch.train: leave it out"):
        sweep.words_of(("n_critic=1",), Path("run"), given)

"""The conditions of a table: the images that a build left out, and the commit."""

from __future__ import annotations

import re
from pathlib import Path

from launch.experiment.conditions import git_commit, left_out


def test_images_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    assert left_out(tmp_path) == {}
    lines = ["a.png\tgrey\t", 'b.png\tunreadable\t"two\nlines"', "c.png\tgrey\t"]
    (tmp_path / "left_out.tsv").write_text("\n".join(lines) + "\n")
    assert left_out(tmp_path) == {"grey": 2, "unreadable": 1}


def test_the_commit_is_a_hash_or_unknown() -> None:
    value = git_commit()
    assert value is None or re.fullmatch(r"[0-9a-f]{12,}(-dirty)?", value)

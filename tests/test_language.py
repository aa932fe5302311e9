"""Retired words stay out: code, help and pages use the field's terms (CONTRIBUTING, Language)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".html", ".css", ".js", ".sh", ".sbatch", ".toml", ".yaml"}
FILES = sorted(
    path
    for package in ("shards", "colortrain", "launch", "slurm")
    for path in (ROOT / package).rglob("*")
    if path.suffix in SUFFIXES
)
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
DOCUMENTS += [ROOT / "docs" / name for name in ("SLURM.md", "RECIPES.md", "HISTORICAL.md")]
RETIRED = {  # what was written -> what to write
    r"words": "parser, args, argv, options",
    r"asked|told": "requested, args; messages, on_warning",
    r"tells?": "print, report, return",
    r"doors?": "command",
    r"(go|goes|going|gone|went) on": "resume, continue",
    r"beside": "compared with, next to",
    r"mend(s|ed|ing)?": "repair, fix",
    r"judges?|eyes?|albums?": "feature extractor, set metrics",
    r"brings?|brought": "fetch, download, copy",
    r"hears?|heard": "is called with",
    r"pictures?": "image",
    r"nobody|seldom|wreck|deaf|lest": "plain English",
}
KEPT = re.compile(
    r"""["']words["']      # key of the files that slurm writes
    | ["'/`]pictures?["'`]   # value of `wrt` in recipes; part of a hashed text
    | \w\.tell\(           # of a file
    | \bGo[ ]on\b""",
    re.VERBOSE,
)
CODE_NUMBER = re.compile(r"(?<![\w.:)\]}/*\"'%<>,#])\.\d+(?![\w.]*\()")  # .03 for 0.03


def lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a file without what may keep a retired word."""
    text = path.read_text(encoding="utf-8")
    return [(number, KEPT.sub("", line)) for number, line in enumerate(text.splitlines(), 1)]


def found(path: Path, pattern: str) -> list[str]:
    expression = re.compile(rf"(?<![\w-])({pattern})(?![\w-])", re.IGNORECASE)
    name = path.relative_to(ROOT)
    return [
        f"{name}:{number}: {line.strip()}"
        for number, line in lines(path)
        if expression.search(line)
    ]


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_words_stay_out(pattern: str) -> None:
    hits = [hit for path in (*FILES, *DOCUMENTS) for hit in found(path, pattern)]
    assert not hits, f"write {RETIRED[pattern]} instead:\n" + "\n".join(hits)


def test_the_pattern_finds_what_it_is_for(tmp_path: Path) -> None:
    """A control: the same search finds a retired word in a sentence, and not inside another word."""
    assert re.search(r"(?<![\w-])(tells?)(?![\w-])", "it tells")
    assert not re.search(r"(?<![\w-])(tells?)(?![\w-])", "intelligence")
    assert KEPT.sub("", '{"words": [], "n": stream.tell()}') == '{: [], "n": strea)}'


def test_numbers_have_a_digit_before_the_point() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*(p for p in FILES if p.suffix == ".py"), *DOCUMENTS)
        for number, line in lines(path)
        if CODE_NUMBER.search(line)
    ]
    assert not hits, "\n".join(hits)

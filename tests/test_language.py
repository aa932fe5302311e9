"""Retired words stay out of code, help and pages (CONTRIBUTING, Language)."""

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
DOCUMENTS += [
    ROOT / "docs" / f"{name}.md"
    for name in ("SLURM", "RECIPES", "HISTORICAL", "DATASETS", "METRICS")
]
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
    r"""["'](words|asked|judge)["']  # keys of files on disk
    | \bjudge\.safetensors|\bpicture\.png|~/Pictures
    | \bjudge_images\b|\bjudge[ ]=|:[ ]judge\b   # their values
    | ["'/`]pictures?["'`]   # value of `wrt` in recipes; part of a hashed text
    | torch\.eye | \w\.tell\(           # of a file
    | \bGo[ ]on\b""",
    re.VERBOSE,
)
MISSING_ZERO = re.compile(r"(?<![\w.:)\]}/*\"'%<>,#])\.\d+(?!\w)")  # .03 for 0.03


def lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a file without what may keep a retired word."""
    text = path.read_text(encoding="utf-8")
    return [(number, KEPT.sub("", line)) for number, line in enumerate(text.splitlines(), 1)]


def matcher(pattern: str) -> re.Pattern[str]:
    """Return an expression for whole words, in upper or lower case."""
    return re.compile(rf"(?<![\w-])({pattern})(?![\w-])", re.IGNORECASE)


def found(path: Path, pattern: str) -> list[str]:
    expression = matcher(pattern)
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


def test_the_search_finds_words_but_no_parts_of_words() -> None:
    """A control: without it a broken pattern would pass every file."""
    assert matcher("tells?").search("It tells us")
    assert not matcher("tells?").search("intelligence foretells")
    assert not matcher("words").search(KEPT.sub("", '{"words": []}'))
    assert MISSING_ZERO.search("about .03 of it")
    assert not MISSING_ZERO.search(f"{0.5:.2f} 0.03 v1.2 file.000")


def test_numbers_have_a_digit_before_the_point() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*(p for p in FILES if p.suffix == ".py"), *DOCUMENTS)
        for number, line in lines(path)
        if MISSING_ZERO.search(line)
    ]
    assert not hits, "\n".join(hits)

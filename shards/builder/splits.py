"""The options that assign images to splits: --splits, --rename, --carve, --take.

`parse_rules` reads only their text; `selection` applies them to the images of a source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import PurePath

from shards.errors import UserError
from shards.format.manifest import ONE_SPLIT, is_split_name

BY_SOURCE = "source"  # `--splits source`
SOURCES = "sources"
RESERVED_SPLITS = (ONE_SPLIT, SOURCES)  # not allowed as names of several splits
DEFAULT_SPARE = 0.1
REST = -1  # as a count: all images that the other splits of the pool leave
_REST = "rest"
_WHOLE = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class SplitList:
    """A file that lists images: of the split `split`, or with their splits if it is "".

    `folder` is the folder in SOURCE to which the paths in the file are relative.
    """

    split: str
    path: str
    folder: str = ""


@dataclass(frozen=True)
class Carve:
    """One item of --carve: the split `new` gets a part of the images of split `old`.

    `amount` is their number, or, if it is below 1, their fraction of `old`.
    """

    new: str
    old: str
    amount: Fraction


@dataclass(frozen=True, kw_only=True)
class SplitRules:
    """How images are assigned to splits: the parsed values of the options.

    At most one of `fractions` (pairs of a split and the upper end of its interval of
    [0, 1)), `counts`, `lists` and `by_source` is set; with none of them, there is one
    split, "all". `spare` is the number of replacements per chosen image.
    """

    fractions: tuple[tuple[str, Fraction], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    lists: tuple[SplitList, ...] = ()
    by_source: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    carve: tuple[Carve, ...] = ()
    take: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    spare: float = DEFAULT_SPARE

    @property
    def named_by_source(self) -> bool:
        """Whether the splits' names come from SOURCE or from lists."""
        return self.by_source or bool(self.lists)

    @property
    def has_counts(self) -> bool:
        """Whether the number of images of some split is given."""
        return bool(self.counts or self.carve or self.take)


@lru_cache(maxsize=16)
def parse_rules(
    splits: str,
    rename: str = "",
    carve: str = "",
    take: str = "",
    seed: int = 0,
    spare: float = DEFAULT_SPARE,
) -> SplitRules:
    """Parse the options of `shards build` that assign images to splits.

    Raises UserError if a name, a count or a fraction is invalid, or if the options
    cannot be used together.
    """
    fractions, counts, lists = _parse_splits(splits)
    rules = SplitRules(
        fractions=fractions,
        counts=counts,
        lists=lists,
        by_source=splits == BY_SOURCE,
        rename=_parse_rename(rename),
        carve=_parse_carve(carve),
        take=_parse_take(take),
        seed=seed,
        spare=spare,
    )
    _check(rules)
    return rules


def parse_splits(text: str) -> tuple[tuple[str, Fraction], ...]:
    """Parse fractions of --splits into pairs (split name, upper end of its interval).

    The intervals divide [0, 1): `train=0.9,val=0.1` gives (train, 9/10), (val, 1).
    There are no pairs if --splits has no fractions. Raises UserError if a name or a
    fraction is invalid or the fractions do not add up to 1.
    """
    return _parse_splits(text)[0]


def _check(rules: SplitRules) -> None:
    if not rules.named_by_source:
        for option in ("rename", "carve", "take"):
            if getattr(rules, option):
                raise UserError(f"--{option} requires --splits {BY_SOURCE}, or lists of images")
    if rules.seed < 0 or not 0 <= rules.spare < float("inf"):
        raise UserError("--seed and --spare must be at least 0")
    if rules.seed and not (rules.fractions or rules.has_counts):
        raise UserError(
            f"--seed {rules.seed} has no effect: it is for the counts and fractions of --splits, "
            "--carve and --take"
        )
    for name in {each.new for each in rules.carve} & set(rules.take):
        raise UserError(f"--take {name}: give the number of its images in --carve")


def _parse_splits(
    text: str,
) -> tuple[tuple[tuple[str, Fraction], ...], dict[str, int], tuple[SplitList, ...]]:
    """Return the fractions, the counts and the lists in the value of --splits.

    At most one of them is not empty.
    """
    if text in ("", BY_SOURCE):
        return (), {}, ()
    if "=" not in text and _is_path(text):
        return (), {}, (SplitList("", text),)
    values = _parse_pairs("--splits", text, "train=0.9,val=0.1")
    for name in values:
        check_split_name(name)
    if any(_is_path(value) for value in values.values()):
        return (), {}, _split_lists(text, values)
    whole = [int(value) for value in values.values() if _WHOLE.fullmatch(value)]
    if len(whole) + list(values.values()).count(_REST) == len(values) and sum(whole) > 1:
        return (), _counts(text, values), ()
    return _fractions(text, values), {}, ()


def _is_path(value: str) -> bool:
    """Return whether a value of --splits is the path of a list, and not a number."""
    return _fraction(value) is None and ("." in value or "/" in value)


def _fraction(value: str) -> Fraction | None:
    try:
        return Fraction(value)
    except (ValueError, ZeroDivisionError):
        # A number, though not a valid one, is not the path of a list.
        return Fraction(-1) if re.fullmatch(r"[0-9.]+/[0-9.]+", value) else None


def _parse_pairs(option: str, text: str, example: str) -> dict[str, str]:
    """Parse `NAME=VALUE,...`; raises UserError if a name is missing or repeated."""
    pairs: dict[str, str] = {}
    for part in text.split(",") if text else []:
        name, _, value = (each.strip() for each in part.partition("="))
        if not name or not value or name in pairs:
            raise UserError(
                f"{option} {text!r}: give each split once with a value, such as {example}"
            )
        pairs[name] = value
    return pairs


def _fractions(text: str, values: Mapping[str, str]) -> tuple[tuple[str, Fraction], ...]:
    ends: list[Fraction] = []
    for value in values.values():
        fraction = _fraction(value) or Fraction(0)
        if fraction <= 0:
            raise UserError(
                f"--splits {text!r}: give each split a fraction above 0 (train=0.9,val=0.1), "
                "a number of images (train=8000,val=2000), or a list (train=train.txt,val=val.txt)"
            )
        ends.append(fraction + (ends[-1] if ends else 0))
    if abs(ends[-1] - 1) > Fraction(1, 10**6):
        raise UserError(
            f"--splits {text!r}: the fractions add up to {float(ends[-1]):g} instead of 1"
        )
    return tuple(zip(values, [*ends[:-1], Fraction(1)], strict=True))


def _counts(text: str, values: Mapping[str, str]) -> dict[str, int]:
    counts = {name: REST if value == _REST else int(value) for name, value in values.items()}
    if list(counts.values()).count(REST) > 1 or 0 in counts.values():
        raise UserError(
            f"--splits {text!r}: give each split at least one image, and {_REST!r} at most once"
        )
    # The split with the rest comes last, because it takes what the others leave.
    return dict(sorted(counts.items(), key=lambda item: item[1] == REST))


def _split_lists(text: str, values: Mapping[str, str]) -> tuple[SplitList, ...]:
    if not all(_is_path(value) for value in values.values()):
        raise UserError(f"--splits {text!r}: give a list for each split, or for none")
    lists = []
    for name, value in values.items():
        path, _, folder = value.partition(":")
        lists.append(SplitList(name, path, folder.strip("/")))
    return tuple(lists)


def _parse_rename(text: str) -> dict[str, str]:
    names = _parse_pairs("--rename", text, "train2014=train")
    for name in names.values():
        check_split_name(name)
    return names


def _parse_carve(text: str) -> tuple[Carve, ...]:
    carves = []
    for new, value in _parse_pairs("--carve", text, "val=train:5000").items():
        check_split_name(new)
        old, _, amount = value.rpartition(":")
        parsed = _fraction(amount) or Fraction(0)
        if not old or parsed <= 0 or (parsed >= 1 and parsed.denominator > 1):
            raise UserError(
                f"--carve {text!r}: give a number of images or a fraction below 1, such as "
                "val=train:5000 or val=train:0.1"
            )
        carves.append(Carve(new, old, parsed))
    return tuple(carves)


def _parse_take(text: str) -> dict[str, int]:
    values = _parse_pairs("--take", text, "train=10000,val=3000")
    if not all(_WHOLE.fullmatch(value) for value in values.values()):
        raise UserError(f"--take {text!r}: give numbers of images, such as train=10000,val=3000")
    return {name: int(value) for name, value in values.items()}


def without_folders(text: str) -> str:
    """Return the value of --splits with the names of lists instead of their paths."""
    items = [_format_list(each) for each in _parse_splits(text)[2]]
    return ",".join(items) or text


def _format_list(each: SplitList) -> str:
    split, folder = (f"{each.split}=" * bool(each.split), f":{each.folder}" * bool(each.folder))
    return f"{split}./{PurePath(each.path).name}{folder}"


def check_split_name(name: str) -> None:
    """Raise UserError unless `name` is allowed as the name of a split."""
    if not is_split_name(name) or name in RESERVED_SPLITS:
        raise UserError(
            f"invalid split name {name!r}: use letters, digits, - and _, with a letter first; "
            f"{ONE_SPLIT!r} and {SOURCES!r} are reserved"
        )

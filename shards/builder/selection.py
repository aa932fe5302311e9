"""Choose the images of a source that a build packs, and the split of each.

The choice depends only on the names of the images, the lists and the options. So every
process and machine makes the same one, before any image is read.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shards.builder.split_lists import read_lists
from shards.builder.splits import REST, Carve, SplitRules, check_split_name
from shards.errors import UserError, unknown
from shards.format.manifest import ONE_SPLIT
from shards.sources.listing import ImageSource

NOT_CHOSEN, NOT_LISTED = "not chosen", "in no list"
UNUSED = (NOT_CHOSEN, NOT_LISTED)  # reasons that are no failures

# A pool is a set of images that several splits share. Its quotas say how many images
# each of these splits gets, in this order: {pool: {split: number of images, or REST}}.
Quotas = dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images that a build packs.

    The last `num_spare` of `sources` are replacements, for images that turn out to be
    unreadable, duplicates and so on. `unused` counts the other images of the source by
    reason. `listed_sha256` is a hash of the lists, "" without lists.
    """

    sources: Sequence[ImageSource]
    num_spare: int = 0
    quotas: Quotas = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)
    listed_sha256: str = ""


def select(rules: SplitRules, sources: Sequence[ImageSource], root: str) -> Selection:
    """Choose among `sources`, which must be sorted by name; `root` is SOURCE.

    Raises UserError if the rules do not fit the images, or a list is invalid.
    """
    unused, digest, listed = {}, "", sources
    if rules.lists:
        listed = read_lists(rules.lists, sources, root)
        digest = _hash_of_splits(listed)
        unused = {NOT_LISTED: len(sources) - len(listed)}
    if rules.named_by_source:
        listed = _renamed(rules.rename, listed)
        _check_names(listed)
    if not rules.has_counts:
        return Selection(sources=listed, unused=_positive(unused), listed_sha256=digest)
    if rules.counts:
        listed = [each._replace(split=ONE_SPLIT) for each in listed]
    quotas = _quotas(rules, listed)
    chosen, spare = _choose(rules, listed, quotas)
    if not chosen:
        raise UserError("--take leaves no image: give a number above 0 for at least one split")
    return Selection(
        sources=[*chosen, *spare],
        num_spare=len(spare),
        quotas=quotas,
        unused=_positive({**unused, NOT_CHOSEN: len(listed) - len(chosen) - len(spare)}),
        listed_sha256=digest,
    )


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _hash_of_splits(sources: Sequence[ImageSource]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.name}\0{source.split}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _renamed(names: Mapping[str, str], sources: Sequence[ImageSource]) -> Sequence[ImageSource]:
    """Return `sources` with their splits renamed by {old name: new name}."""
    if not names:
        return sources
    splits = {source.split for source in sources}
    for old, new in names.items():
        if old not in splits:
            raise UserError(f"--rename {old}={new}: {unknown('split', old, splits)}")
        if new in splits and new not in names:
            raise UserError(f"--rename {old}={new}: there is a split {new!r} already; rename both")
    return [each._replace(split=names.get(each.split, each.split)) for each in sources]


def _check_names(sources: Sequence[ImageSource]) -> None:
    for source in sources:
        if not source.split:
            raise UserError(
                f"--splits source: {source.name} is not in a subfolder: move it to a folder "
                "named after its split, e.g. train/, or use --splits train=0.9,val=0.1"
            )
        check_split_name(source.split)


def _quotas(rules: SplitRules, sources: Sequence[ImageSource]) -> Quotas:
    """Return the quotas that --splits, --carve and --take give.

    Raises UserError if a split does not exist or has too few images.
    """
    sizes = Counter(source.split for source in sources)
    quotas: Quotas = {ONE_SPLIT: dict(rules.counts)} if rules.counts else {}
    for carve in rules.carve:
        quotas.setdefault(carve.old, {})[carve.new] = _carved_count(carve, sizes)
    for pool in {each.old for each in rules.carve}:
        quotas[pool][pool] = REST
    for name, count in rules.take.items():
        if name not in sizes:
            raise UserError(f"--take: {unknown('split', name, sizes)}")
        quotas.setdefault(name, {})[name] = count
    for pool, counts in quotas.items():
        _check_size(pool, counts, sizes[pool])
    return quotas


def _carved_count(carve: Carve, sizes: Mapping[str, int]) -> int:
    """Return how many images a new split gets from one of the splits in `sizes`."""
    if carve.old not in sizes:
        raise UserError(f"--carve: {unknown('split', carve.old, sizes)}")
    if carve.new in sizes:
        raise UserError(f"--carve {carve.new}: there is a split {carve.new!r} already")
    if carve.amount >= 1:
        return int(carve.amount)
    return max(1, round(carve.amount * sizes[carve.old]))


def _check_size(pool: str, counts: Mapping[str, int], size: int) -> None:
    """Raise UserError unless a pool of `size` images is enough for its splits."""
    needed = total(counts) + (REST in counts.values())
    if needed > size:
        where = "SOURCE" if pool == ONE_SPLIT else f"split {pool!r} of SOURCE"
        raise UserError(
            f"{where} has {size:,} images, but the splits {', '.join(counts)} need at least "
            f"{needed:,}: give smaller counts"
        )


def total(counts: Mapping[str, int]) -> int:
    """Return the number of images of those splits of a pool whose number is given."""
    return sum(count for count in counts.values() if count != REST)


def rank(seed: int, name: str) -> int:
    """Return the place of an image in its pool: a 64-bit hash of the seed and its name.

    The images with the lowest ranks are chosen first.
    """
    data = f"{seed}\0{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def fill(ranks: np.ndarray, counts: Mapping[str, int]) -> np.ndarray:
    """Return for each image of a pool the index of its split in `counts`.

    ranks: (images,) uint64, from `rank`. An image that no split needs has the index
    `len(counts)`. Returns (images,) int64.
    """
    ends = np.cumsum([len(ranks) if count == REST else count for count in counts.values()])
    places = np.empty(len(ranks), np.int64)
    places[np.argsort(ranks, kind="stable")] = np.arange(len(ranks))
    return np.searchsorted(ends, places, side="right")


def _choose(
    rules: SplitRules, sources: Sequence[ImageSource], quotas: Quotas
) -> tuple[list[ImageSource], list[ImageSource]]:
    """Return the chosen images, sorted by name, and the spare ones, sorted by name.

    The split of each is the one that it is packed into at first.
    """
    splits: list[str | None] = [each.split for each in sources]
    spare: list[int] = []
    for pool, counts in quotas.items():
        members = [index for index, each in enumerate(sources) if each.split == pool]
        ranks = np.array([rank(rules.seed, sources[i].name) for i in members], np.uint64)
        names = [*counts, None]
        for index, number in zip(members, fill(ranks, counts).tolist(), strict=True):
            splits[index] = names[number]
        count = math.ceil(rules.spare * total(counts))
        first, end = total(counts), total(counts) + count
        if REST not in counts.values():
            spare += [members[place] for place in np.argsort(ranks, kind="stable")[first:end]]
    chosen = [
        each._replace(split=split)
        for each, split in zip(sources, splits, strict=True)
        if split is not None
    ]
    # A spare image is packed into the last split of its pool.
    return chosen, [
        sources[index]._replace(split=list(quotas[sources[index].split])[-1])
        for index in sorted(spare)
    ]

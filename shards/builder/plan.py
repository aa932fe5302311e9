"""What a build is to do, settled before any image is read: parameters, the shuffled sources, and blocks of them.

    OUT/build.json    parameters and a hash of the source list, written first: a build goes on only in its own folder

The plan is a pure function of the source's names and the parameters, so every process, every machine and every later
attempt arrives at the same blocks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from shards.errors import UserError, unknown
from shards.files import fsync_folder
from shards.format.manifest import DTYPES, FORMAT, MANIFEST, ONE_SPLIT, is_split_name
from shards.sources.decode import FITS, MAX_PIXELS
from shards.sources.listing import Source

BUILD = "build.json"
NO_LINKS = (
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EXDEV,
    errno.EMLINK,
)  # a file system without hard links
SOURCES = "sources"
LOCK = ".lock"  # held by the build at work, or by all parts at work together
BY_SOURCE = "source"  # `--splits source`


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Everything that decides the bytes of a shard set, sources aside; `UserError` for what cannot be."""

    size: int
    fit: str = "crop"
    dtype: str = "uint8"
    splits: str = ""  # as the user wrote it
    drop_grey: bool = False
    min_side: int = -1  # shorter sides are too small; -1: half of `size`
    max_pixels: int = MAX_PIXELS
    shard_size: int = 0  # sources per block; 0: at most 1000, and at least 16 blocks

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 8192:
            raise UserError(f"--size {self.size}: give a number of pixels from 1 to 8192")
        if self.fit not in FITS:
            raise unknown("--fit", self.fit, FITS)
        if self.dtype not in DTYPES:
            raise unknown("--dtype", self.dtype, DTYPES)
        if self.min_side < -1 or self.max_pixels < 1 or self.shard_size < 0:
            raise UserError("--min-side, --max-pixels and --shard-size must not be negative")
        parse_splits(self.splits)

    @property
    def smallest_side(self) -> int:
        """An image whose short side has fewer pixels is too small; by default one to be enlarged more than twice."""
        return self.size // 2 if self.min_side < 0 else self.min_side


@lru_cache(maxsize=16)
def parse_splits(text: str) -> tuple[tuple[str, Fraction], ...]:
    """Names and the upper ends of their share of [0, 1): `train=.9,val=.1` gives (train, 9/10), (val, 1).

    Empty for no splits and for `source`; raises `UserError` for anything that does not add up to 1.
    """
    if text in ("", BY_SOURCE):
        return ()
    names: list[str] = []
    ends: list[Fraction] = []
    for part in text.split(","):
        name, equals, share = part.strip().partition("=")
        check_split_name(name.strip())
        try:
            fraction = Fraction(share.strip())
        except (ValueError, ZeroDivisionError):
            fraction = Fraction(0)
        if not equals or fraction <= 0 or name.strip() in names:
            raise UserError(
                f"--splits {text!r}: write each name once with a share above 0, such as train=.9,val=.1"
            )
        names.append(name.strip())
        ends.append(fraction + (ends[-1] if ends else 0))
    if abs(ends[-1] - 1) > Fraction(1, 10**6):
        raise UserError(
            f"--splits {text!r}: the shares add up to {float(ends[-1]):g}, they must add up to 1"
        )
    return tuple(zip(names, [*ends[:-1], Fraction(1)], strict=True))


def check_split_name(name: str) -> None:
    """Raise `UserError` unless `name` can be a split's folder."""
    if not is_split_name(name) or name in (ONE_SPLIT, SOURCES):
        raise UserError(
            f"split name {name!r}: use letters, digits, - and _, and neither {ONE_SPLIT!r} nor {SOURCES!r}"
        )


def split_of(digest: str, source: Source, splits: str) -> str:
    """The split of an image: by the SHA-256 of its encoded bytes, so that it is the same at every size."""
    if splits == BY_SOURCE:
        return source.split
    point = Fraction(int(digest[:16], 16), 1 << 64)
    return next((name for name, end in parse_splits(splits) if point < end), ONE_SPLIT)


@dataclass(frozen=True)
class Block:
    """Consecutive sources of the shuffled list: what one process packs at a time, and what one record tells of."""

    number: int
    first_key: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What OUT/build.json says; `identity` names it in every record."""

    parameters: Parameters
    num_sources: int
    sources_sha256: str
    block_size: int
    format: str = FORMAT

    @property
    def num_blocks(self) -> int:
        return -(-self.num_sources // self.block_size)

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def keys_of(self, block: int) -> range:
        """The keys of the sources of a block: their places in the shuffled list."""
        return range(block * self.block_size, min(self.num_sources, (block + 1) * self.block_size))


def make_plan(parameters: Parameters, sources: Sequence[Source]) -> Plan:
    """The plan for these sources (sorted by name)."""
    if parameters.splits == BY_SOURCE:
        _check_own_splits(sources)
    digest = hashlib.sha256()
    for source in sources:
        digest.update(os.fsencode(source.name) + b"\0")
    block_size = parameters.shard_size or min(1000, -(-len(sources) // 16))
    return Plan(
        parameters=parameters,
        num_sources=len(sources),
        sources_sha256=digest.hexdigest(),
        block_size=block_size,
    )


def _check_own_splits(sources: Sequence[Source]) -> None:
    for source in sources:
        if not source.split:
            raise UserError(
                f"--splits {BY_SOURCE}: {source.name} lies in no first folder that could name its split"
            )
        check_split_name(source.split)


def blocks_of(plan: Plan, sources: Sequence[Source]) -> Iterator[Block]:
    """The blocks of the shuffled list: a fixed permutation, so that no shard holds one folder's photos alone."""
    order = np.argsort(np.random.Philox(key=0).random_raw(len(sources)), kind="stable")
    for number in range(plan.num_blocks):
        keys = plan.keys_of(number)
        yield Block(
            number, keys.start, tuple(sources[index] for index in order[keys.start : keys.stop])
        )


def save_plan(plan: Plan, root: Path) -> None:
    """Claim OUT for this plan, or make sure that it is this plan's already; raises `UserError` if it is another's.

    Any number of machines may do so at the same time: one of them claims it, the others find its claim.
    """
    check_out(root)
    if not (root / BUILD).exists():
        _claim(root / BUILD, json.dumps(asdict(plan), indent=1).encode() + b"\n")
    check_plan(plan, root, f"choose a new OUT, or delete {root}")


def _claim(path: Path, data: bytes) -> None:
    """Write a file, whole, unless it is there already: of many machines that do so at once, one alone succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)  # unlike a rename it never replaces, on network file systems too
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        old.replace(
            new
        )  # the last one wins: records name their build, so `merge` would tell two builds apart


def check_plan(plan: Plan, folder: Path, mend: str) -> None:
    """Raise `UserError` unless `folder` holds this very build."""
    before = load_plan(folder)
    if before != plan:
        raise UserError(f"{folder} holds another build ({_difference(before, plan)}): {mend}")


def check_out(root: Path) -> None:
    """Raise `UserError` if OUT is a file, or a folder of something else."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose a new folder for OUT")
    names = os.listdir(root) if root.is_dir() else []  # noqa: PTH208
    if (
        not names or BUILD in names or (root / BUILD).exists()
    ):  # listed first: another machine may be claiming it
        return
    if MANIFEST in names:
        raise UserError(
            f"{root} has a {MANIFEST} but no {BUILD}: choose a new OUT, or delete {root}"
        )
    if any(not name.startswith((LOCK, f".{BUILD}.")) for name in names):
        raise UserError(f"{root} is not empty and holds no shard set: choose a new OUT")


def load_plan(root: Path) -> Plan:
    """Read OUT/build.json; raises `UserError` if it is missing or damaged."""
    path = root / BUILD
    try:
        document = json.loads(path.read_text())
        return Plan(**{**document, "parameters": Parameters(**document["parameters"])})
    except FileNotFoundError:
        raise UserError(
            f"{root} has no {BUILD}: give the folder that `python -m shards build` wrote"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete {root} and build again") from None


def _difference(before: Plan, now: Plan) -> str:
    old, new = asdict(before.parameters), asdict(now.parameters)
    if before.format != now.format:
        return f"of format {before.format!r}, this version writes {now.format!r}"
    changed = [
        f"{name} was {old[name]!r}, is {new[name]!r}" for name in new if old.get(name) != new[name]
    ]
    return "; ".join(changed) or "its source files are not the same"

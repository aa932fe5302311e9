"""The plan of a build: its options, and how the source images are divided into blocks.

A block is a group of images that are packed together.

    OUT/build.json    the options and a hash of the source names
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
from shards.files import check_types, fsync_file, fsync_folder, read_regular
from shards.format.manifest import DTYPES, FORMAT, MANIFEST, MAX_SIZE, ONE_SPLIT, is_split_name
from shards.json_files import parse_json
from shards.sources.decode import FITS, MAX_PIXELS
from shards.sources.listing import ImageSource

# Written first, so that a build resumes only in a folder with the same plan. The plan
# is a pure function of the source names and the options and is made before any image is
# read. So every process, machine and later attempt computes the same blocks.
BUILD = "build.json"
# Raised when the same file decodes to other pixels than before, so that no shard set
# holds both.
DECODING = 2
# Errors of os.link on a file system without hard links, or between two file systems.
LINK_UNSUPPORTED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, 524)
SOURCES = "sources"
RESERVED_SPLITS = (ONE_SPLIT, SOURCES)  # not allowed as names of several splits
LOCK = ".lock"  # held by the running build, or shared by all running parts
BY_SOURCE = "source"  # `--splits source`
_MAX_BLOCKS = 300_000  # the manifest of more shards would be too large
_MAX_PLAN_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The options that, together with the source images, determine the shards' bytes.

    Raises UserError for invalid values.
    """

    size: int
    fit: str = "crop"
    dtype: str = "uint8"
    splits: str = ""  # as given by the user
    drop_grey: bool = False
    min_side: int = -1  # images with a shorter side are left out; -1: half of `size`
    max_pixels: int = MAX_PIXELS
    shard_size: int = 0  # sources per block; 0: at most 1000, and at least 16 blocks

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIZE:
            raise UserError(f"--size {self.size}: give a number of pixels from 1 to {MAX_SIZE}")
        if self.fit not in FITS:
            raise unknown("--fit", self.fit, FITS)
        if self.dtype not in DTYPES:
            raise unknown("--dtype", self.dtype, DTYPES)
        if self.min_side < -1 or self.max_pixels < 1 or self.shard_size < 0:
            raise UserError(
                "--min-side and --shard-size must be at least 0, --max-pixels at least 1"
            )
        parse_splits(self.splits)

    @property
    def smallest_side(self) -> int:
        """Minimum length, in pixels, of the shorter side of an image."""
        # By default, no image is enlarged by more than a factor of 2.
        return self.size // 2 if self.min_side < 0 else self.min_side


@lru_cache(maxsize=16)
def parse_splits(text: str) -> tuple[tuple[str, Fraction], ...]:
    """Parse the value of --splits into pairs (split name, upper end of its interval).

    The intervals divide [0, 1): `train=0.9,val=0.1` gives (train, 9/10), (val, 1).
    There are no pairs for "" and "source". Raises UserError if a name or a fraction is
    invalid or the fractions do not add up to 1.
    """
    if text in ("", BY_SOURCE):
        return ()
    names: list[str] = []
    ends: list[Fraction] = []
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        check_split_name(name.strip())
        try:
            fraction = Fraction(value.strip())
        except (ValueError, ZeroDivisionError):
            fraction = Fraction(0)
        if not equals or fraction <= 0 or name.strip() in names:
            raise UserError(
                f"--splits {text!r}: give each name once with a fraction above 0, "
                "such as train=0.9,val=0.1"
            )
        names.append(name.strip())
        ends.append(fraction + (ends[-1] if ends else 0))
    if abs(ends[-1] - 1) > Fraction(1, 10**6):
        raise UserError(
            f"--splits {text!r}: the fractions add up to {float(ends[-1]):g} instead of 1"
        )
    return tuple(zip(names, [*ends[:-1], Fraction(1)], strict=True))


def check_split_name(name: str) -> None:
    """Raise UserError unless `name` is allowed as the name of a split."""
    if not is_split_name(name) or name in RESERVED_SPLITS:
        raise UserError(
            f"invalid split name {name!r}: use letters, digits, - and _, with a letter first; "
            f"{ONE_SPLIT!r} and {SOURCES!r} are reserved"
        )


def split_of(digest: str, source: ImageSource, splits: str) -> str:
    """Return the name of the split that an image belongs to.

    `digest` is the SHA-256 of the image's encoded bytes, and `splits` the value of
    --splits.
    """
    if splits == BY_SOURCE:
        return source.split
    # Depends only on the encoded bytes, so it is the same at every --size.
    point = Fraction(int(digest[:16], 16), 1 << 64)
    return next((name for name, end in parse_splits(splits) if point < end), ONE_SPLIT)


@dataclass(frozen=True)
class Block:
    """Consecutive images of the shuffled source list, which one task packs together.

    `first_key` is the index of its first image in the shuffled list.
    """

    number: int
    first_key: int
    sources: tuple[ImageSource, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The content of OUT/build.json: a build's options, and a hash of its image names.

    `block_size` is the number of images in a block. Raises UserError if there are too
    many blocks.
    """

    parameters: Parameters
    num_sources: int
    sources_sha256: str
    block_size: int
    format: str = FORMAT
    decoding: int = 1  # that of a build.json without this field

    def __post_init__(self) -> None:
        if self.num_blocks > _MAX_BLOCKS:
            raise UserError(
                f"{self.num_blocks:,} blocks of {self.block_size} images are more than the "
                f"{_MAX_BLOCKS:,} allowed: give a larger --shard-size"
            )

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the build: groups of images that are packed together."""
        return -(-self.num_sources // self.block_size)

    @cached_property
    def identity(self) -> str:
        """Hash of the plan, 16 hexadecimal digits, which every record file contains."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def keys_of(self, block: int) -> range:
        """Return the keys (indices in the shuffled source list) of a block's images."""
        return range(block * self.block_size, min(self.num_sources, (block + 1) * self.block_size))


def make_plan(parameters: Parameters, sources: Sequence[ImageSource]) -> Plan:
    """Return the plan for building `sources`, which must be sorted by name.

    Raises UserError if `--splits source` is given and an image is not in a subfolder
    whose name is a valid split name.
    """
    if parameters.splits == BY_SOURCE:
        _check_own_splits(sources)
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode("utf-8", "surrogateescape") + b"\0")
    return Plan(
        decoding=DECODING,
        parameters=parameters,
        num_sources=len(sources),
        sources_sha256=digest.hexdigest(),
        block_size=_block_size(parameters, len(sources)),
    )


def _block_size(parameters: Parameters, num_sources: int) -> int:
    """Return the number of images per block, which are packed together."""
    return parameters.shard_size or min(1000, -(-num_sources // 16))


def _check_own_splits(sources: Sequence[ImageSource]) -> None:
    for source in sources:
        if not source.split:
            raise UserError(
                f"--splits {BY_SOURCE}: {source.name} is not in a subfolder: move it to a folder "
                "named after its split, e.g. train/, or use --splits train=0.9,val=0.1"
            )
        check_split_name(source.split)


def blocks_of(plan: Plan, sources: Sequence[ImageSource]) -> Iterator[Block]:
    """Shuffle `sources` and yield them block by block."""
    # The permutation depends only on the number of sources. It spreads the images of
    # each source folder over all shards.
    order = np.argsort(np.random.Philox(key=0).random_raw(len(sources)), kind="stable")
    for number in range(plan.num_blocks):
        keys = plan.keys_of(number)
        yield Block(
            number, keys.start, tuple(sources[index] for index in order[keys.start : keys.stop])
        )


def save_plan(plan: Plan, root: Path) -> None:
    """Write the plan of a build to OUT/build.json, or check that it is already there.

    Raises UserError if OUT contains another plan.
    """
    check_out(root)
    # Many machines may do this at the same time: one of them writes the file, the
    # others compare their plans with it.
    if not (root / BUILD).exists():
        _write_if_missing(root / BUILD, json.dumps(asdict(plan), indent=1).encode() + b"\n")
    check_plan(plan, root, f"choose a new OUT, or delete {root}")


def _write_if_missing(path: Path, data: bytes) -> None:
    """Write the file `path` atomically unless it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            fsync_file(stream, path)
        _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def _link(old: Path, new: Path) -> None:
    try:
        # Unlike a rename, a link never replaces a file, not even on network file
        # systems.
        os.link(old, new)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in LINK_UNSUPPORTED:
            raise
        # The last writer wins. `merge` rejects parts of different builds, because their
        # records name them.
        old.replace(new)


def check_plan(plan: Plan, folder: Path, advice: str) -> None:
    """Raise UserError, which ends with `advice`, unless `folder` contains this plan."""
    existing = load_plan(folder)
    if existing != plan:
        raise UserError(f"{folder} holds another build ({_difference(existing, plan)}): {advice}")


def check_out(root: Path) -> None:
    """Raise UserError unless `root` is missing, empty, or an earlier build's folder."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose a new folder for OUT")
    # Listed before BUILD is checked, because another machine may be writing it.
    names = os.listdir(root) if root.is_dir() else []  # noqa: PTH208
    if not names or BUILD in names or (root / BUILD).exists():
        return
    if MANIFEST in names:
        raise UserError(
            f"{root} has a {MANIFEST} but no {BUILD}: choose a new OUT, or delete {root}"
        )
    if any(not name.startswith((LOCK, f".{BUILD}.")) for name in names):
        raise UserError(f"{root} is not empty and holds no shard set: choose a new OUT")


def load_plan(root: Path) -> Plan:
    """Read OUT/build.json; raises UserError if it is missing or damaged."""
    path = root / BUILD
    try:
        return _parse_plan(read_regular(path, _MAX_PLAN_BYTES))
    except FileNotFoundError:
        raise UserError(
            f"{root} has no {BUILD}: give a folder written by `colortrain shards build`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, UserError) as error:
        raise UserError(f"{path} is damaged ({error}): delete {root} and build again") from None


def _parse_plan(data: bytes) -> Plan:
    """Parse the JSON text of a build plan, which may come from an untrusted source."""
    document = parse_json(data)
    plan = Plan(**{**document, "parameters": Parameters(**document["parameters"])})
    check_types(plan)
    check_types(plan.parameters)
    if plan.num_sources < 1 or plan.block_size != _block_size(plan.parameters, plan.num_sources):
        raise ValueError(f"blocks of {plan.block_size} of {plan.num_sources} images")
    return plan


def _difference(existing: Plan, plan: Plan) -> str:
    old, new = asdict(existing.parameters), asdict(plan.parameters)
    if existing.format != plan.format:
        return f"its format is {existing.format!r}, this version writes {plan.format!r}"
    if existing.decoding != plan.decoding:
        return "it was begun by a version that decodes some images differently"
    changed = [
        f"{name} was {old[name]!r}, is now {new[name]!r}"
        for name in new
        if old.get(name) != new[name]
    ]
    return "; ".join(changed) or "its source files are different"

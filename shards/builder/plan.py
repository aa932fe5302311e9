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
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shards.builder.selection import Quotas, Selection
from shards.builder.splits import (
    DEFAULT_SPARE,
    REST,
    SplitRules,
    check_split_name,
    parse_rules,
    without_folders,
)
from shards.errors import UserError, unknown
from shards.files import check_types, fsync_file, fsync_folder, read_regular
from shards.format.manifest import DTYPES, FORMAT, MANIFEST, MAX_SIZE, ONE_SPLIT
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
LOCK = ".lock"  # held by the running build, or shared by all running parts
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
    splits: str = ""  # as given by the user, but without the folders of lists
    drop_grey: bool = False
    min_side: int = -1  # images with a shorter side are left out; -1: half of `size`
    max_pixels: int = MAX_PIXELS
    shard_size: int = 0  # sources per block; 0: at most 1000, and at least 16 blocks
    rename: str = ""  # this and the following as given by the user
    carve: str = ""
    take: str = ""
    seed: int = 0
    spare: float = DEFAULT_SPARE

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
        assert self.rules  # raises UserError for invalid values

    @property
    def rules(self) -> SplitRules:
        """The rules by which images are assigned to splits."""
        return parse_rules(self.splits, self.rename, self.carve, self.take, self.seed, self.spare)

    @property
    def smallest_side(self) -> int:
        """Minimum length, in pixels, of the shorter side of an image."""
        # By default, no image is enlarged by more than a factor of 2.
        return self.size // 2 if self.min_side < 0 else self.min_side


def split_of(digest: str, source: ImageSource, parameters: Parameters) -> str:
    """Return the name of the split that an image is packed into.

    `digest` is the SHA-256 of the image's encoded bytes.
    """
    if not parameters.splits:
        return ONE_SPLIT
    rules = parameters.rules
    # Depends only on the encoded bytes and the seed, so it is the same at every --size.
    if rules.fractions and rules.seed:
        digest = hashlib.sha256(f"{rules.seed}\0{digest}".encode()).hexdigest()
    point = Fraction(int(digest[:16], 16), 1 << 64)
    return next((name for name, end in rules.fractions if point < end), source.split)


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
    # The following fields are those of `Selection`.
    num_spare: int = 0
    quotas: Quotas = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)

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
        document = json.dumps(_without_new_defaults(self), sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()[:16]

    def keys_of(self, block: int) -> range:
        """Return the keys (indices in the shuffled source list) of a block's images."""
        return range(block * self.block_size, min(self.num_sources, (block + 1) * self.block_size))


def _without_new_defaults(plan: Plan) -> dict[str, Any]:
    """Return the fields of a plan, except defaults of fields that were added later."""
    # So a build can be resumed that was begun before these fields existed.
    document = asdict(plan)
    for name in ("rename", "carve", "take", "seed", "spare"):
        if document["parameters"][name] == getattr(Parameters, name):
            del document["parameters"][name]
    for name in ("num_spare", "quotas", "unused"):
        if not document[name]:
            del document[name]
    return document


def make_plan(
    parameters: Parameters, sources: Sequence[ImageSource], selection: Selection | None = None
) -> Plan:
    """Return the plan for building `sources`, which must be sorted by name.

    `selection` says which of them are packed; by default, it is all of them.
    """
    selection = selection or Selection(sources=sources)
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(selection.listed_sha256.encode())
    num_sources = len(selection.sources)
    return Plan(
        decoding=DECODING,
        parameters=replace(parameters, splits=without_folders(parameters.splits)),
        num_sources=num_sources,
        sources_sha256=digest.hexdigest(),
        block_size=_block_size(parameters, num_sources),
        num_spare=selection.num_spare,
        quotas=selection.quotas,
        unused=selection.unused,
    )


def _block_size(parameters: Parameters, num_sources: int) -> int:
    """Return the number of images per block, which are packed together."""
    return parameters.shard_size or min(1000, -(-num_sources // 16))


def blocks_of(plan: Plan, sources: Sequence[ImageSource]) -> Iterator[Block]:
    """Shuffle `sources`, the selected ones, and yield them block by block."""
    # The permutation depends only on the number of sources. It spreads the images of
    # each source folder over all shards. The spare ones come last, so that most blocks
    # need not be rewritten when they are dropped.
    num_chosen = len(sources) - plan.num_spare
    order = np.argsort(np.random.Philox(key=0).random_raw(num_chosen), kind="stable")
    order = np.append(order, np.arange(num_chosen, len(sources)))
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
    _check_quotas(plan)
    if plan.num_sources < 1 or plan.block_size != _block_size(plan.parameters, plan.num_sources):
        raise ValueError(f"blocks of {plan.block_size} of {plan.num_sources} images")
    return plan


def _check_quotas(plan: Plan) -> None:
    """Raise ValueError, TypeError or AttributeError for invalid quotas and counts."""
    counts = [*plan.unused.values(), plan.num_spare]
    for pool in plan.quotas.values():
        counts += [count for count in pool.values() if count != REST]
        for name in pool:
            check_split_name(name)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("invalid quotas or counts")
    if plan.num_spare > plan.num_sources:
        raise ValueError(f"{plan.num_spare} of {plan.num_sources} images are spare")


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
    return "; ".join(changed) or "its source files are different" + ", or its lists" * bool(
        plan.parameters.rules.lists
    )

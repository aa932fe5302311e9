"""Find the inputs of `colortrain colorize`, name its outputs, and decode images."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from shards.errors import UserError
from shards.files import sha256_of
from shards.sources.decode import UndecodableError, decode_image
from shards.sources.listing import ImageSource, first_names, list_folder, read_bytes
from shards.sources.metadata import Metadata, is_image, read_metadata

VIDEO_SUFFIXES = (
    *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "divx", "mpg", "mpeg", "m2v"),
    *("vob", "ts", "mts", "m2ts", "m2t", "wmv", "asf", "flv", "f4v", "ogv", "ogm", "dv", "mxf"),
)
BATCH_PIXELS = 1 << 25  # most decoded pixels per batch: batches of large images are smaller


@dataclass(frozen=True)
class FileVersion:
    """The content of a file: its size in bytes, modification time and SHA-256."""

    size: int
    changed: int  # modification time in ns
    sha256: str

    @classmethod
    def of(cls, path: Path, data: bytes | None = None) -> FileVersion:
        """Return the size, modification time and SHA-256 of a file, as a `FileVersion`.

        data: the file's content, if it has already been read.
        """
        status = path.stat()
        digest = sha256_of(path) if data is None else hashlib.sha256(data).hexdigest()
        return cls(status.st_size, status.st_mtime_ns, digest)

    def is_of(self, path: Path) -> bool:
        """Return whether the file `path` still has the content described here."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
                return False
            # With the same size and time, the content is assumed to be the same.
            return status.st_mtime_ns == self.changed or sha256_of(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Job:
    """One image or video to colorize, and its output files, one for each network.

    kept: the output files that exist already and are not written again.
    """

    source: Path
    targets: tuple[Path, ...]
    kept: frozenset[Path] = frozenset()

    @property
    def is_video(self) -> bool:
        """Whether the source is a video, according to its file name's extension."""
        return is_video(self.source)


@dataclass
class Outcome:
    """The results so far of all jobs, the images and videos to colorize.

    num_written: number of images and videos that were colorized by every network;
    failures: one line per image or video that could not be read or written; notes: one
    line per image of which only the first page was colorized; video_lines: one line per
    colorized video and network.
    """

    num_written: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    video_lines: list[str] = field(default_factory=list)


@dataclass
class Inputs:
    """The images and videos of all inputs, and what was passed over.

    files: each with its path relative to the input folder; passed_over: lines of text
    about the files that were passed over.
    """

    files: list[tuple[Path, Path]] = field(default_factory=list)
    # For each folder, one line for each kind of file.
    passed_over: list[str] = field(default_factory=list)


def is_video(path: Path) -> bool:
    """Return whether a file is a video, according to the extension of its name."""
    return path.suffix[1:].lower() in VIDEO_SUFFIXES


def find_inputs(
    inputs: Sequence[Path],
    out: Path,
    *,
    by_content: bool = False,
    results: Collection[Path] = (),
) -> Inputs:
    """Return the images and videos of all inputs, sorted within each folder.

    inputs: files and folders; folders are searched for images but not for videos. out:
    folder that is not searched. results: real paths of earlier outputs, which are
    skipped. by_content: whether a file's content decides whether it is an image,
    instead of its extension. Raises UserError if an input does not exist or is a folder
    without images.
    """
    found = Inputs()
    for path in inputs:
        if path.is_dir():
            _search(path, out, by_content, results, found)
        elif path.exists():
            found.files.append((path, Path(path.name)))
        else:
            raise UserError(f"no such file or folder: {path}")
    return found


# Formats that people may expect to be colorized, named before other files.
_OTHER_IMAGES = (
    *("psd", "psb", "xcf", "svg", "exr", "hdr", "tga", "dds", "ico", "jxr"),
    *("raf", "rw2", "orf", "pef", "srw", "cr3", "crw", "raw"),
)


def _rank(name: str) -> tuple[bool, str]:
    return name.rpartition(".")[2].lower() not in _OTHER_IMAGES, name


def _search(
    folder: Path, out: Path, by_content: bool, results: Collection[Path], found: Inputs
) -> None:
    """Add the images of a folder to `found`, and lines about its other files.

    Raises UserError if the folder contains no images.
    """
    listing = list_folder(folder, out)
    others = listing.ignored
    names = [source.name for source in listing.sources]
    if by_content:
        images = {name for name in others if is_image(folder / name)}
        names, others = names + sorted(images), [name for name in others if name not in images]
    names = [name for name in names if _real(folder / name) not in results]
    if not names:
        raise UserError(f"no images in {folder}: give a folder that contains some")
    found.files += [(folder / name, Path(name)) for name in sorted(names)]
    videos = [name for name in others if is_video(Path(name))]
    unknown = [
        name for name in others if name not in videos and _real(folder / name) not in results
    ]
    kinds = {
        "passed over by their extension": sorted(unknown, key=_rank),
        "videos, which must be given as inputs themselves": sorted(videos),
        "hidden files, and folders of thumbnails, left out": sorted(listing.hidden),
    }
    found.passed_over += [
        f"{folder}: {kind}: {len(each):,} ({first_names(each)})"
        for kind, each in kinds.items()
        if each
    ]


def plan_jobs(files: Sequence[tuple[Path, Path]], out: Path, networks: Sequence[str]) -> list[Job]:
    """Return one job for each image and video, with its output files.

    files: each image and video with its path relative to the input folder. The output
    files are in `out`, or in `out`/NETWORK if there are several networks. Raises
    UserError if two inputs would be written to the same file, or if an output file
    would overwrite an input.
    """
    folders = [out] if len(networks) == 1 else [out / name for name in networks]
    unique = {(_real(source), relative): source for source, relative in files}
    names = _name_targets([relative for _, relative in unique])
    jobs: dict[Path, Job] = {}
    for source, name in zip(unique.values(), names, strict=True):
        job = Job(source, tuple(folder / name for folder in folders))
        if jobs.setdefault(name, job) is not job:
            raise UserError(
                f"{jobs[name].source} and {source} would both be written to {job.targets[0]}: "
                "rename one of them"
            )
    _check_sources(jobs.values())
    return list(jobs.values())


def _name_targets(sources: Sequence[Path]) -> list[Path]:
    """Return a relative output path for each relative path of a source."""
    # The extension is replaced if that is unique, otherwise extended: a.jpg next to
    # a.png becomes a.jpg.png. Equal sources get equal names.
    usual = [source.with_name(f"{source.stem}{_extension(source)}") for source in sources]
    counts = Counter(usual)
    names = {
        source: name
        for source, name in zip(sources, usual, strict=True)
        if counts[name] == 1 or name == source
    }
    taken = set(names.values())
    for source in sources:
        if source not in names:
            name = source
            while name == source or name in taken:
                name = name.with_name(f"{name.name}{_extension(source)}")
            taken.add(name)
            names[source] = name
    return [names[source] for source in sources]


def _extension(source: Path) -> str:
    return ".mp4" if is_video(source) else ".png"


def _check_sources(jobs: Collection[Job]) -> None:
    """Raise UserError if an output file of any job would overwrite an input."""
    sources = {_real(job.source): job.source for job in jobs}
    for job in jobs:
        for target in job.targets:
            if source := sources.get(_real(target)):
                raise UserError(
                    f"{source} would be overwritten by the colorized version of {job.source}: "
                    "choose another --out"
                )


def check_sheet(sheet: Path, jobs: Sequence[Job]) -> None:
    """Raise UserError unless a contact sheet can be written to the file `sheet`.

    Its name must end in .png or .jpg and must not be the name of an input or output
    file.
    """
    if sheet.suffix.lower() not in (".png", ".jpg"):
        raise UserError(f"--sheet {sheet}: give a name that ends in .png or .jpg")
    if _real(sheet) in {_real(path) for job in jobs for path in (job.source, *job.targets)}:
        raise UserError(f"--sheet {sheet} is also the name of an image: choose another name")


def _real(path: Path) -> Path:
    """Return a path with symbolic links resolved."""
    # Unlike `Path.resolve`, this does not raise for a link to itself, which is later
    # reported as unreadable.
    return Path(os.path.realpath(path))


@dataclass
class Photograph:
    """A decoded image, its job, and what is known about the image's file.

    job: the image and its output files; version: size, modification time and SHA-256 of
    the image's file; metadata: what the colorized copy keeps.
    """

    job: Job
    image: Image.Image
    version: FileVersion
    metadata: Metadata


def read_batches(
    jobs: Sequence[Job], batch_size: int, max_pixels: int, outcome: Outcome
) -> Iterator[list[Photograph]]:
    """Yield batches of at most `batch_size` decoded images.

    Images with more than `max_pixels` and unreadable ones are added to
    `outcome.failures` instead.
    """
    batch: list[Photograph] = []
    pixels = 0
    for job in jobs:
        try:
            batch.append(_read(job, max_pixels))
        except (UndecodableError, OSError) as error:
            outcome.failures.append(f"{job.source}: {error}")
            continue
        except MemoryError:
            outcome.failures.append(f"{job.source}: not enough memory to decode it")
            continue
        # no local variable for the image, because it would keep the image in memory
        pixels += batch[-1].image.width * batch[-1].image.height
        if len(batch) == batch_size or pixels >= BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(job: Job, max_pixels: int) -> Photograph:
    limit = max(1 << 26, 16 * max_pixels)  # bytes
    data = read_bytes(ImageSource(job.source.name, str(job.source)), limit=limit)
    image = decode_image(data, max_pixels)
    return Photograph(job, image, FileVersion.of(job.source, data), read_metadata(data))

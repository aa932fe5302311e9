"""Training batches from plain WebDataset tars, local or remote, without an index.

Unlike with shards from `colortrain shards build`, samples may be repeated or missed in
an epoch, and a resumed run sees other samples than an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import queue
import random
import tarfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from colortrain.data.loader import Loader, LoaderConfig
from colortrain.lab import Batch, Codec
from colortrain.models.memory import check_batch
from shards.color import pack, unpack
from shards.errors import UserError
from shards.read.mixture import Samples
from shards.read.order import permutation
from shards.read.tar_stream import IMAGES, TarStream, list_tars, stored_sample
from shards.sources.decode import UndecodableError

NOT_EXACT = (
    "--stream is not exact: a resumed run sees different samples than an uninterrupted one, and "
    "a sample may be seen several times per epoch or not at all; shards from "
    "`colortrain shards build` are exact"
)
_SHUFFLE_INITIAL = 100  # samples in a shuffle buffer before the first one is taken out
_QUEUE_SIZE = 64  # samples that a worker prefetches


@dataclass(frozen=True)
class StreamedTars:
    """Plain tars to train on, with the interface of `shards.read.mixture.Samples`.

    The sample numbers that a caller requests are ignored: samples come in the order in
    which they are read from the tars.
    """

    tars: tuple[str, ...]
    size: int
    epoch_images: int  # that count as one epoch; the true number is not known
    fit: str = "crop"  # how images that are not square are made square
    buffer: int = 1000  # size of a worker's shuffle buffer, in samples

    @property
    def dataset_id(self) -> str:
        """Sixteen hexadecimal digits that identify the training data."""
        # names of the tars, not their contents
        tars = [tar.partition("?")[0] for tar in self.tars]  # signatures of URLs expire
        identity = json.dumps(["stream", tars, self.size, self.fit, self.epoch_images])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.epoch_images

    def order(self, seed: int) -> Callable[[int, int], np.ndarray]:
        """Return the sample order: a function (start, stop) -> sample numbers."""
        return np.arange  # for every seed: `read` ignores the numbers

    def prefetch(self, order: Any, position: int) -> None:
        """Do nothing; `Samples` requires this method."""

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Return as many unshuffled samples as `samples` has items.

        The result is (B, 3, size, size) Lab as stored in shards, uint8 or float16.
        Raises UserError for a damaged tar.
        """
        # Statistics use this stream; training reads its own samples, in `WorkerStream`.
        return stack_samples([next(self._unshuffled) for _ in samples])

    @cached_property
    def _unshuffled(self) -> Iterator[np.ndarray]:
        tars = dataclasses.replace(self, buffer=1)
        # damaged samples are skipped with a warning
        return WorkerStream(tars, seed=0, on_damaged=_warn_not_counted).samples()


def _warn_not_counted(message: str) -> None:
    warnings.warn(f"not counted: {message}", stacklevel=2)


def open_stream(pattern: str, size: int, epoch_images: int, fit: str = "crop") -> StreamedTars:
    """Return the tars whose names match `pattern`, to train on.

    `size` is the side in pixels to which images are resized; `fit` says how they are
    made square. Raises UserError if no tar matches.
    """
    return StreamedTars(list_tars(pattern), size, epoch_images, fit)


@dataclass
class WorkerStream:
    """The samples that one worker thread of one rank reads from the tars.

    Damaged samples are skipped, each with a call of `on_damaged`; if that is None, the
    first one raises UserError.
    """

    source: StreamedTars
    seed: int
    start: int = 0  # images consumed when the run started
    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    on_damaged: Callable[[str], None] | None = None

    def samples(self) -> Iterator[np.ndarray]:
        """Yield shuffled samples without end: (3, size, size) Lab, uint8 or float16.

        Raises UserError if a tar is damaged, or if many tars in a row contain no
        sample.
        """
        rng = random.Random(f"{self.seed}/{self.start}/{self.rank}/{self.worker}")
        shuffle = webdataset.shuffle(self.source.buffer, initial=_SHUFFLE_INITIAL, rng=rng)
        return iter(webdataset.DataPipeline(self._stored, shuffle))

    def tars(self) -> Iterator[str]:
        """Yield the names of this worker's tars in reading order, without end."""
        # The tars are read in passes. In each pass, a permutation distributes them
        # among the ranks and their workers, so that no two ranks read the same tar in a
        # pass. No worker waits for another one before its next pass, so tars of unequal
        # length do not delay any rank.
        tars, readers = len(self.source.tars), self.world * self.workers
        for number in count():
            order = permutation(self.seed, (self.start, number), tars)
            # The first reader changes from pass to pass, so that with fewer tars than
            # readers each of them gets some in turn.
            reader = (self.rank + self.world * self.worker + number * tars) % readers
            yield from (self.source.tars[tar] for tar in order[reader::readers])

    def _stored(self) -> Iterator[np.ndarray]:
        empty = 0  # tars in a row without a usable sample
        for tar in self.tars():
            empty += 1
            for stored in self._stored_of(tar):
                empty = 0
                yield stored
            # With few tars, the same empty one can come up many times in a row.
            if empty > 50 + 2 * len(self.source.tars):
                raise UserError(
                    f"{tar} and the tars before it contain no sample with a lab.npy or "
                    f"{'/'.join(IMAGES)}: check the pattern of --stream"
                )

    def _stored_of(self, tar: str) -> Iterator[np.ndarray]:
        for members in iter_samples(tar):
            try:
                stored = stored_sample(members, self.source.size, self.source.fit)
            except UndecodableError as error:
                self._report(f"{members['__url__']}: sample {members['__key__']}: {error}")
                continue
            if stored is not None:
                yield stored

    def _report(self, message: str) -> None:
        if self.on_damaged is None:
            raise UserError(f"{message}: remove it, or allow damaged samples with --corrupt-limit")
        self.on_damaged(message)


def iter_samples(tar: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of one tar, each as a dict that maps file extension to content.

    Raises UserError at the end if the tar is damaged or truncated.
    """
    stream = TarStream(tar)
    try:
        yield from group_by_keys(tar_file_expander(iter([{"url": stream.name, "stream": stream}])))
        stream.check_complete()
    except UserError as error:
        # webdataset appends to the arguments of exceptions
        raise UserError(error.args[0]) from None
    except (tarfile.TarError, ValueError) as error:
        stream.check_complete()
        raise UserError(
            f"{stream.name}: {error.args[0]}: restore it, or leave it out of the pattern"
        ) from None
    finally:
        stream.close()


def stack_samples(samples: list[np.ndarray]) -> np.ndarray:
    """Stack samples (3, size, size) into one array (B, 3, size, size).

    The result is float16 if any sample is, otherwise uint8.
    """
    if len({sample.dtype for sample in samples}) > 1:
        samples = [pack(unpack(sample), "float16") for sample in samples]
    return np.stack(samples)


class _PrefetchedSamples:
    """The samples that all worker threads of one rank prefetch, for use by `Loader`."""

    # It has the interface of `shards.read.mixture.Samples`. Each worker has its own
    # queue, and samples are taken from the queues in turn.
    def __init__(
        self, workers: list[WorkerStream], limit: int, on_warning: Callable[[str], None]
    ) -> None:
        self.workers, self.limit, self.on_warning = workers, limit, on_warning
        source = workers[0].source
        self.dataset_id, self.size = source.dataset_id, source.size
        self.order, self.prefetch = source.order, source.prefetch
        self.damaged = self._taken = 0
        self._length = len(source)
        self._lock = threading.Lock()  # for `damaged`

    def __len__(self) -> int:
        return self._length

    def start(self, images: int) -> None:
        """Start the worker threads of a run that has consumed `images` images."""
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._queues: list[queue.Queue[np.ndarray | BaseException]] = [
            queue.Queue(_QUEUE_SIZE) for _ in self.workers
        ]
        self._threads = []
        for worker, samples in zip(self.workers, self._queues, strict=True):
            worker.start, worker.on_damaged = images, self._skip if self.limit else None
            self._threads.append(
                threading.Thread(target=self._fill, args=(worker, samples), daemon=True)
            )
            self._threads[-1].start()

    def close(self) -> None:
        """Stop the worker threads and wait until they have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Return as many next samples as `samples` has items: (B, 3, size, size).

        Raises the error of a worker thread that has failed.
        """
        return stack_samples([self._next() for _ in samples])

    def _next(self) -> np.ndarray:
        if self._error:  # the thread has ended and will not fill its queue any more
            raise self._error
        item = self._queues[self._taken % len(self._queues)].get()
        self._taken += 1
        if isinstance(item, BaseException):
            self._error = item
            raise item
        return item

    def _fill(self, worker: WorkerStream, samples: queue.Queue) -> None:
        try:
            for stored in worker.samples():
                if not self._put(samples, stored):
                    return
        except BaseException as error:  # raised again where the samples are read
            self._put(samples, error)

    def _put(self, samples: queue.Queue, item: object) -> bool:
        """Put an item into a queue when it has room, or return False after `close`."""
        while not self._stop.is_set():
            try:
                samples.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _skip(self, message: str) -> None:
        with self._lock:
            self.damaged += 1
            if self.damaged > self.limit:
                raise UserError(
                    f"{message}: this is damaged sample {self.damaged} and at most {self.limit} "
                    "are allowed: repair the tar or raise --corrupt-limit"
                )
        self.on_warning(message)


class StreamLoader:
    """Yields one rank's batches from `StreamedTars`, with the interface of `Loader`.

    Samples are read by `config.workers` threads, at least one. `config.max_damaged`
    applies to each rank separately.
    """

    # The batches depend only on the seed, the number of images consumed at the start,
    # the rank, and the numbers of processes and workers. Flips and crops depend on the
    # position in the sample order, as in `Loader`.
    def __init__(
        self,
        samples: StreamedTars,
        codec: Codec,
        config: LoaderConfig,
        on_warning: Callable[[str], None] = print,
    ) -> None:
        workers = max(config.workers, 1)
        streams = [
            WorkerStream(samples, config.seed, 0, config.rank, config.world, worker, workers)
            for worker in range(workers)
        ]
        self.prefetched = _PrefetchedSamples(streams, config.max_damaged, on_warning)
        # One thread takes samples from the workers, so that their order is
        # deterministic.
        single = dataclasses.replace(config, workers=1, max_damaged=0)
        self.loader = Loader(self.prefetched, codec, single)

    @property
    def waited(self) -> float:
        """Time in seconds that the training loop waited for batches."""
        return self.loader.waited

    @property
    def num_damaged(self) -> int:
        """Number of damaged samples that this rank has skipped."""
        return self.prefetched.damaged

    def batches(self, images: int = 0) -> Generator[Batch, None, None]:
        """Yield batches without end for a run that has consumed `images` images."""
        if self.loader.config.rank == 0:
            self.prefetched.on_warning(NOT_EXACT)
        self.prefetched.start(images)
        with closing(self.prefetched):
            yield from self.loader.batches(images)


def make_loader(
    samples: Samples,
    codec: Codec,
    config: LoaderConfig,
    on_warning: Callable[[str], None] = print,
) -> Loader | StreamLoader:
    """Return the loader for `samples`: a `StreamLoader` for tars, otherwise a `Loader`.

    `on_warning` is called with the text of each warning. Raises UserError if a
    process's batch does not fit into memory.
    """
    image_bytes = samples.size**2 * (3 + 4 * (1 + codec.channels))  # as stored, and as floats
    check_batch(config.batch_size // config.world, image_bytes)
    if isinstance(samples, StreamedTars):
        return StreamLoader(samples, codec, config, on_warning)
    return Loader(samples, codec, config, on_warning)

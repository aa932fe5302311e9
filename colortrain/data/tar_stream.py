"""Training from plain WebDataset tars, near or far, as they are: no index, no exact resume, nothing built before.

Pass p deals all tars to the ranks and their workers by (seed, images at the start, p); each reads its tars through
webdataset, shuffles in a buffer, and goes on to the next pass by itself, without end. So within a pass no two ranks
read the same tar, uneven tars make nobody wait, and with fewer tars than ranks they take turns. What it does not do:
see every sample once an epoch, go on after a stop with the samples that were left, or be the same for another number
of processes. Shards from `python -m shards build` do.
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
import torch
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from colortrain.data.loader import Loader
from colortrain.lab import Batch, Codec
from shards.color import pack, unpack
from shards.errors import UserError
from shards.read.mixture import Samples
from shards.read.order import permutation
from shards.read.tar_stream import IMAGES, TarStream, list_tars, stored_sample
from shards.sources.decode import UndecodableError

NOT_EXACT = (
    "--stream is not exact: a resumed run sees other samples than an undisturbed one, and none is sure to be seen once "
    "an epoch; `python -m shards build` makes shards that are"
)
_FIRST = 100  # samples in a shuffle buffer before the first is taken out
_AHEAD = 64  # samples that a worker holds ready


@dataclass(frozen=True)
class Stream:
    """Tars to learn from; `epoch_images` is what one epoch is taken to be, since nobody counts them before.

    Its words are those of `shards.read.mixture.Samples`, but it gives samples as they come, whichever are asked for.
    """

    tars: tuple[str, ...]
    size: int
    epoch_images: int
    fit: str = "crop"  # of images that are not square
    buffer: int = 1000  # samples that a worker shuffles among

    @property
    def dataset_id(self) -> str:
        """Sixteen hexadecimal digits that name these tars, whatever is in them."""
        tars = [tar.partition("?")[0] for tar in self.tars]  # a signature changes from day to day
        named = json.dumps(["stream", tars, self.size, self.fit, self.epoch_images])
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.epoch_images

    def order(self, seed: int) -> Callable[[int, int], np.ndarray]:
        """Positions stand for themselves."""
        return np.arange

    def prefetch(self, order: Any, position: int) -> None:
        """Nothing: tars are read as they come."""

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """As many samples as are asked for, the next that come of a stream of its own: for statistics at the start."""
        return stacked([next(self._own) for _ in samples])

    @cached_property
    def _own(self) -> Iterator[np.ndarray]:
        return Part(dataclasses.replace(self, buffer=1), seed=0, damaged=_not_counted).samples()


def _not_counted(what: str) -> None:
    warnings.warn(f"not counted: {what}", stacklevel=2)


def open_stream(pattern: str, size: int, epoch_images: int, fit: str = "crop") -> Stream:
    """The tars that a pattern names; raises `UserError` if there are none."""
    return Stream(list_tars(pattern), size, epoch_images, fit)


@dataclass
class Part:
    """What one worker of one rank reads of a stream."""

    stream: Stream
    seed: int
    start: int = 0  # images consumed when the run began
    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    damaged: Callable[[str], None] | None = (
        None  # is told of a sample that cannot be used; None: it ends the run
    )

    def samples(self) -> Iterator[np.ndarray]:
        """Packed Lab (3, size, size), without end."""
        words = f"{self.seed}/{self.start}/{self.rank}/{self.worker}"
        shuffle = webdataset.shuffle(self.stream.buffer, initial=_FIRST, rng=random.Random(words))
        return iter(webdataset.DataPipeline(self._stored, shuffle))

    def tars(self) -> Iterator[str]:
        """The tars of one pass after the other, in the order in which this worker reads them."""
        tars, hands = len(self.stream.tars), self.world * self.workers
        for number in count():
            dealt = permutation(self.seed, (self.start, number), tars)
            # The first hand moves on from pass to pass: where there are fewer tars than hands, all get some in turn.
            hand = (self.rank + self.world * self.worker + number * tars) % hands
            yield from (self.stream.tars[tar] for tar in dealt[hand::hands])

    def _stored(self) -> Iterator[np.ndarray]:
        empty = 0
        for tar in self.tars():
            empty += 1
            for stored in self._stored_of(tar):
                empty = 0
                yield stored
            if empty > 50 + 2 * len(
                self.stream.tars
            ):  # with few tars, an empty one may come many times in a row
                raise UserError(
                    f"{tar} and the tars before it hold no sample with a lab.npy or {'/'.join(IMAGES)}"
                )

    def _stored_of(self, tar: str) -> Iterator[np.ndarray]:
        for members in samples_of(tar):
            try:
                stored = stored_sample(members, self.stream.size, self.stream.fit)
            except UndecodableError as error:
                self._tell(f"{members['__url__']}: sample {members['__key__']}: {error}")
                continue
            if stored is not None:
                yield stored

    def _tell(self, what: str) -> None:
        if self.damaged is None:
            raise UserError(f"{what}: leave it out, or allow some with --corrupt-limit")
        self.damaged(what)


def samples_of(tar: str) -> Iterator[dict[str, Any]]:
    """webdataset's samples of one tar; raises `UserError` at the end if the tar is damaged or cut short."""
    stream = TarStream(tar)
    try:
        yield from group_by_keys(tar_file_expander(iter([{"url": stream.name, "stream": stream}])))
        stream.check_complete()
    except UserError as error:
        raise UserError(
            error.args[0]
        ) from None  # webdataset adds to the arguments of what passes through it
    except (tarfile.TarError, ValueError) as error:
        stream.check_complete()
        raise UserError(
            f"{stream.name}: {error.args[0]}: restore it, or leave it out of the pattern"
        ) from None
    finally:
        stream.close()


def stacked(samples: list[np.ndarray]) -> np.ndarray:
    """One array of samples, (B, 3, size, size): float16 where both types are among them."""
    if len({sample.dtype for sample in samples}) > 1:
        samples = [pack(unpack(sample), "float16") for sample in samples]
    return np.stack(samples)


class _Ahead:
    """What one rank reads, ready in the queues of its workers' threads, taken from them in turn: `Samples` to `Loader`.

    Up to `limit` samples that cannot be used are passed over; `on_warning` hears of each.
    """

    def __init__(self, parts: list[Part], limit: int, on_warning: Callable[[str], None]) -> None:
        self.parts, self.limit, self.on_warning = parts, limit, on_warning
        self.stream = parts[0].stream
        self.dataset_id, self.size, self.order = (
            self.stream.dataset_id,
            self.stream.size,
            self.stream.order,
        )
        self.prefetch = self.stream.prefetch
        self.damaged = self._taken = 0
        self._counting = threading.Lock()

    def __len__(self) -> int:
        return len(self.stream)

    def start(self, images: int) -> None:
        """Begin to read, where a run has consumed `images`."""
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._queues: list[queue.Queue[np.ndarray | BaseException]] = [
            queue.Queue(_AHEAD) for _ in self.parts
        ]
        self._threads = []
        for part, ready in zip(self.parts, self._queues, strict=True):
            part.start, part.damaged = images, self._pass_over if self.limit else None
            self._threads.append(
                threading.Thread(target=self._work, args=(part, ready), daemon=True)
            )
            self._threads[-1].start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def read(self, samples: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """As many samples as are asked for, the next that come."""
        return stacked([self._next() for _ in samples])

    def _next(self) -> np.ndarray:
        if self._failed:  # its thread has ended, nothing more comes
            raise self._failed
        item = self._queues[self._taken % len(self._queues)].get()
        self._taken += 1
        if isinstance(item, BaseException):
            self._failed = item
            raise item
        return item

    def _work(self, part: Part, ready: queue.Queue) -> None:
        try:
            for stored in part.samples():
                if not self._put(ready, stored):
                    return
        except BaseException as error:  # the loop that asks must see it, not this thread's log
            self._put(ready, error)

    def _put(self, ready: queue.Queue, item: object) -> bool:
        """Whether there was room before the end."""
        while not self._stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _pass_over(self, what: str) -> None:
        with self._counting:
            self.damaged += 1
            if self.damaged > self.limit:
                raise UserError(
                    f"{what}: the {self.damaged}. damaged sample, {self.limit} were allowed"
                )
        self.on_warning(what)


class StreamLoader:
    """Endless batches of one rank from a `Stream`, with the words of `colortrain.data.loader.Loader`.

    `workers` threads read and decode; the same seed, images, rank, world and workers give the same batches. Mirroring
    and cropping follow the position, as there. `max_damaged` counts for each rank.
    """

    def __init__(
        self,
        stream: Stream,
        codec: Codec,
        *,
        batch_size: int,
        seed: int,
        flip: float,
        crop: float = 1.0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 1,
        max_damaged: int = 0,
        on_warning: Callable[[str], None] = print,
    ) -> None:
        workers = max(workers, 1)
        parts = [Part(stream, seed, 0, rank, world, worker, workers) for worker in range(workers)]
        self.ahead = _Ahead(parts, max_damaged, on_warning)
        # One thread asks, so that samples come in the order in which they are taken from the workers.
        self.loader = Loader(
            self.ahead,
            codec,
            batch_size=batch_size,
            seed=seed,
            flip=flip,
            crop=crop,
            rank=rank,
            world=world,
            device=device,
            workers=1,
        )

    @property
    def waited(self) -> float:
        """Seconds that the training loop stood still."""
        return self.loader.waited

    @property
    def substituted(self) -> int:
        """How many damaged samples this rank has passed over."""
        return self.ahead.damaged

    def batches(self, images: int = 0) -> Generator[Batch, None, None]:
        """Batches for a run that has consumed `images`, without end."""
        if self.loader.rank == 0:
            self.ahead.on_warning(NOT_EXACT)
        self.ahead.start(images)
        with closing(self.ahead):
            yield from self.loader.batches(images)


def make_loader(samples: Samples, codec: Codec, **words: Any) -> Loader | StreamLoader:
    """The loader for what a run learns from."""
    return (
        StreamLoader(samples, codec, **words)
        if isinstance(samples, Stream)
        else Loader(samples, codec, **words)
    )

"""Streaming plain tars: all samples are read, without overlap between ranks, endlessly.

Damage is reported with the name of the tar and the sample.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset import TarWriter

from colortrain.data.loader import LoaderConfig
from colortrain.data.tar_stream import (
    NOT_EXACT,
    StreamedTars,
    StreamLoader,
    WorkerStream,
    iter_samples,
    open_stream,
)
from colortrain.lab import SymmetricCodec
from shards.color import pack, rgb_to_lab
from shards.errors import UserError
from shards.read.tar_stream import TarStream, list_tars
from tests.support.http_server import serving
from tests.support.small_shard_set import cut_outs

SIZE = 16


def marked(number: int, dtype: str = "uint8") -> np.ndarray:
    """Return a sample whose pixel values are all its number."""
    return np.full((3, SIZE, SIZE), number, dtype)


def write_tars(folder: Path, counts: list[int], dtype: str = "uint8") -> str:
    """Write tars of numbered samples with webdataset; return their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for tar, count in enumerate(counts):
        with TarWriter(str(folder / f"{tar:06d}.tar")) as writer:
            for _ in range(count):
                writer.write(
                    {
                        "__key__": f"{number:09d}",
                        "lab.npy": marked(number, dtype),
                        "json": {"n": number},
                    }
                )
                number += 1
    return f"{folder}/{{000000..{len(counts) - 1:06d}}}.tar"


def png(rgb: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    return stream.getvalue()


def loader(
    stream: StreamedTars, batch_size: int = 4, messages: list[str] | None = None, **options: Any
) -> StreamLoader:
    config = LoaderConfig(**{"batch_size": batch_size, "seed": 3, "flip": 0.0, **options})
    on_warning = (messages if messages is not None else []).append
    return StreamLoader(stream, SymmetricCodec(), config, on_warning)


def numbers(loading: StreamLoader, batches: int, images: int = 0) -> list[int]:
    """Return the numbers of the samples in the first batches."""
    generator = loading.batches(images)
    lightness = [batch.L[:, 0, 0, 0] for batch in islice(generator, batches)]
    generator.close()
    return ((torch.cat(lightness) + 1) * 127.5).round().int().tolist()


def test_one_pass_reads_every_sample_once_shuffled(tmp_path: Path) -> None:
    stream = open_stream(write_tars(tmp_path, [20, 1, 13, 6]), SIZE, 40)
    part = WorkerStream(StreamedTars(stream.tars, SIZE, 40, buffer=1), seed=1)
    first = [int(stored[0, 0, 0]) for stored in islice(part.samples(), 80)]
    assert sorted(first[:40]) == sorted(first[40:]) == list(range(40))
    shuffled = [
        int(stored[0, 0, 0]) for stored in islice(WorkerStream(stream, seed=1).samples(), 400)
    ]
    assert shuffled[:40] != first[:40]
    assert set(shuffled) == set(range(40))


def test_batches_hold_the_stored_pixels_scaled_like_those_of_shards(tmp_path: Path) -> None:
    rgb = cut_outs(SIZE, 8)
    stored = np.stack([pack(rgb_to_lab(each)) for each in rgb])
    with TarWriter(str(tmp_path / "0.tar")) as writer:
        for number, each in enumerate(stored):
            writer.write({"__key__": f"{number}", "lab.npy": each})
    stream = StreamedTars(list_tars(str(tmp_path / "0.tar")), SIZE, 8, buffer=1)
    generator = loader(stream, batch_size=8).batches()
    batch = next(generator)
    generator.close()
    np.testing.assert_allclose(batch.L[:, 0].numpy(), stored[:, 0] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(
        batch.colour.numpy(), (stored[:, 1:].astype(float) - 128) / 110, atol=1e-6
    )


def test_images_are_decoded_fitted_and_converted(tmp_path: Path) -> None:
    rgb = cut_outs(2 * SIZE, 3)
    with TarWriter(str(tmp_path / "0.tar")) as writer:
        for number, suffix in enumerate(("png", "PNG", "crop.png")):
            writer.write({"__key__": f"photo{number}", suffix: png(rgb[number]), "txt": "text"})
        writer.write({"__key__": "text", "txt": "no image"})
    stored = list(
        islice(
            WorkerStream(
                StreamedTars((str(tmp_path / "0.tar"),), SIZE, 3, buffer=1), seed=0
            ).samples(),
            3,
        )
    )
    for number in range(3):
        small = Image.fromarray(rgb[number]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(stored[number], pack(rgb_to_lab(np.asarray(small))))


def test_statistics_read_the_samples_in_turn_and_equally_on_all_ranks(tmp_path: Path) -> None:
    pattern = write_tars(tmp_path, [7, 5])
    streams = [StreamedTars(list_tars(pattern), SIZE, 12, buffer=1) for _ in range(2)]
    one, other = (
        [int(stream.read([number])[0, 0, 0, 0]) for number in range(12)] for stream in streams
    )
    assert one == other
    assert sorted(one) == list(range(12))


def test_samples_of_both_dtypes_become_float16(tmp_path: Path) -> None:
    with TarWriter(str(tmp_path / "0.tar")) as writer:
        writer.write(
            {"__key__": "0", "lab.npy": pack(rgb_to_lab(np.full((SIZE, SIZE, 3), 128, np.uint8)))}
        )
        writer.write({"__key__": "1", "lab.npy": np.full((3, SIZE, SIZE), 7, np.float16)})
    both = StreamedTars((str(tmp_path / "0.tar"),), SIZE, 2, buffer=1).read(range(2))
    assert both.dtype == np.float16
    np.testing.assert_allclose(both[0, :, 0, 0], [53.6, 0, 0], atol=0.2)
    assert (both[1] == 7).all()


@pytest.mark.parametrize(("world", "workers"), [(2, 1), (3, 2), (4, 3)])
def test_each_tar_of_a_pass_goes_to_one_worker_of_one_rank(world: int, workers: int) -> None:
    stream = StreamedTars(tuple(map(str, range(25))), SIZE, 1)
    dealt = []
    for rank, worker in np.ndindex(world, workers):
        part = WorkerStream(stream, seed=1, rank=rank, world=world, worker=worker, workers=workers)
        passes = 200 * len(stream.tars) // (world * workers)
        dealt.append(list(islice(part.tars(), passes)))
    first = [tar for each in dealt for tar in each[: 25 // (world * workers)]]
    assert len(first) == len(set(first))  # no overlap within the first pass
    assert all(
        set(each) == set(stream.tars) for each in dealt
    )  # over several passes, each worker reads all tars


def test_fewer_tars_than_ranks_block_no_rank(tmp_path: Path) -> None:
    stream = open_stream(write_tars(tmp_path, [3, 0]), SIZE, 3)
    for rank in range(4):
        assert set(numbers(loader(stream, rank=rank, world=4), 9)) == {0, 1, 2}


def test_batches_are_a_function_of_seed_images_and_workers(tmp_path: Path) -> None:
    stream = open_stream(write_tars(tmp_path, [40, 30, 50]), SIZE, 120)

    def read(images: int = 0, **options: Any) -> tuple[int, ...]:
        return tuple(numbers(loader(stream, batch_size=4, **options), 12, images))

    for workers in (1, 3):
        assert read(workers=workers) == read(workers=workers)
    assert len({read(), read(workers=2), read(seed=4), read(images=48)}) == 4


def test_flips_depend_on_the_position(tmp_path: Path) -> None:
    stream = open_stream(write_tars(tmp_path, [8]), SIZE, 8)
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.uint8), (3, SIZE, SIZE))
    with TarWriter(str(tmp_path / "000000.tar")) as writer:
        for number in range(8):
            writer.write({"__key__": f"{number}", "lab.npy": np.ascontiguousarray(ramp)})
    one_rank, two_ranks = (
        [
            next(loader(stream, batch_size=8, flip=0.5, rank=rank, world=world).batches())
            for rank in range(world)
        ]
        for world in (1, 2)
    )
    assert torch.equal(torch.cat([part.L for part in two_ranks]), one_rank[0].L)
    assert torch.equal(torch.cat([part.mix for part in two_ranks]), one_rank[0].mix)
    assert 0 < (one_rank[0].L[:, 0, 0, 0] > one_rank[0].L[:, 0, 0, -1]).sum() < 8


def test_rank_0_warns_once_that_streaming_is_not_exact(tmp_path: Path) -> None:
    stream = open_stream(write_tars(tmp_path, [8, 8]), SIZE, 16)
    messages: list[str] = []
    for rank in (0, 1):
        numbers(loader(stream, messages=messages, rank=rank, world=2), 2)
    assert messages == [NOT_EXACT]


READ_ONE_RANK = """
import json, sys
from itertools import islice
from colortrain.lab import SymmetricCodec
from colortrain.data.loader import LoaderConfig
from colortrain.data.tar_stream import StreamLoader, open_stream
pattern, rank = sys.argv[1], int(sys.argv[2])
stream = open_stream(pattern, 16, 40)
config = LoaderConfig(batch_size=4, seed=3, flip=0, rank=rank, world=2, workers=2)
loading = StreamLoader(stream, SymmetricCodec(), config)
numbers = []
for batch in islice(loading.batches(), 50):
    numbers += ((batch.L[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
print(json.dumps(numbers))
"""


def test_two_processes_read_disjoint_tars_of_unequal_length(
    tmp_path: Path,
) -> None:
    """Each of four workers (two ranks) gets one tar in the first pass."""
    pattern = write_tars(tmp_path, [1, 25, 4, 10])
    command = [sys.executable, "-c", READ_ONE_RANK, pattern]
    running = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE) for rank in (0, 1)]
    numbers_read = [
        json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in running
    ]
    stream = open_stream(pattern, SIZE, 40)
    first = [
        {next(WorkerStream(stream, 3, 0, rank, 2, worker, 2).tars()) for worker in (0, 1)}
        for rank in (0, 1)
    ]
    assert not first[0] & first[1]
    assert len(first[0] | first[1]) == 4
    assert [len(each) for each in numbers_read] == [100, 100]
    assert set(numbers_read[0]) | set(numbers_read[1]) == set(range(40))


def test_threads_end_when_the_batches_are_closed(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # threads of an earlier test may end in the meantime
    numbers(loader(open_stream(write_tars(tmp_path, [9, 9]), SIZE, 18), workers=2), 3)
    assert set(threading.enumerate()) <= before


def test_a_damaged_sample_raises_an_error_that_names_it_unless_allowed(
    tmp_path: Path,
) -> None:
    with TarWriter(str(tmp_path / "0.tar")) as writer:
        writer.write({"__key__": "good", "png": png(cut_outs(SIZE, 1)[0])})
        writer.write({"__key__": "bad", "png": b"no image"})
    stream = open_stream(str(tmp_path / "*.tar"), SIZE, 2)
    with pytest.warns(UserWarning, match="not counted: .*sample bad"):
        assert len(stream.read(range(4))) == 4  # statistics leave it out
    message = r"0.tar: sample bad: unreadable: no image of a known format"
    with pytest.raises(
        UserError, match=f"^{re.escape(str(tmp_path))}/{message}: remove it, or allow damaged"
    ):
        numbers(loader(stream), 1)
    warned: list[str] = []
    loading = loader(stream, messages=warned, max_damaged=10**6)
    assert len(numbers(loading, 2)) == 8
    assert loading.num_damaged > 1
    assert re.search(message, warned[-1])
    with pytest.raises(UserError, match="damaged sample 3 and at most 2 are allowed: repair"):
        numbers(loader(stream, max_damaged=2), 40)


def test_a_sample_of_another_size_is_named(tmp_path: Path) -> None:
    stream = open_stream(write_tars(tmp_path, [3]), 32, 3)
    with pytest.raises(
        UserError,
        match=r"sample 000000000: another size: lab.npy has uint8 \(3, 16, 16\), "
        r"expected .*\(3, 32, 32\)",
    ):
        numbers(loader(stream), 1)


def test_tars_without_samples_raise_an_error(tmp_path: Path) -> None:
    with TarWriter(str(tmp_path / "0.tar")) as writer:
        writer.write({"__key__": "text", "txt": "no image"})
    with pytest.raises(
        UserError, match=r"contain no sample with a lab.npy or jpg/jpeg/png/webp: check"
    ):
        numbers(loader(open_stream(str(tmp_path / "0.tar"), SIZE, 1)), 1)


@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 5, 9])
def test_a_damaged_or_truncated_tar_is_named(tmp_path: Path, blocks: int) -> None:
    """Three samples of two members each, of 512 + 1024 and of 512 + 512 bytes.

    The tar is truncated and damaged at headers and inside members.
    """
    write_tars(tmp_path, [3])
    tar = tmp_path / "000000.tar"
    data = tar.read_bytes()
    message = (
        rf"^{re.escape(str(tar))} is damaged or cut short at byte \d+: restore it, or leave it out"
    )
    tar.write_bytes(data[: 512 * blocks])
    with pytest.raises(UserError, match=message):
        list(iter_samples(str(tar)))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        headers = [info.offset for info in archive]
    damaged = bytearray(data)
    damaged[headers[min(blocks, 5)] + 150] ^= 1
    tar.write_bytes(damaged)
    with pytest.raises(UserError, match=message.replace(r"\d+", str(headers[min(blocks, 5)]))):
        list(iter_samples(str(tar)))


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w:gz") as archive:
        archive.add(__file__, "0.png")
    with pytest.raises(UserError, match=r"0.tar is compressed: decompress it, or leave"):
        list(iter_samples(str(tmp_path / "0.tar")))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_complete_tars_of_other_formats_are_accepted(tmp_path: Path, format: int) -> None:
    names = ["a/" * 60 + "long name.png", "short.png", "größe.png", "link.png"]
    with tarfile.open(tmp_path / "0.tar", "w", format=format) as archive:
        for name in names[:3]:
            info = tarfile.TarInfo(name if format != tarfile.USTAR_FORMAT else name[-60:])
            info.size, info.mtime = 700, 1.5 if format == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(b"x" * 700))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname, link.size = tarfile.SYMTYPE, "short.png", 700
        archive.addfile(link)
    stream = TarStream(str(tmp_path / "0.tar"))
    with pytest.raises(UserError):
        stream.check_complete()  # nothing has been read
    while stream.read(777):
        pass
    stream.check_complete()
    stream.close()
    assert len(list(iter_samples(str(tmp_path / "0.tar")))) == 3


def test_patterns_with_braces_and_wildcards(tmp_path: Path) -> None:
    write_tars(tmp_path, [1, 1, 1])
    names = tuple(f"{tmp_path}/00000{number}.tar" for number in range(3))
    for pattern in (
        f"{tmp_path}/*.tar",
        f"{tmp_path}/00000{{0..2}}.tar",
        f"{tmp_path}/00000{{2,0,1,1}}.tar",
    ):
        assert list_tars(pattern) == names
    with pytest.raises(
        UserError, match=r"^no file .*000003.tar: check the path, or the braces of the pattern$"
    ):
        list_tars(f"{tmp_path}/00000{{0..3}}.tar")
    with pytest.raises(UserError, match=r"names no files: write PATH/"):
        list_tars(f"{tmp_path}/*.tgz")
    with pytest.raises(UserError, match="braces do not match"):
        list_tars(f"{tmp_path}/{{0..3.tar")


def test_tars_from_a_server_equal_local_ones_despite_broken_connections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    write_tars(tmp_path / "served", [30, 30])
    with serving(tmp_path / "served") as server:
        remote = open_stream(f"{server.url}/00000{{0..1}}.tar", SIZE, 60)
        local = open_stream(f"{tmp_path}/served/*.tar", SIZE, 60)
        server.faults["000000.tar"].extend(["cut", "500"])
        assert numbers(loader(remote), 20) == numbers(loader(local), 20)
        assert "try 3 of 6" in capsys.readouterr().err
        with pytest.raises(
            UserError, match=r"^http://\S+/none.tar does not exist: check the address$"
        ):
            numbers(loader(open_stream(f"{server.url}/none.tar", SIZE, 1)), 1)

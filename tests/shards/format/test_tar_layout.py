"""Tests of tar_layout: tars equal webdataset's, and failures leave no files."""

import io
from pathlib import Path

import numpy as np
import pytest

from shards.format.manifest import key_name
from shards.format.tar_layout import TarOfSamples


@pytest.mark.parametrize("samples", [1, 9, 19])
@pytest.mark.parametrize(("size", "dtype"), [(1, "uint8"), (8, "uint8"), (13, "float16")])
def test_tar_equals_webdatasets_byte_for_byte(
    tmp_path: Path, size: int, dtype: str, samples: int
) -> None:
    from webdataset.writer import TarWriter

    random = np.random.default_rng(0)
    lab = {
        int(key): random.integers(0, 9, (3, size, size)).astype(dtype)
        for key in 10 ** random.uniform(0, 9, samples)
    }
    expected = io.BytesIO()
    writer = TarWriter(expected, encoder=False, mtime=0, user="", group="", mode=0o644)
    with TarOfSamples(tmp_path, "deep/000000.tar", size, dtype) as tar:
        for key, stored in lab.items():
            content = io.BytesIO()
            np.save(content, stored)
            writer.write({"__key__": key_name(key), "lab.npy": content.getvalue()})
            tar.add(key, stored.tobytes())
    writer.close()
    assert (tmp_path / "deep" / "000000.tar").read_bytes() == expected.getvalue()
    assert tar.shard
    assert tar.shard.samples == len(lab)


def test_failed_block_leaves_no_files(tmp_path: Path) -> None:
    def fail() -> None:
        with TarOfSamples(tmp_path, "000000.tar", 8, "uint8") as tar:
            tar.add(1, bytes(3 * 8 * 8))
            tar.add(2, b"too short")

    with pytest.raises(AssertionError, match="for 2 samples"):
        fail()
    assert list(tmp_path.iterdir()) == []

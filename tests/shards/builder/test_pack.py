"""Tests of pack: invalid images, grayscale images, errors of the machine."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.errors import UserError, run_command
from shards.inspect.verify import verify
from shards.sources.listing import ImageSource, read_bytes
from tests.support.photographs import encode, make_folder, pack_folder, photograph


def test_images_left_out_are_listed_with_their_reason(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 8)
    (folder / "truncated.jpg").write_bytes(encode(photograph(), "JPEG")[:5000])
    (folder / "text.jpg").write_text("no image")
    (folder / "missing.jpg").symlink_to("nowhere")
    (folder / "tiny.png").write_bytes(encode(photograph()[:15, :200]))
    (folder / "bomb.png").write_bytes(encode(Image.new("1", (2000, 2000))))
    (folder / "grey.png").write_bytes(encode(Image.fromarray(photograph()).convert("L")))
    (folder / "zz\ncopy.png").write_bytes((folder / "class1" / "photo 001.png").read_bytes())
    result = pack_folder(folder, tmp_path / "out", drop_grey=True, max_pixels=1_000_000)
    expected = {"unreadable": 3, "too small": 1, "decompression bomb": 1, "grey": 1, "duplicate": 1}
    assert result.manifest.left_out == expected
    assert (result.num_packed, result.num_sources) == (8, 15)
    listed = dict(
        line.split("\t")[:2]
        for line in (tmp_path / "out" / "left_out.tsv").read_text().splitlines()
    )
    assert listed["tiny.png"] == "too small"
    assert listed["missing.jpg"] == "unreadable"
    assert ("zz\\ncopy.png" in listed) != ("class1/photo 001.png" in listed)
    verify(tmp_path / "out", quiet=True)


@pytest.mark.parametrize("strict", [False, True])
def test_a_png_with_one_flipped_bit_is_left_out(tmp_path: Path, strict: bool) -> None:
    folder = make_folder(tmp_path / "photos", 2)
    for number in range(20):
        data = bytearray(encode(photograph()[:64, :64]))
        data[100 + 200 * number] ^= 1 << number % 8
        (folder / f"damaged {number}.png").write_bytes(data)
    if strict:
        with pytest.raises(UserError, match="20 "):
            pack_folder(folder, tmp_path / "out", strict=True)
        return
    result = pack_folder(folder, tmp_path / "out")
    assert result.manifest.left_out == {"unreadable": 20}


def test_grayscale_images_are_packed_by_default(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 2)
    (folder / "grey.png").write_bytes(encode(Image.fromarray(photograph()).convert("L")))
    assert pack_folder(folder, tmp_path / "out").num_packed == 3


@pytest.mark.parametrize(("tint", "packed"), [(2, 2), (3, 3)])
def test_image_with_a_tint_of_two_levels_counts_as_grayscale(
    tmp_path: Path, tint: int, packed: int
) -> None:
    folder = make_folder(tmp_path / "photos", 2)
    gray = np.asarray(Image.fromarray(photograph()[:64, :64]).convert("L").convert("RGB"))
    tinted = gray.clip(0, 250) + np.array([tint, 0, 1], np.uint8)
    (folder / "tinted.png").write_bytes(encode(tinted))
    assert pack_folder(folder, tmp_path / "out", drop_grey=True).num_packed == packed


@pytest.mark.parametrize(
    "code", ["EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT", "ENOTCONN"]
)
def test_error_of_the_machine_aborts_the_build_and_leaves_no_image_out(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "photos", 4)
    number = getattr(errno, code)

    def fail(source: ImageSource, limit: int) -> bytes:
        if source.name.endswith("001.png"):
            raise OSError(number, os.strerror(number))
        return read_bytes(source, limit)

    monkeypatch.setattr("shards.builder.pack.read_bytes", fail)

    def build(_: object) -> int:
        return pack_folder(folder, tmp_path / "out", shard_size=2).num_packed

    assert run_command("shards", build) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        f"colortrain shards: error: {os.strerror(number)} at {folder}/class1/photo 001.png: "
    )
    assert message.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()
    assert pack_folder(folder, tmp_path / "out", shard_size=2).manifest.left_out == {}

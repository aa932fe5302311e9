"""Whether source images are known to have been square, from real builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from shards.__main__ import main
from shards.builder.records import record_path
from shards.format.manifest import load_manifest
from shards.inspect.aspect import only_squares
from tests.support.small_shard_set import cut_outs


def build(folder: Path, last: tuple[int, int], fit: str = "crop") -> Path:
    """Build a shard set of five 40 px squares and one image of another size."""
    source, out = folder / "source", folder / f"shards-{fit}"
    source.mkdir(parents=True, exist_ok=True)
    for number, rgb in enumerate(cut_outs(40, 6)):
        image = Image.fromarray(rgb).resize((40, 40) if number < 5 else last)
        image.save(source / f"{number}.png")
    status = main(["build", str(source), str(out), "--size", "32", "--fit", fit])
    assert status == int((source / "damaged.png").exists())
    return out


@pytest.mark.parametrize(
    ("last", "square"), [((40, 40), True), ((50, 50), True), ((41, 40), False)]
)
def test_one_image_that_is_not_square_is_found(
    tmp_path: Path, last: tuple[int, int], square: bool
) -> None:
    out = build(tmp_path, last)
    assert only_squares(out) == square
    other = build(tmp_path, last, "squash")
    one, two = (
        {s.sha256 for shards in load_manifest(root).splits.values() for s in shards}
        for root in (out, other)
    )
    assert (one == two) == square  # squares are the same, however they are made square


def test_images_that_were_left_out_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "damaged.png").write_bytes(b"not an image")
    out = build(tmp_path, (40, 40))
    assert sum("unreadable" in path.read_text() for path in (out / "sources").iterdir()) == 1
    assert only_squares(out)


@pytest.mark.parametrize(
    "content", [None, b"", b"{}\n", b"{}\nnot json\n", b"{}\n[1]\n", b"\xff\n{"]
)
def test_a_missing_or_damaged_record_is_not_known_to_be_square(
    tmp_path: Path, content: bytes | None
) -> None:
    out = build(tmp_path, (40, 40))
    for path in (out / "sources").iterdir():
        path.unlink()
    if content is not None:
        record_path(out, 0).write_bytes(content)
    assert not only_squares(out)

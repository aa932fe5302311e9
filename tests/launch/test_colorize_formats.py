"""`colortrain colorize` on every format, mode and orientation that can be decoded.

The result has the size of the upright image and its lightness, to 0.6 units of L.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from skimage.color import rgb2lab

from launch.colorize import main
from shards.sources.decode import decode_image
from shards.sources.image_formats import FORMATS
from tests.support.photographs import encode, photograph
from tests.support.small_run import small_run

# Pillow's format -> suffix, modes that it writes, options, whether Exif turns images
WRITTEN: dict[str, tuple[str, tuple[str, ...], dict[str, Any], bool]] = {
    "JPEG": ("jpg", ("RGB", "L", "CMYK"), {"quality": 95}, True),
    "MPO": ("mpo", ("RGB",), {}, False),
    "PNG": ("png", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), {}, True),
    "WEBP": ("webp", ("RGB", "RGBA"), {"lossless": True}, True),
    "TIFF": ("tif", ("RGB", "RGBA", "L", "P", "1", "CMYK", "LAB", "I;16", "YCbCr"), {}, True),
    "BMP": ("bmp", ("RGB", "L", "P", "1"), {}, False),
    "GIF": ("gif", ("RGB", "L", "P"), {}, False),
    "PPM": ("ppm", ("RGB", "L", "1", "I;16"), {}, False),
    "JPEG2000": ("jp2", ("RGB", "RGBA", "L", "LA"), {}, False),
    "AVIF": ("avif", ("RGB", "RGBA"), {"quality": 95}, True),
    "HEIF": ("heic", ("RGB", "RGBA", "L"), {"quality": 95}, True),
    "JXL": ("jxl", ("RGB", "RGBA"), {"lossless": True}, False),
}


def original(mode: str) -> Image.Image:
    """Return an image without symmetry, with black, white and saturated colours."""
    rgb = photograph("coffee")[100:124, 200:232].copy()
    rgb[:4, :4], rgb[:4, 4:8] = 0, 255
    rgb[4:8, :4], rgb[4:8, 4:8], rgb[8:12, :4] = (255, 0, 0), (0, 0, 255), (255, 255, 0)
    image = Image.fromarray(rgb)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", image.convert("YCbCr").split())
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(np.full((24, 32), 255, np.uint8)))
        image.paste((0, 0, 0, 0), (20, 12, 32, 24))
    return image.convert(mode)


def fixtures() -> Iterator[tuple[str, bytes]]:
    """Yield a file name and the content of every format, mode and orientation."""
    for kind, (suffix, modes, options, turns) in WRITTEN.items():
        if kind not in FORMATS and kind != "MPO":
            continue
        for mode in modes:
            for orientation in range(1, 9) if turns and mode == "RGB" else (1,):
                exif = Image.Exif()
                exif[ExifTags.Base.Orientation] = orientation
                extra = {"exif": exif} if turns else {}
                name = f"{mode.replace(';', '')}-{orientation}.{suffix}"
                yield name, encode(original(mode), kind, **options, **extra)


@pytest.fixture(scope="module")
def colorized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all fixtures and their results, by a network of strong colours."""
    folder = tmp_path_factory.mktemp("formats")
    small_run(folder / "run", settings=("test_dropout=false",))
    (folder / "in").mkdir()
    for name, data in fixtures():
        (folder / "in" / name).write_bytes(data)
    options = ["--run", folder / "run", "--out", folder / "out", folder / "in"]
    assert main([str(option) for option in options]) == 0
    return folder


def result_of(folder: Path, name: str) -> np.ndarray:
    """Return the result; several sources may differ in their suffix alone."""
    both = [folder / "out" / f"{name}.png", (folder / "out" / name).with_suffix(".png")]
    with Image.open(next(path for path in both if path.exists())) as image:
        assert (image.format, image.mode, image.info["srgb"]) == ("PNG", "RGB", 0)
        return np.asarray(image)


def test_every_format_is_among_the_fixtures() -> None:
    assert set(FORMATS) <= set(WRITTEN)
    assert len(list(fixtures())) >= 60


def test_size_and_lightness_are_those_of_the_decoded_source(colorized: Path) -> None:
    saturated = []
    for path in sorted((colorized / "in").iterdir()):
        source = np.asarray(decode_image(path.read_bytes()))
        result = result_of(colorized, path.name)
        assert result.shape == source.shape, path.name
        before, after = rgb2lab(source), rgb2lab(result)
        assert np.abs(after - before)[..., 0].max() <= 0.6, path.name
        if not path.name.startswith("1-"):  # black and white have no colours
            saturated.append(np.hypot(after[..., 1], after[..., 2]).max())
    assert min(saturated) > 15, "the network's colours are strong in every image"


@pytest.mark.parametrize("kind", [kind for kind, written in WRITTEN.items() if written[3]])
def test_all_orientations_are_upright(colorized: Path, kind: str) -> None:
    """Pillow's own `exif_transpose` is the oracle, also for the size."""
    paths = list((colorized / "in").glob(f"RGB-*.{WRITTEN[kind][0]}"))
    assert len(paths) == (8 if kind in FORMATS else 0)
    for path in paths:
        with Image.open(path) as image:
            upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        result = result_of(colorized, path.name)
        assert result.shape == upright.shape
        difference = np.abs(rgb2lab(result) - rgb2lab(upright))[..., 0]
        assert np.median(difference) <= 0.6, path.name
        if int(path.stem[-1]) > 1:
            for turned in (upright[::-1], upright[:, ::-1], upright[::-1, ::-1]):
                other = np.abs(rgb2lab(result) - rgb2lab(turned))[..., 0]
                assert np.median(other) > 3, "the image has no symmetry"


def test_transparent_parts_are_white(colorized: Path) -> None:
    for suffix in ("png", "webp", "tif"):
        assert (result_of(colorized, f"RGBA-1.{suffix}")[14:, 22:] == 255).all()


def test_fixtures_have_the_mode_of_their_name() -> None:
    modes = {"1": {"1"}, "P": {"P"}, "RGBA": {"RGBA"}, "LAB": {"LAB"}, "CMYK": {"CMYK"}}
    for name, data in fixtures():
        mode, suffix = name.partition("-")[0], name.rpartition(".")[2]
        if suffix in ("png", "tif") and mode in modes:
            with Image.open(io.BytesIO(data)) as image:
                assert image.mode in modes[mode]

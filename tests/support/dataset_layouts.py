"""Small datasets with the files of public ones, as their archives contain them."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.photographs import encode, random_crops


def photographs(count: int) -> list[bytes]:
    """Return `count` different JPEG photographs of 48 px."""
    return [encode(crop, "JPEG") for crop in random_crops(count)]


def write_photographs(folder: Path, names: Iterable[str]) -> None:
    """Write different photographs of 48 px under these names, as PNG or JPEG."""
    names = list(names)
    for name, crop in zip(names, random_crops(len(names)), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(crop, "PNG" if name.endswith(".png") else "JPEG"))


def write_texts(folder: Path, *names: str) -> None:
    """Write short files that are no images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")


def make_coco(root: Path) -> None:
    """Write `coco` with 24 training and 8 validation images."""
    names = [f"train2014/COCO_train2014_{number:012d}.jpg" for number in range(9, 33)]
    names += [f"val2014/COCO_val2014_{number:012d}.jpg" for number in range(42, 50)]
    write_photographs(root / "coco", names)
    write_texts(root / "coco", "annotations/instances_val2014.json")


def make_places(root: Path) -> None:
    """Write three variants of Places365 with 24 training and 6 validation images.

    `places365` also has an image that the list of training images does not name.
    """
    train = [f"a/airfield/{number:08d}.jpg" for number in range(1, 13)]
    train += [f"b/bow_window/indoor/{number:08d}.jpg" for number in range(1, 13)]
    val = [f"Places365_val_{number:08d}.jpg" for number in range(1, 7)]
    for folder, size in (("places365", "256"), ("places365-large", "large")):
        names = [f"data_{size}/{name}" for name in train] + [f"val_{size}/{name}" for name in val]
        write_photographs(root / folder, [*names, f"data_{size}/a/airfield/00005001.jpg"])
    (root / "places365-large/data_large/a/airfield/00005001.jpg").unlink()
    lines = "".join(f"/{name} {number // 12}\n" for number, name in enumerate(train))
    (root / "places365" / "places365_train_standard.txt").write_text(lines)
    lines = "".join(f"{name} 165\n" for name in val)
    (root / "places365" / "places365_val.txt").write_text(lines)
    easy = [f"train/{name[2:].replace('/indoor', '-indoor')}" for name in train]
    easy += [f"val/airfield/Places365_val_{number:08d}.jpg" for number in range(435, 441)]
    write_photographs(root / "places365_standard", easy)
    write_texts(root / "places365_standard", "train.txt")


def make_imagenet(root: Path) -> None:
    """Write `imagenet` and Kaggle's copy, with 24 + 8 images, and two tars of 8."""
    classes = ("n01440764", "n01443537")
    names = [
        f"train/{each}/{each}_{10026 + number}.JPEG" for each in classes for number in range(12)
    ]
    names += [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 5)]
    names += [f"val/n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(293, 297)]
    write_photographs(root / "imagenet", names)
    kaggle = root / "ILSVRC" / "Data" / "CLS-LOC"
    names = [name.replace("val/n01440764/", "val/") for name in names]
    write_photographs(kaggle, [*names, "test/ILSVRC2012_test_00000001.JPEG"])
    (root / "imagenet-tars").mkdir()
    for each in classes:
        with tarfile.open(root / "imagenet-tars" / f"{each}.tar", "w") as archive:
            for path in sorted((root / "imagenet" / "train" / each).iterdir())[:8]:
                archive.add(path, path.name)


def cifar_pixels(count: int) -> np.ndarray:
    """Return the planes R, G, B of photographs of 32 px: (count, 3072) uint8."""
    return np.stack([crop.transpose(2, 0, 1).ravel() for crop in random_crops(count, 32)])


def make_cifar(root: Path) -> None:
    """Write CIFAR-10 and CIFAR-100, 24 training and 6 test images, in both layouts."""
    pixels = cifar_pixels(30)
    parts = {"train": pixels[:24], "test": pixels[24:]}
    make_cifar100_binary(root / "cifar-100-binary", parts)
    make_cifar100_python(root / "cifar-100-python", parts)
    (root / "cifar-10-batches-bin").mkdir()
    (root / "cifar-10-batches-py").mkdir()
    for name, rows in (("data_batch_1", parts["train"]), ("test_batch", parts["test"])):
        np.insert(rows, 0, 3, 1).tofile(root / "cifar-10-batches-bin" / f"{name}.bin")
        batch = {b"data": rows, b"labels": [3] * len(rows)}
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch, 2))


def make_cifar100_binary(folder: Path, parts: dict[str, np.ndarray]) -> Path:
    """Write `parts`, pixels by split, each image after a coarse and a fine label."""
    folder.mkdir(parents=True)
    for name, rows in parts.items():
        np.insert(rows, (0, 0), (255, 17), 1).tofile(folder / f"{name}.bin")
    write_texts(folder, "fine_label_names.txt", "coarse_label_names.txt")
    return folder


def make_cifar100_python(folder: Path, parts: dict[str, np.ndarray]) -> Path:
    """Write `parts`, pixels by split, as pickles."""
    folder.mkdir(parents=True)
    for name, rows in parts.items():
        batch = {
            b"filenames": [b"a.png"] * len(rows),
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": [17] * len(rows),
            b"coarse_labels": [3] * len(rows),
            b"data": rows,
        }
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"apple"]}, 2))
    return folder


def make_tiny_imagenet(root: Path) -> None:
    """Write `tiny-imagenet-200` with 24 training, 6 validation and 4 test images."""
    classes = ("n01443537", "n01629819")
    names = [
        f"train/{each}/images/{each}_{number}.JPEG" for each in classes for number in range(12)
    ]
    names += [f"val/images/val_{number}.JPEG" for number in range(6)]
    names += [f"test/images/test_{number}.JPEG" for number in range(4)]
    folder = root / "tiny-imagenet-200"
    write_photographs(folder, names)
    write_texts(folder, *(f"train/{each}/{each}_boxes.txt" for each in classes))
    write_texts(folder, "val/val_annotations.txt", "wnids.txt", "words.txt")


def make_mirflickr(root: Path) -> None:
    """Write `mirflickr` with 16 images, and `image-colorization` with 6 + 6 + 4."""
    write_photographs(root / "mirflickr", [f"im{number}.jpg" for number in (*range(1, 16), 25000)])
    write_texts(root / "mirflickr", "meta/tags/tags1.txt", "meta/license/license1.txt")
    write_texts(root / "mirflickr", "doc/common_tags.txt")
    make_lab_arrays(root / "image-colorization", (6, 6, 4))


def opencv_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB to 8-bit CIELAB, both (N, H, W, 3) uint8, as OpenCV's manual says.

    https://docs.opencv.org/4.x/de/d25/imgproc_color_conversions.html
    """
    v = rgb / 255
    linear = np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)
    matrix = [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
    x, y, z = np.moveaxis(linear @ np.array(matrix).T / (0.950456, 1, 1.088754), -1, 0)
    f = [np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116) for t in (x, y, z)]
    lightness = np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)
    lab = (lightness * 255 / 100, 500 * (f[0] - f[1]) + 128, 200 * (f[1] - f[2]) + 128)
    return np.rint(np.stack(lab, -1)).clip(0, 255).astype(np.uint8)


def make_lab_arrays(folder: Path, counts: tuple[int, ...] = (4, 2)) -> np.ndarray:
    """Write arrays as the archive of Kaggle has them; return them: (N, 224, 224, 3)."""
    lab = opencv_lab(np.stack(list(random_crops(sum(counts), 224))))
    (folder / "l").mkdir(parents=True)
    (folder / "ab" / "ab").mkdir(parents=True)
    np.save(folder / "l" / "gray_scale.npy", lab[..., 0])
    for number, end in enumerate(np.cumsum(counts)):
        ab = lab[end - counts[number] : end, ..., 1:]
        np.save(folder / "ab" / "ab" / f"ab{number + 1}.npy", ab)
    return lab


def image_column(images: Iterable[bytes | None]) -> Any:
    """Return a column as `datasets` writes it: structs of `bytes` and `path`."""
    import pyarrow

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.array([{"bytes": each, "path": "photo.jpg"} for each in images], kind)


def write_parquet(path: Path, rows_per_group: int = 3, **columns: Any) -> Path:
    """Write a table of these columns."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)
    return path


def make_hugging_face(root: Path) -> None:
    """Write `tiny-imagenet-hub` and `imagenet-hub`."""
    images = photographs(30)
    parts = {
        "train-00000-of-00001-1359597a978bc4fa": images[:24],
        "valid-00000-of-00001-70d52db3c749a935": images[24:],
    }
    write_hub(root / "tiny-imagenet-hub", parts)
    make_imagenet_hub(root / "imagenet-hub")


def make_imagenet_hub(folder: Path) -> list[bytes]:
    """Write 4 test, 24 training and 8 validation images; return them in this order."""
    images = photographs(36)
    parts = {
        "test-00000-of-00028": images[:4],
        "train-00000-of-00294": images[4:16],
        "train-00001-of-00294": images[16:28],
        "validation-00000-of-00014": images[28:],
    }
    write_hub(folder, parts)
    return images


def write_hub(folder: Path, parts: dict[str, list[bytes]]) -> None:
    """Write parquet files as `push_to_hub` does; `parts` has their images by name."""
    for name, part in parts.items():
        path = folder / "data" / f"{name}.parquet"
        write_parquet(path, 5, image=image_column(part), label=list(range(len(part))))
    write_texts(folder, "README.md")


def make_img2dataset(root: Path) -> None:
    """Write `laion`: two tars of 8 images with captions, and tables of metadata."""
    images = iter(photographs(16))
    for number in range(2):
        write_texts(root / "laion", f"{number:05d}_stats.json", f"{number:05d}.parquet")
        folder = root / "laion-samples" / f"{number}"
        for sample in range(8):
            key = f"{number:05d}{sample:04d}"
            write_texts(folder, f"{key}.json", f"{key}.txt")
            (folder / f"{key}.jpg").write_bytes(next(images))
        with tarfile.open(root / "laion" / f"{number:05d}.tar", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)


def make_photographs(root: Path) -> None:
    """Write `photos` with 40 images in subfolders."""
    names = [f"2019/IMG_{number:04d}.jpg" for number in range(1, 39)]
    write_photographs(root / "photos", [*names, "2020/summer/IMG_0002.png", "2020/IMG_0003.jpg"])

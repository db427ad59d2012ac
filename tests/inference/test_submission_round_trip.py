"""Data sets with a test server: their classes, written for the server, are read back as their own masks."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel.data import DataSource, SegmentationDataset, open_data
from perpixel.inference import Segmenter
from perpixel.inference.submissions import SUBMISSIONS, MaskServer, validate_submission, write_submission

SIZE = (6, 10)
COUNT = 2


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


# Each writes the official layout with masks of one stored id in train and val, the images given as test images, and
# returns where the mask of a validation image lies.


def voc(root: Path, tests: list[np.ndarray]) -> tuple[list[Path], Path]:
    names = [f"2008_00000{number}" for number in range(len(tests))]
    paths = [root / f"JPEGImages/{name}.jpg" for name in names]
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, inside in (("train", ["2007_000032"]), ("val", ["2007_000033"]), ("test", names)):
        (lists / f"{split}.txt").write_text("\n".join(inside))
    for name in ("2007_000032", "2007_000033"):
        picture(root / f"JPEGImages/{name}.jpg", np.zeros((*SIZE, 3)))
        picture(root / f"SegmentationClass/{name}.png", np.zeros(SIZE))
    return paths, root / "SegmentationClass/2007_000033.png"


def cityscapes(root: Path, tests: list[np.ndarray]) -> tuple[list[Path], Path]:
    for split, city in (("train", "aachen"), ("val", "lindau")):
        stem = f"{split}/{city}/{city}_000000_000019"
        picture(root / f"leftImg8bit/{stem}_leftImg8bit.png", np.zeros((*SIZE, 3)))
        picture(root / f"gtFine/{stem}_gtFine_labelIds.png", np.full(SIZE, 7))
    folder = root / "leftImg8bit/test/berlin"
    paths = [folder / f"berlin_00000{number}_000019_leftImg8bit.png" for number in range(len(tests))]
    return paths, root / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png"


def ade20k(root: Path, tests: list[np.ndarray]) -> tuple[list[Path], Path]:
    for split, part in (("training", "train"), ("validation", "val")):
        picture(root / f"images/{split}/ADE_{part}_00000001.jpg", np.zeros((*SIZE, 3)))
        picture(root / f"annotations/{split}/ADE_{part}_00000001.png", np.ones(SIZE))
    paths = [root / f"release_test/testing/ADE_test_0000000{number}.jpg" for number in range(len(tests))]
    return paths, root / "annotations/validation/ADE_val_00000001.png"


def bdd100k(root: Path, tests: list[np.ndarray]) -> tuple[list[Path], Path]:
    for split in ("train", "val"):
        picture(root / f"images/10k/{split}/0004a4c0-d4dff0ad.jpg", np.zeros((*SIZE, 3)))
        picture(root / f"labels/sem_seg/masks/{split}/0004a4c0-d4dff0ad.png", np.zeros(SIZE))
    paths = [root / f"images/10k/test/cabc30fc-e772657{number}.jpg" for number in range(len(tests))]
    return paths, root / "labels/sem_seg/masks/val/0004a4c0-d4dff0ad.png"


def members(path: Path) -> dict[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {PurePosixPath(name).name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as tar:
        return {PurePosixPath(m.name).name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def first_target(source: DataSource, split: str) -> np.ndarray:
    assert source.labels is not None
    pixels = SegmentationDataset(source.splits[split], source.labels).read_target(0).pixels
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("build", [voc, cityscapes, ade20k, bdd100k])
def test_submission_of_a_data_sets_own_classes_reads_back_as_its_masks(
    build: Any, tmp_path: Path, brightness_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = build.__name__
    server = SUBMISSIONS[name]
    assert isinstance(server, MaskServer)
    size = None if server.size is None else SIZE
    monkeypatch.setitem(SUBMISSIONS, name, replace(server, counts=(COUNT,), size=size))
    random = np.random.default_rng(0)
    classes = [random.integers(0, 12, SIZE) for _ in range(COUNT)]
    images = [np.repeat(truth[..., None] * 20, 3, axis=2) for truth in classes]
    paths, mask = build(tmp_path / "data", images)
    for path, image in zip(paths, images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path, "PNG")  # as JPEG the brightness would not be exact
    source = open_data(f"{name}:{tmp_path / 'data'}")
    assert source.labels is not None
    segmenter = Segmenter(brightness_network(source.labels.num_classes), source.labels)
    tests = [item.image for item in source.splits["test"]]
    assert tests == paths
    archive = write_submission(segmenter, tests, tmp_path / "out", name).path
    assert validate_submission(archive, name, [item.name for item in source.splits["test"]]).count == COUNT
    for truth, (_, content) in zip(classes, sorted(members(archive).items()), strict=True):
        Image.open(BytesIO(content)).load()
        mask.write_bytes(content)
        np.testing.assert_array_equal(first_target(open_data(f"{name}:{tmp_path / 'data'}"), "val"), truth)


def stack(path: Path, pages: list[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(page.astype(np.uint8)) for page in pages]
    first.save(path, save_all=True, append_images=others)
    return path


def test_submission_of_isbi_stack_reads_back_as_its_labels(
    tmp_path: Path, brightness_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SUBMISSIONS["isbi"]
    monkeypatch.setitem(SUBMISSIONS, "isbi", replace(server, counts=(COUNT,), size=SIZE))
    random = np.random.default_rng(0)
    classes = [random.integers(0, 2, SIZE) for _ in range(COUNT)]
    root = tmp_path / "data"
    for name in ("train-volume.tif", "train-labels.tif"):
        stack(root / name, [np.zeros(SIZE)] * COUNT)
    volume = stack(root / "test-volume.tif", [truth * 20 for truth in classes])
    source = open_data(f"isbi2012:{root}")
    assert source.labels is not None
    assert [item.mask for item in source.splits["test"]] == [None] * COUNT
    segmenter = Segmenter(brightness_network(2), source.labels)
    written = write_submission(segmenter, [volume], tmp_path / "out", "isbi").path
    assert validate_submission(written, "isbi").count == COUNT
    with Image.open(written) as pages:
        inside = []
        for number in range(COUNT):
            pages.seek(number)
            inside.append(np.array(pages) > 0.5)
    stack(root / "train-labels.tif", [np.where(page, 255, 0) for page in inside])
    dataset = SegmentationDataset(open_data(f"isbi2012:{root}").splits["train"], source.labels)
    for index, truth in enumerate(classes):
        np.testing.assert_array_equal(dataset.read_target(index).pixels, truth)

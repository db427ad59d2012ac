"""Counts of a data set against hand-worked ones, and against plain counting of random data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.source import Item
from perpixel.data.statistics import RegionStatistics, describe_data
from perpixel.data.summary import summarise
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

LABELS = LabelSpace.numbered(3)


def make_item(folder: Path, name: str, image: object, mask: object) -> Item:
    Image.fromarray(np.array(image, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(np.array(mask, np.uint8)).save(folder / f"{name}_mask.png")
    return Item(name=name, image=folder / f"{name}.png", mask=folder / f"{name}_mask.png")


def test_describe_data_counts_company_regions_and_colors_of_two_images(tmp_path: Path) -> None:
    items = [
        make_item(tmp_path, "a", [[0, 255], [255, 0]], [[0, 1], [1, 255]]),
        make_item(tmp_path, "b", [[255, 255, 255]], [[1, 255, 1]]),
    ]
    statistics = describe_data(SegmentationDataset(items, LABELS, in_channels=1))
    assert statistics.co_occurrence.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert statistics.regions[1] == RegionStatistics(regions=3, smallest=1, tenth=1, median=1, ninetieth=2, largest=2)
    assert statistics.regions[2].regions == 0
    assert statistics.regions[2].median is None
    assert statistics.colors.mean == pytest.approx((5 / 7,))
    assert statistics.colors.std == pytest.approx((np.std([0, 1, 1, 0, 1, 1, 1]),))
    values = statistics.to_dict(LABELS.names)
    assert values["classes"][1]["share"] == pytest.approx(4 / 5)
    assert values["ignored_pixels"] == 2
    assert [row["images"] for row in values["classes"]] == [1, 2, 0]


def test_describe_data_of_random_images_equals_plain_counting(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (9, 7, 3)) for _ in range(4)]
    masks = [random.integers(0, 3, (9, 7)) for _ in range(4)]
    items = [
        make_item(tmp_path, f"{k}", image, mask) for k, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    dataset = SegmentationDataset(items, LABELS)
    seen: list[int] = []
    statistics = describe_data(dataset, on_image=seen.append)
    assert seen == [1, 2, 3, 4]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    assert statistics.colors.mean == pytest.approx(pixels.mean(0))
    assert statistics.colors.std == pytest.approx(pixels.std(0))
    for k in range(3):
        sizes = []
        for mask in masks:
            regions, count = ndimage.label(mask == k, np.ones((3, 3)))
            sizes += [int((regions == r + 1).sum()) for r in range(count)]
        sizes.sort()
        found = statistics.regions[k]
        assert (found.regions, found.smallest, found.largest) == (len(sizes), sizes[0], sizes[-1])
        assert found.median == sizes[-(-len(sizes) // 2) - 1]
    assert statistics.summary.pixels_per_class == summarise(dataset).pixels_per_class


def test_describe_data_of_some_color_images_looks_at_so_many(tmp_path: Path) -> None:
    items = [make_item(tmp_path, f"{k}", np.full((2, 2), 51 * k), [[0, 1], [2, 0]]) for k in range(5)]
    statistics = describe_data(SegmentationDataset(items, LABELS, in_channels=1), color_images=2)
    assert statistics.colors.images == 2
    assert statistics.colors.mean == pytest.approx(((0 + 4 * 51) / 2 / 255,))


def test_describe_data_of_unlabelled_images_counts_none(tmp_path: Path) -> None:
    item = make_item(tmp_path, "a", [[0, 255]], [[0, 1]])
    statistics = describe_data(SegmentationDataset([Item(name="a", image=item.image, mask=None)], LABELS))
    assert statistics.summary.unlabelled == 1
    assert not statistics.co_occurrence.any()


def test_describe_data_damaged_image_is_named(tmp_path: Path) -> None:
    item = make_item(tmp_path, "a", [[0, 255]], [[0, 1]])
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:45])
    with pytest.raises(DataError, match=r"a\.png"):
        describe_data(SegmentationDataset([item], LABELS))

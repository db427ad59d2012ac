"""Samples from files: what comes out, and every pair of files that is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.source import Item, open_data
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))
RGB = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
IDS = np.array([[0, 1, 2, 255, 0]] * 3, np.uint8)
LABELS = LabelSpace.numbered(3)


def make_item(
    folder: Path, image: np.ndarray = RGB, mask: np.ndarray | None = IDS, *, name: str = "a", exif: int | None = None
) -> Item:
    extra = {}
    if exif is not None:
        extra["exif"] = Image.Exif()
        extra["exif"][0x0112] = exif
    image_path, mask_path = folder / f"{name}.png", folder / f"{name}_mask.png"
    Image.fromarray(image).save(image_path, **extra)
    if mask is None:
        return Item(name=name, image=image_path, mask=None)
    Image.fromarray(mask).save(mask_path)
    return Item(name=name, image=image_path, mask=mask_path)


def test_getitem_gives_raw_image_and_train_ids(tmp_path: Path) -> None:
    space = LabelSpace(names=("x", "y"), colors=((1, 1, 1), (2, 2, 2)), stored_to_train={0: 1, 1: 0, 2: 255, 255: 255})
    dataset = SegmentationDataset([make_item(tmp_path)], space)
    sample = dataset[0]
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), RGB)
    assert sample.target is not None
    assert (sample.image.dtype, sample.target.dtype) == (torch.uint8, torch.uint8)
    np.testing.assert_array_equal(sample.target.numpy(), [[1, 0, 255, 255, 1]] * 3)
    assert (sample.name, sample.size, len(dataset)) == ("a", (3, 5), 1)
    with pytest.raises(IndexError, match="index 1 is outside a data set of 1 images"):
        dataset[1]
    assert [s.name for s in dataset] == ["a"]


def test_getitem_without_mask_has_no_target(tmp_path: Path) -> None:
    assert SegmentationDataset([make_item(tmp_path, mask=None)], LABELS)[-1].target is None


def test_getitem_channels_are_adapted(tmp_path: Path) -> None:
    grey = np.ascontiguousarray(RGB[..., 0])
    item = make_item(tmp_path, grey)
    assert SegmentationDataset([item], LABELS)[0].image.shape == (3, 3, 5)
    assert SegmentationDataset([item], LABELS, in_channels=1)[0].image.shape == (1, 3, 5)
    with pytest.raises(DataError, match=r"a\.png: the image has 1 channels and the network takes 5"):
        SegmentationDataset([item], LABELS, in_channels=5)[0]
    deep = make_item(tmp_path, grey.astype(np.uint16) * 257, name="deep")
    image = SegmentationDataset([deep], LABELS)[0].image
    assert image.dtype == torch.int32
    np.testing.assert_array_equal(image[1].numpy(), grey.astype(np.int32) * 257)


def test_getitem_one_pixel_works(tmp_path: Path) -> None:
    sample = SegmentationDataset([make_item(tmp_path, RGB[:1, :1].copy(), IDS[:1, :1].copy())], LABELS)[0]
    assert sample.size == (1, 1)
    assert sample.target is not None
    assert sample.target.tolist() == [[0]]


def test_getitem_sixteen_bit_mask_is_encoded(tmp_path: Path) -> None:
    space = LabelSpace(names=("x",), colors=((1, 1, 1),), stored_to_train={1000: 0, 7: 255})
    sample = SegmentationDataset([make_item(tmp_path, mask=np.full((3, 5), 1000, np.uint16))], space)[0]
    assert sample.target is not None
    assert sample.target.unique().tolist() == [0]


def test_getitem_sizes_that_differ_raise_naming_both(tmp_path: Path) -> None:
    dataset = SegmentationDataset([make_item(tmp_path, mask=IDS[:, :4].copy())], LABELS)
    message = r"a_mask\.png: the mask is 3 x 4 \(height x width\) and its image .*a\.png is 3 x 5; .*nearest"
    with pytest.raises(DataError, match=message):
        dataset[0]
    with pytest.raises(DataError, match=message):
        dataset.read_target(0)


def test_getitem_unknown_id_raises_naming_file_id_and_place(tmp_path: Path) -> None:
    mask = IDS.copy()
    mask[2, 1] = 9
    with pytest.raises(DataError, match=r"a_mask\.png: ids outside.*: 9 on 1 pixels \(first at row 2, column 1\)"):
        SegmentationDataset([make_item(tmp_path, mask=mask)], LABELS)[0]


def test_getitem_missing_or_damaged_files_raise(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    dataset = SegmentationDataset([item], LABELS)
    assert item.mask is not None
    item.mask.write_bytes(item.mask.read_bytes()[:50])
    with pytest.raises(DataError, match=r"a_mask\.png: cannot be read as an image, damaged or cut short"):
        dataset[0]
    item.mask.unlink()
    with pytest.raises(DataError, match=r"a_mask\.png: there is no such file"):
        dataset[0]


def test_getitem_more_pixels_than_allowed_raise(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    with pytest.raises(DataError, match=r"a\.png: the header says 3 x 5 = 15 pixels, more than the limit of 14"):
        SegmentationDataset([item], LABELS, max_pixels=14)[0]
    assert SegmentationDataset([item], LABELS, max_pixels=15)[0].size == (3, 5)


def test_getitem_colour_masks_need_their_encoding(tmp_path: Path) -> None:
    colors = np.array([[(1, 1, 1), (9, 9, 8), (0, 0, 0), (1, 1, 1), (9, 9, 8)]] * 3, np.uint8)
    space = LabelSpace(names=("x", "y"), colors=((1, 1, 1), (9, 9, 8)), stored_to_train={0: 0})
    item = make_item(tmp_path, mask=colors)
    with pytest.raises(DataError, match=r"a_mask\.png: the mask holds colours.*data\.mask_encoding=colors"):
        SegmentationDataset([item], space)[0]
    sample = SegmentationDataset([item], space, mask_encoding="colors")[0]
    assert sample.target is not None
    np.testing.assert_array_equal(sample.target.numpy(), [[0, 1, 255, 0, 1]] * 3)
    with pytest.raises(DataError, match=r"a_mask\.png: 1 colours belong to no class.*\(9, 9, 8\) on 6 pixels"):
        SegmentationDataset(
            [item], LabelSpace.from_dict({**space.to_dict(), "colors": [(1, 1, 1), (5, 5, 5)]}), mask_encoding="colors"
        )[0]


@pytest.mark.parametrize("orientation", [6, 3])
def test_getitem_mask_follows_the_exif_turn_of_its_image(tmp_path: Path, orientation: int) -> None:
    mask = np.arange(15, dtype=np.uint8).reshape(3, 5)
    image = np.repeat(mask[..., None], 3, axis=2)
    dataset = SegmentationDataset([make_item(tmp_path, image, mask, exif=orientation)], LabelSpace.numbered(15))
    sample = dataset[0]
    assert sample.target is not None
    assert sample.size == ((5, 3) if orientation == 6 else (3, 5))
    assert torch.equal(sample.image[0], sample.target)
    assert sample.target[0, 0] == (10 if orientation == 6 else 14)
    target = dataset.read_target(0)
    assert (target.image_turned, target.mask_turned, target.size) == (True, True, sample.size)
    np.testing.assert_array_equal(target.pixels, sample.target.numpy())


def test_getitem_mask_of_the_upright_size_is_not_turned(tmp_path: Path) -> None:
    mask = np.arange(15, dtype=np.uint8).reshape(5, 3)
    dataset = SegmentationDataset([make_item(tmp_path, RGB, mask, exif=6)], LabelSpace.numbered(15))
    target = dataset.read_target(0)
    assert (target.image_turned, target.mask_turned) == (True, False)
    np.testing.assert_array_equal(target.pixels, mask)


def test_cache_keeps_samples_until_it_is_full(tmp_path: Path) -> None:
    items = [make_item(tmp_path, name=name) for name in "abc"]
    one_mb = (3 * 3 * 5 + 3 * 5) / 2**20
    dataset = SegmentationDataset(items, LABELS, cache_mb=2 * one_mb)
    kept = [dataset[0], dataset[1], dataset[2]]
    for item in items:
        item.image.unlink()
    assert dataset[0] is kept[0]
    assert dataset[-2] is kept[1]
    with pytest.raises(DataError, match=r"c\.png: there is no such file"):
        dataset[2]
    assert SegmentationDataset(items, LABELS).cache_mb == 0


def test_pickle_leaves_the_cache_behind(tmp_path: Path) -> None:
    dataset = SegmentationDataset([make_item(tmp_path)], LABELS, cache_mb=1)
    sample = dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[0] is not sample
    assert torch.equal(copy[0].image, sample.image)
    assert copy[0] is copy[0]
    dataset.items[0].image.unlink()
    with pytest.raises(DataError, match="there is no such file"):
        pickle.loads(pickle.dumps(dataset))[0]


def test_init_bad_arguments_raise(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    with pytest.raises(DataError, match="the data set has no images"):
        SegmentationDataset([], LABELS)
    with pytest.raises(DataError, match="image names must differ within a split, repeated: a"):
        SegmentationDataset([item, item], LABELS)
    with pytest.raises(InvalidValue, match="in_channels must be at least 1, got 0"):
        SegmentationDataset([item], LABELS, in_channels=0)
    with pytest.raises(InvalidValue, match=r"mask_encoding is one of \('ids', 'colors'\), got 'rgb'"):
        SegmentationDataset([item], LABELS, mask_encoding="rgb")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="cache_mb must not be negative, got -1"):
        SegmentationDataset([item], LABELS, cache_mb=-1)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no camvid/ under PERPIXEL_DATA")
def test_getitem_real_camvid_is_in_train_ids() -> None:
    source = open_data(DATA / "camvid")
    assert source.labels is not None
    sample = SegmentationDataset(source.splits["train"], source.labels)[0]
    assert sample.image.shape == (3, 360, 480)
    assert sample.target is not None
    assert set(sample.target.unique().tolist()) <= {*range(11), 255}


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "isbi2012").is_dir(), reason="no isbi2012/ under PERPIXEL_DATA")
def test_getitem_real_isbi_is_grey_and_binary() -> None:
    items = open_data(DATA / "isbi2012").splits["all"]
    sample = SegmentationDataset(items, LabelSpace.load("isbi2012"), in_channels=1)[3]
    assert sample.image.shape == (1, 512, 512)
    assert sample.target is not None
    assert sample.target.unique().tolist() == [0, 1]

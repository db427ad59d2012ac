"""Counts of a split, whether it can be trained on, and class weights against hand-made and published figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from perpixel.data.class_weighting import class_weights
from perpixel.data.dataset import SegmentationDataset
from perpixel.data.source import Item, open_data
from perpixel.data.summary import SplitSummary, check_trainable, fingerprint, summarise
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_camvid = pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no camvid/ under PERPIXEL_DATA")
LABELS = LabelSpace.numbered(3)


def make_item(folder: Path, name: str, mask: object, *, exif: int | None = None) -> Item:
    ids = np.array(mask, np.uint8)
    extra = {}
    if exif is not None:
        extra["exif"] = Image.Exif()
        extra["exif"][0x0112] = exif
    Image.fromarray(np.zeros_like(ids)).save(folder / f"{name}.png", **extra)
    Image.fromarray(ids).save(folder / f"{name}_mask.png")
    return Item(name=name, image=folder / f"{name}.png", mask=folder / f"{name}_mask.png")


def counts(pixels: list[int], images_with: list[int] | None = None, **changes: object) -> SplitSummary:
    values: dict[str, object] = {
        "images": 4,
        "unlabelled": 0,
        "pixels_per_class": tuple(pixels),
        "images_per_class": tuple(int(p > 0) for p in pixels),
        "pixels_of_images_with_class": tuple(images_with or pixels),
        "ignored_pixels": 0,
        "sizes": {(2, 2): 4},
        "all_ignored": (),
        "images_turned": (),
        "masks_turned": (),
        "class_presence": np.ones((4, len(pixels)), dtype=bool),
    }
    return SplitSummary(**(values | changes))  # type: ignore[arg-type]


def test_summarise_counts_what_the_masks_hold(tmp_path: Path) -> None:
    items = [
        make_item(tmp_path, "a", [[0, 0, 1]]),
        make_item(tmp_path, "b", [[1, 255], [2, 2]]),
        make_item(tmp_path, "c", [[255, 255]]),
        make_item(tmp_path, "d", [[0, 1, 1]], exif=6),
    ]
    items.append(Item(name="e", image=items[0].image, mask=None))
    summary = summarise(SegmentationDataset(items, LABELS))
    assert (summary.images, summary.unlabelled, summary.ignored_pixels) == (5, 1, 3)
    assert summary.pixels_per_class == (3, 4, 2)
    assert summary.images_per_class == (2, 3, 1)
    assert summary.pixels_of_images_with_class == (6, 10, 4)
    assert summary.sizes == {(1, 3): 2, (2, 2): 1, (1, 2): 1, (3, 1): 1}
    assert next(iter(summary.sizes)) == (1, 3)
    assert (summary.all_ignored, summary.images_turned, summary.masks_turned) == (("c",), ("d",), ("d",))
    expected = [[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(summary.class_presence, np.array(expected, dtype=bool))
    plain = json.loads(json.dumps(summary.to_dict()))
    assert plain["sizes"][0] == [1, 3, 2]
    assert plain["pixels_per_class"] == [3, 4, 2]


def test_summarise_first_bad_file_in_order_is_named(tmp_path: Path) -> None:
    items = [make_item(tmp_path, name, [[0, i * 3]]) for i, name in enumerate("abc")]
    with pytest.raises(DataError, match=r"b_mask\.png: ids outside"):
        summarise(SegmentationDataset(items, LABELS))


@settings(deadline=None, max_examples=15)
@given(masks=st.lists(arrays(np.uint8, (2, 3), elements=st.sampled_from([0, 1, 2, 255])), min_size=1, max_size=4))
def test_summarise_every_pixel_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, masks: list[np.ndarray]
) -> None:
    folder = tmp_path_factory.mktemp("masks")
    items = [make_item(folder, f"n{i}", mask) for i, mask in enumerate(masks)]
    summary = summarise(SegmentationDataset(items, LABELS))
    assert sum(summary.pixels_per_class) + summary.ignored_pixels == 6 * len(masks)
    assert list(summary.pixels_per_class) == [int(sum((m == k).sum() for m in masks)) for k in range(3)]
    assert list(summary.images_per_class) == [sum(bool((m == k).any()) for m in masks) for k in range(3)]


def test_fingerprint_changes_with_names_and_sizes(tmp_path: Path) -> None:
    item = make_item(tmp_path, "a", [[0]])
    before = fingerprint([item])
    assert before == fingerprint([item])
    assert len(before) == 64
    other_name = Item(name="b", image=item.image, mask=item.mask)
    no_mask = Item(name="a", image=item.image, mask=None)
    assert len({before, fingerprint([other_name]), fingerprint([no_mask]), fingerprint([item, other_name])}) == 4
    assert item.mask is not None
    item.mask.write_bytes(item.mask.read_bytes() + b"x")
    assert fingerprint([item]) != before
    item.image.unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read: No such file"):
        fingerprint([item])


def test_check_trainable_good_split_has_no_notes() -> None:
    assert check_trainable(counts([4, 5, 6]), LABELS, "train") == ()


def test_check_trainable_absent_class_raises_in_train_only() -> None:
    summary = counts([4, 0, 6])
    with pytest.raises(DataError, match=r"split 'train' has no pixel of class class 1: .*allow_absent_classes=true"):
        check_trainable(summary, LABELS, "train")
    with pytest.raises(DataError, match="split 'train_aug' has no pixel"):
        check_trainable(summary, LABELS, "train_aug")
    note = "has no pixel of 1 classes: class 1"
    assert note in check_trainable(summary, LABELS, "train", allow_absent_classes=True)[0]
    assert note in check_trainable(summary, LABELS, "val")[0]


def test_check_trainable_ignored_foreground_gets_the_hint() -> None:
    with pytest.raises(DataError, match="255 and mean foreground, leave --labels away"):
        check_trainable(counts([4, 0], ignored_pixels=7), LabelSpace.numbered(2), "train")
    with pytest.raises(DataError) as caught:
        check_trainable(counts([4, 0]), LabelSpace.numbered(2), "train")
    assert "foreground" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "val"])
def test_check_trainable_everything_ignored_raises(tmp_path: Path, split: str) -> None:
    summary = summarise(SegmentationDataset([make_item(tmp_path, "a", [[255, 255]])], LABELS))
    with pytest.raises(DataError, match=rf"split '{split}': every pixel of its 1 images is ignored.*\[255\]"):
        check_trainable(summary, LABELS, split, allow_absent_classes=True)


def test_check_trainable_oddities_are_noted() -> None:
    summary = counts([1, 1, 1], unlabelled=2, all_ignored=("a", "b"), images_turned=("c", "d"), masks_turned=("d",))
    notes = check_trainable(summary, LABELS, "val")
    assert [note.split(": ", 1)[1][:24] for note in notes] == [
        "2 of 4 images have no ma",
        "2 masks ignore every pix",
        "2 images are turned by E",
        "1 masks without EXIF wer",
    ]


@pytest.mark.data
@needs_camvid
def test_summarise_real_camvid_gives_the_measured_figures() -> None:
    source = open_data(DATA / "camvid")
    assert source.labels is not None
    summary = summarise(SegmentationDataset(source.splits["train"], source.labels))
    total = sum(summary.pixels_per_class) + summary.ignored_pixels
    shares = [count / total for count in (*summary.pixels_per_class, summary.ignored_pixels)]
    measured = (
        0.16845,
        0.23259,
        0.00983,
        0.31658,
        0.04486,
        0.09724,
        0.01173,
        0.01127,
        0.05866,
        0.00639,
        0.00292,
        0.03948,
    )
    assert shares == pytest.approx(measured, abs=6e-6)
    assert summary.images_per_class == (366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201)
    assert summary.sizes == {(360, 480): 367}
    segnet = (0.2663, 0.1929, 4.5642, 0.1417, 1, 0.4614, 3.8248, 3.9814, 0.7648, 7.0182, 15.38)
    assert class_weights(summary, "median_frequency") == pytest.approx(segnet, rel=4e-4)
    eigen = (0.2793, 0.2017, 4.7865, 0.1490, 1, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587)
    assert class_weights(summary, "median_frequency_eigen") == pytest.approx(eigen, rel=4e-4)

"""Classes read off the masks: what is taken for granted is said, what is not plain is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.infer_labels import infer_labels
from perpixel.data.source import Item, open_data
from perpixel.errors import ConfigError, DataError
from perpixel.labels import LabelSpace

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))

MakeItems = Callable[..., list[Item]]


@pytest.fixture
def masks(tmp_path: Path) -> MakeItems:
    def make(*rows: Sequence[int], dtype: type = np.uint8) -> list[Item]:
        items = []
        for index, row in enumerate(rows):
            path = tmp_path / f"{index}.png"
            Image.fromarray(np.array([row], dtype=dtype)).save(path)
            items.append(Item(name=str(index), image=path, mask=path))
        return items

    return make


def test_infer_labels_stated_space_wins(masks: MakeItems) -> None:
    labels, notes = infer_labels(masks([0, 9]), "camvid11", given=LabelSpace.numbered(3))
    assert labels.name == "camvid11"
    assert notes == ("the data set's own label space is '3 classes'; masks are read by 'camvid11', as asked",)
    assert infer_labels(masks([0, 9]), "camvid11").notes == ()
    with pytest.raises(ConfigError, match="no label space 'camvid12'"):
        infer_labels(masks([0, 9]), "camvid12")


def test_infer_labels_space_of_the_data_set_comes_second(masks: MakeItems) -> None:
    given = LabelSpace.numbered(3)
    inference = infer_labels(masks([0, 9]), None, given=given)
    assert inference.labels is given
    assert "label space '3 classes' of the data set" in inference.notes[0]


def test_infer_labels_zero_and_255_are_two_classes(masks: MakeItems) -> None:
    labels, notes = infer_labels(masks([0, 0], [0, 255]))
    assert labels.names == ("background", "foreground")
    np.testing.assert_array_equal(labels.encode(np.array([[0, 255]])), [[0, 1]])
    np.testing.assert_array_equal(labels.decode(np.array([[0, 1]])), [[0, 255]])
    assert "only 0 and 255: two classes" in notes[0]


def test_infer_labels_small_ids_are_numbered_classes(masks: MakeItems) -> None:
    labels, notes = infer_labels(masks([0, 1], [2, 255]))
    assert labels.num_classes == 3
    np.testing.assert_array_equal(labels.encode(np.array([[0, 2, 255]])), [[0, 2, 255]])
    assert notes == ("masks hold ids 0 to 2: 3 numbered classes; 255 is ignored",)
    assert infer_labels(masks([0, 1])).notes == ("masks hold ids 0 to 1: 2 numbered classes; no pixel is ignored",)


def test_infer_labels_gaps_are_said(masks: MakeItems) -> None:
    labels, notes = infer_labels(masks([1, 3]))
    assert labels.num_classes == 4
    assert "no mask holds the ids 0, 2" in notes[1]


def test_infer_labels_ids_like_camvid_get_the_hint(masks: MakeItems) -> None:
    labels, notes = infer_labels(masks(range(12)))
    assert labels.num_classes == 12
    assert notes[-1].endswith("--labels camvid11")
    assert infer_labels(masks([*range(21), 255])).notes[-1].endswith("--labels voc")
    assert "camvid" not in " ".join(infer_labels(masks([*range(12), 255])).notes)


def test_infer_labels_sixteen_bit_files_of_small_ids_are_fine(masks: MakeItems) -> None:
    assert infer_labels(masks([0, 3], dtype=np.uint16)).labels.num_classes == 4


def test_infer_labels_many_or_large_ids_ask_for_labels(masks: MakeItems) -> None:
    with pytest.raises(DataError, match=r"masks hold 65 different ids \(0, 1, 2.*Give --labels"):
        infer_labels(masks(range(65)))
    assert infer_labels(masks(range(64))).labels.num_classes == 64
    with pytest.raises(DataError, match=r"masks hold the ids 0, 128, which are no consecutive classes.*--labels"):
        infer_labels(masks([0, 128]))
    with pytest.raises(DataError, match=r"1\.png: ids up to 26001 are more than numbered classes.*--labels"):
        infer_labels(masks([0], [26001], dtype=np.uint16))


@pytest.mark.parametrize(("rows", "held"), [([[0]], "0"), ([[255]], "255")])
def test_infer_labels_single_value_raises(masks: MakeItems, rows: list[list[int]], held: str) -> None:
    with pytest.raises(DataError, match=f"every mask holds only {held}, so there are no two classes"):
        infer_labels(masks(*rows))


def test_infer_labels_more_pixels_than_allowed_raise(masks: MakeItems) -> None:
    with pytest.raises(DataError, match="1 x 3 = 3 pixels, more than the limit of 2"):
        infer_labels(masks([0, 1, 2]), max_pixels=2)


def test_infer_labels_without_masks_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no masks to read the classes from"):
        infer_labels([Item(name="a", image=tmp_path / "a.png", mask=None)])


def test_infer_labels_colours_ask_for_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(path)
    items = [Item(name="a", image=path, mask=path)]
    with pytest.raises(DataError, match=r"a\.png: the mask holds colours.*\(1, 2, 3\) on 1 pixels"):
        infer_labels(items)
    with pytest.raises(DataError, match=r"colours of masks do not say which classes.*--labels"):
        infer_labels(items, mask_encoding="colors")
    assert infer_labels(items, "camvid11", mask_encoding="colors").labels.num_classes == 11


def test_infer_labels_large_data_is_sampled_evenly_and_said(tmp_path: Path) -> None:
    first, last, gone = tmp_path / "first.png", tmp_path / "last.png", tmp_path / "gone.png"
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(first)
    Image.fromarray(np.array([[2]], np.uint8)).save(last)
    # Of 399 masks, 0, 2, 4… are read: were another touched, the missing file would raise.
    paths = [gone if i % 2 else first for i in range(398)] + [last]
    items = [Item(name=str(i), image=path, mask=path) for i, path in enumerate(paths)]
    labels, notes = infer_labels(items)
    assert labels.num_classes == 3
    assert notes[-1].startswith("the classes were read from 200 of 399 masks")


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "isbi2012").is_dir(), reason="no isbi2012/ under PERPIXEL_DATA")
def test_infer_labels_real_isbi_is_binary() -> None:
    assert infer_labels(open_data(DATA / "isbi2012").splits["all"]).labels.stored_to_train == {0: 0, 255: 1}


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no camvid/ under PERPIXEL_DATA")
def test_infer_labels_real_camvid_gets_the_hint() -> None:
    items = open_data(DATA / "camvid").splits["val"]
    labels, notes = infer_labels(items)
    assert labels.num_classes == 12
    assert notes[-1].endswith("--labels camvid11")


@pytest.mark.parametrize(
    ("asked", "stored"),
    [("camvid11", "camvid11_of_32"), ("cityscapes", "cityscapes_train_ids"), ("cityscapes", "bdd100k")],
)
def test_infer_labels_same_classes_under_other_ids_are_read_by_the_datas_own(asked: str, stored: str) -> None:
    given = LabelSpace.load(stored)
    assert LabelSpace.load(asked).names == given.names
    inference = infer_labels([], asked, given=given)
    assert inference.labels is given
    assert f"{asked!r} was asked for; this data holds its classes under the ids of {stored!r}" in inference.notes[0]


def test_infer_labels_other_classes_than_the_datas_own_are_taken_and_said() -> None:
    inference = infer_labels([], "voc", given=LabelSpace.load("camvid11"))
    assert inference.labels == LabelSpace.load("voc")
    assert "own label space is 'camvid11'; masks are read by 'voc'" in inference.notes[0]
    assert infer_labels([], "voc", given=LabelSpace.load("voc")).notes == ()

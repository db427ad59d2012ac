"""Pictures of label maps: round trips of mask files, colours, and whole-or-nothing writing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from perpixel.data.image_files import read_mask
from perpixel.errors import InvalidValue, RunError
from perpixel.inference import display_image, error_map, overlay, save_picture, write_mask
from perpixel.labels import LabelSpace

COLORS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


def label_space(stored, ignored):
    return LabelSpace(
        names=("a", "b", "c"),
        colors=COLORS,
        stored_to_train={**{s: i for i, s in enumerate(stored)}, ignored: 255},
        train_to_stored=stored,
    )


SPACES = [LabelSpace.numbered(3), label_space((7, 26, 33), 0), label_space((1, 300, 65535), 0)]
IDS = [(2, np.uint8), (33, np.uint8), (65535, np.uint16)]
train_ids = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0, 1, 2, 255])
)


@pytest.mark.parametrize("space", range(3))
@given(mask=train_ids)
@settings(max_examples=15, deadline=None)
def test_write_mask_read_back_gives_the_same_train_ids(tmp_path_factory, space, mask):
    labels = SPACES[space]
    path = write_mask(tmp_path_factory.mktemp("masks") / "mask.png", mask, labels)
    np.testing.assert_array_equal(labels.encode(read_mask(path)), mask)


@pytest.mark.parametrize("space", range(3))
def test_write_mask_stores_the_ids_of_the_label_space(tmp_path, space):
    largest, dtype = IDS[space]
    path = write_mask(tmp_path / "mask.png", np.array([[0, 1], [2, 2]], np.uint8), SPACES[space])
    with Image.open(path) as file:
        assert file.mode == ("P" if dtype == np.uint8 else "I;16")
        assert np.asarray(file).astype(int)[1, 1] == largest


def test_write_mask_palette_shows_class_and_ignore_colours(tmp_path):
    labels = label_space((7, 26, 33), 4)
    path = write_mask(tmp_path / "mask.png", np.array([[0, 1, 2, 255]], np.uint8), labels)
    with Image.open(path) as file:
        assert [tuple(c) for c in np.asarray(file.convert("RGB"))[0].tolist()] == [*COLORS, labels.ignore_color]


def test_write_mask_jpeg_name_refused(tmp_path):
    with pytest.raises(InvalidValue, match=r"mask\.jpg: masks are written as PNG"):
        write_mask(tmp_path / "mask.jpg", np.zeros((1, 1), np.uint8), SPACES[0])


@pytest.mark.parametrize("mask", [np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1), np.int64)])
def test_write_mask_other_arrays_refused(tmp_path, mask):
    with pytest.raises(InvalidValue, match=r"train_ids must be \(H, W\) uint8"):
        write_mask(tmp_path / "mask.png", mask, SPACES[0])


def test_save_picture_leaves_no_other_file(tmp_path):
    save_picture(tmp_path / "new" / "a.jpg", Image.new("RGB", (2, 2)))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.jpg"]


def test_save_picture_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")
    with pytest.raises(RunError, match=r"a\.jpg: cannot be written: cannot write mode RGBA as JPEG"):
        save_picture(path, Image.new("RGBA", (2, 2)))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_picture_unknown_suffix_refused(tmp_path):
    with pytest.raises(InvalidValue, match=r"got suffix '\.gif'"):
        save_picture(tmp_path / "a.gif", Image.new("RGB", (2, 2)))


def test_overlay_mixes_colours_and_leaves_ignored_pixels():
    image = np.full((2, 3, 3), 100, np.uint8)
    ids = np.array([[0, 0, 255], [0, 0, 255]], np.uint8)
    picture = overlay(image, ids, SPACES[1], 0.25, border=False)
    assert picture[0, 0].tolist() == [125, 75, 75]
    assert picture[1, 2].tolist() == [100, 100, 100]


def test_overlay_border_is_drawn_in_full_colour():
    image = np.full((3, 4, 3), 100, np.uint8)
    ids = np.array([[0, 0, 1, 1]] * 3, np.uint8)
    picture = overlay(image, ids, SPACES[1], 0.0)
    assert picture[1].tolist() == [[100] * 3, [200, 0, 0], [100] * 3, [100] * 3]


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_overlay_weight_out_of_range_refused(alpha):
    with pytest.raises(InvalidValue, match=rf"in \[0, 1\], got {alpha}"):
        overlay(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), SPACES[0], alpha)


def test_overlay_sizes_differ_refused():
    with pytest.raises(InvalidValue, match=r"\(H, W, 3\) = \(1, 2, 3\) like the classes, got \(1, 1, 3\)"):
        overlay(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 2), np.uint8), SPACES[0])


@pytest.mark.parametrize("image", [None, np.full((1, 3, 3), 200, np.uint8)])
def test_error_map_shows_wrong_right_and_ignored(image):
    picture = error_map(np.array([[1, 0, 2]], np.uint8), np.array([[1, 1, 255]], np.uint8), SPACES[1], image)
    right, wrong, ignored = picture[0].tolist()
    assert wrong == [220, 30, 30]
    assert ignored == [38, 46, 66]
    assert right == ([53] * 3 if image is None else [90] * 3)


def test_error_map_sizes_differ_refused():
    with pytest.raises(InvalidValue, match=r"prediction is \(1, 1\), target \(1, 2\)"):
        error_map(np.zeros((1, 1), np.uint8), np.zeros((1, 2), np.uint8), SPACES[0])


def test_display_image_shows_grey_16_bit_and_many_channels():
    assert display_image(torch.full((1, 1, 1), 9, dtype=torch.uint8)).tolist() == [[[9, 9, 9]]]
    assert display_image(torch.full((2, 1, 1), 65535, dtype=torch.int32)).tolist() == [[[255, 255, 255]]]
    five = torch.arange(5, dtype=torch.uint8).view(5, 1, 1)
    assert display_image(five).tolist() == [[[0, 1, 2]]]

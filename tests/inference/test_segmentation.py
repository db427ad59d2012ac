"""Segmentation: probabilities, shares, overlay and the file that it saves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.errors import InvalidValue
from perpixel.inference import Segmenter
from perpixel.labels import LabelSpace

LABELS = LabelSpace(
    names=("road", "car", "sky"),
    colors=((128, 64, 128), (0, 0, 142), (70, 130, 180)),
    stored_to_train={7: 0, 26: 1, 23: 2, 0: 255},
    train_to_stored=(7, 26, 23),
)


@pytest.fixture
def segmentation(brightness_network):
    """Road, car and sky in known places: the red channel holds 20 times the class."""
    pixels = torch.zeros(3, 2, 4, dtype=torch.uint8)
    pixels[0] = torch.tensor([[0, 0, 0, 20], [0, 0, 0, 40]])
    return Segmenter(brightness_network(), LABELS)(pixels)


def test_segmentation_mask_holds_train_ids(segmentation):
    assert segmentation.mask.tolist() == [[0, 0, 0, 1], [0, 0, 0, 2]]
    assert segmentation.size == (2, 4)
    assert segmentation.labels is LABELS


def test_segmentation_probabilities_are_the_softmax_of_the_full_scores(fake_network, raw_images):
    segmenter = Segmenter(fake_network(stride=4), LABELS)
    pixels = raw_images(3, 10, 13)
    result = segmenter(pixels)
    assert result.probabilities.dtype == np.float32
    assert result.probabilities is result.probabilities
    expected = segmenter.logits(pixels[None])[0].softmax(0).numpy()
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-6)
    np.testing.assert_array_equal(result.probabilities.argmax(0), result.mask)


def test_segmentation_class_shares_name_what_occurs_largest_first(segmentation):
    assert segmentation.class_shares() == {"road": 0.75, "car": 0.125, "sky": 0.125}
    assert next(iter(segmentation.class_shares())) == "road"


def test_segmentation_repr_is_short(segmentation):
    assert repr(segmentation) == "Segmentation(2 x 4 pixels: road 75%, car 12%, sky 12%)"


def test_segmentation_save_writes_stored_ids_with_palette(segmentation, tmp_path):
    path = segmentation.save(tmp_path / "deep" / "mask.png")
    with Image.open(path) as file:
        assert file.mode == "P"
        assert np.asarray(file).tolist() == [[7, 7, 7, 26], [7, 7, 7, 23]]
        assert np.asarray(file.convert("RGB"))[0, 3].tolist() == [0, 0, 142]


def test_segmentation_overlay_is_a_picture_of_the_image_size(segmentation):
    picture = segmentation.overlay(alpha=1.0)
    assert picture.mode == "RGB"
    assert picture.size == (4, 2)
    assert picture.getpixel((0, 0)) == (128, 64, 128)
    assert segmentation.overlay(alpha=0.0, border=False).getpixel((3, 1)) == (40, 0, 0)


def test_segmentation_overlay_weight_out_of_range_refused(segmentation):
    with pytest.raises(InvalidValue, match=r"in \[0, 1\], got 2"):
        segmentation.overlay(alpha=2)

"""Boxes: cutting and pasting at the edges, merging by maximum, and the two ensembles by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.inference.boxes import (
    box_scores,
    crop_with_zeros,
    ensemble_probabilities,
    expand_boxes,
    object_examples,
)
from perpixel.models import create_model
from perpixel.types import Preprocessing, SegOutput


class Colours(nn.Module):
    """Score of class k is channel k of the image: what goes in comes out where it was."""

    num_classes, align_corners, margin, minimum_size = 3, False, 0, 1
    preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, value_range=255.0)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> SegOutput:
        self.seen.append(tuple(images.shape))
        return SegOutput(images)


def whole(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def test_box_of_the_whole_image_at_its_own_size_gives_the_networks_scores() -> None:
    image = torch.randint(0, 256, (3, 8, 10), dtype=torch.uint8)
    scores = box_scores(Colours(), image, whole([0, 0, 10, 8]), input_size=(8, 10))
    torch.testing.assert_close(scores, image.float())


def test_boxes_merge_by_pixelwise_maximum_over_a_canvas_of_zeros() -> None:
    class Signed(Colours):
        def forward(self, images: Tensor) -> SegOutput:
            sign = torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1)
            return SegOutput(sign * images.mean((2, 3), keepdim=True).expand_as(images))

    image = torch.zeros(3, 4, 6, dtype=torch.uint8)
    image[:, :, :3], image[:, :, 3:] = 40, 80
    scores = box_scores(Signed(), image, whole([0, 0, 3, 4], [1, 0, 5, 4]), input_size=(4, 4))
    assert scores[0, 0].tolist() == pytest.approx([40, 60, 60, 60, 60, 0])  # 60: half of either side
    assert scores[2, 0].tolist() == pytest.approx([20, 30, 30, 30, 30, 0])
    assert scores[1].abs().max() == 0  # below zero everywhere, and zero where no box is


def test_boxes_beyond_the_image_see_black_and_are_cut_when_pasted() -> None:
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    network = Colours()
    scores = box_scores(network, image, whole([-2, -2, 2, 2], [10, 10, 14, 14]), input_size=(4, 4))
    torch.testing.assert_close(scores[:, :2, :2], torch.full((3, 2, 2), 100.0))
    assert scores[:, 2:].abs().max() == scores[:, :, 2:].abs().max() == 0
    assert network.seen == [(2, 3, 4, 4)]


def test_crop_with_zeros_by_hand() -> None:
    x = torch.arange(1, 7).reshape(1, 2, 3)
    assert crop_with_zeros(x, (-1, 1, 2, 3)).tolist() == [[[0, 4, 5], [0, 0, 0]]]
    assert crop_with_zeros(x, (5, 5, 6, 6)).tolist() == [[[0]]]


def test_batches_of_boxes_give_what_all_at_once_give() -> None:
    image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    boxes = whole([0, 0, 9, 9], [3, 2, 20, 12], [5, 5, 15, 20], [1, 1, 30, 30], [0, 4, 8, 8])
    network = Colours()
    together = box_scores(network, image, boxes, input_size=(16, 16))
    assert torch.equal(box_scores(network, image, boxes, input_size=(16, 16), batch_size=2), together)
    assert network.seen[1:] == [(2, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16)]
    assert box_scores(network, image, boxes[:0]).abs().max() == 0


def test_deconvnet_scores_boxes() -> None:
    network = create_model("deconvnet", {"width": 2, "fc_width": 4, "fc_kernel": 2}, num_classes=4).eval()
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    scores = box_scores(network, image, whole([0, 0, 70, 50], [20, 10, 60, 55]), input_size=(64, 64))
    assert scores.shape == (4, 50, 70)
    assert scores.min() >= 0


def test_expand_boxes_grows_about_the_centre_and_rounds_outwards() -> None:
    boxes = whole([10, 20, 20, 40], [0, 0, 1, 1])
    assert expand_boxes(boxes).tolist() == [[9, 18, 21, 42], [-1, -1, 2, 2]]
    assert torch.equal(expand_boxes(boxes, 1.0), boxes)


def test_ensembles_by_hand() -> None:
    deconvnet = torch.tensor([1.0, 2.0]).view(2, 1, 1)
    fcn = torch.tensor([3.0, -4.0]).view(2, 1, 1)
    product = ensemble_probabilities(deconvnet, fcn).flatten()
    torch.testing.assert_close(product, torch.tensor([3.0, 0.0]).softmax(0))
    mean = ensemble_probabilities(deconvnet, fcn, form="mean").flatten()
    expected = (torch.tensor([1.0, 2.0]).softmax(0) + torch.tensor([3.0, -4.0]).softmax(0)) / 2
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("form", ["product", "mean"])
def test_ensembles_are_probabilities(form: Any) -> None:
    result = ensemble_probabilities(torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4), form=form)
    torch.testing.assert_close(result.sum(1), torch.ones(2, 3, 4))


def test_object_examples_by_hand_label_the_object_alone() -> None:
    """Two touching objects of class 3 with an ignored pixel: each box (1 x 2 pixels, twice as large) sees 2 x 4."""
    mask = torch.tensor([[0, 0, 0, 0, 0], [0, 3, 3, 3, 3], [5, 255, 0, 0, 0]], dtype=torch.uint8)
    instances = torch.tensor([[0, 0, 0, 0, 0], [0, 9, 9, 4, 4], [2, 255, 0, 0, 0]])
    image = torch.arange(15, dtype=torch.uint8).reshape(1, 3, 5)
    examples = list(object_examples(image, mask, instances, factor=2.0, size=(3, 4)))
    # In the order of the numbers 2, 4, 9; boxes (-1, 1, 2, 4), (2, 0, 6, 3) and (0, 0, 4, 3).
    assert examples[2][1].tolist() == [[0, 0, 0, 0], [0, 3, 3, 0], [0, 255, 0, 0]]
    assert examples[2][0].tolist() == [[[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]]]
    assert examples[1][1].tolist() == [[0, 0, 0, 0], [0, 3, 3, 0], [0, 0, 0, 0]]
    assert examples[1][0].tolist() == [[[2, 3, 4, 0], [7, 8, 9, 0], [12, 13, 14, 0]]]  # black beyond the image
    assert len(examples) == 3


def test_object_examples_are_squeezed_to_250_pixels_with_labels_of_the_nearest_pixel() -> None:
    mask = torch.zeros(60, 80, dtype=torch.uint8)
    mask[10:20, 30:70] = 7
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    ((pixels, target),) = object_examples(image, mask)
    assert (pixels.shape, pixels.dtype, target.shape, target.dtype) == (
        (3, 250, 250),
        torch.uint8,
        (250, 250),
        torch.uint8,
    )
    x0, y0, x1, y1 = expand_boxes(whole([30, 10, 70, 20]))[0].tolist()
    cut = mask[None, None, y0:y1, x0:x1].float()
    expected = torch.nn.functional.interpolate(cut, size=(250, 250), mode="nearest-exact")[0, 0]
    assert torch.equal(target, expected.to(torch.uint8))
    assert set(target.flatten().tolist()) == {0, 7}
    smooth = torch.nn.functional.interpolate(image[None, :, y0:y1, x0:x1].float(), size=(250, 250), mode="bilinear")
    assert (pixels.float() - smooth[0]).abs().max() <= 0.5


def test_object_examples_without_instances_take_connected_components_of_each_class() -> None:
    mask = torch.tensor([[1, 1, 0, 2], [0, 0, 0, 2], [1, 0, 2, 255]], dtype=torch.uint8)
    image = torch.full((1, 3, 4), 40_000, dtype=torch.int32)
    examples = list(object_examples(image, mask, factor=1.0, size=(2, 2)))
    found = [set(target.flatten().tolist()) for _, target in examples]
    assert found == [{1}, {1}, {2}, {2}]  # the two of class 2 meet at a corner
    assert all(pixels.dtype == torch.int32 and pixels.eq(40_000).all() for pixels, _ in examples)


def test_object_examples_fill_with_the_background_that_is_given() -> None:
    mask = torch.tensor([[0, 9]], dtype=torch.uint8)
    ((pixels, target),) = object_examples(
        torch.full((1, 1, 2), 50, dtype=torch.uint8), mask, factor=3.0, size=(3, 3), background=9
    )
    assert target.tolist() == [[9, 9, 9], [9, 0, 9], [9, 9, 9]]
    assert pixels[0].tolist() == [[0, 0, 0], [0, 50, 50], [0, 0, 0]]


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("with_instances", [False, True])
def test_object_examples_of_an_image_without_objects_are_none(value: int, with_instances: bool) -> None:
    mask = torch.full((4, 4), value, dtype=torch.uint8)
    instances = torch.ones(4, 4, dtype=torch.int32) if with_instances else None
    assert list(object_examples(torch.zeros(3, 4, 4, dtype=torch.uint8), mask, instances)) == []


def test_object_examples_without_a_pixel_of_no_object_number_from_one() -> None:
    mask = torch.ones(2, 2, dtype=torch.uint8)
    instances = torch.tensor([[5, 5], [8, 8]])
    examples = list(object_examples(torch.zeros(1, 2, 2, dtype=torch.uint8), mask, instances, factor=1, size=(1, 2)))
    assert [target.tolist() for _, target in examples] == [[[1, 1]], [[1, 1]]]


def test_wrong_objects_are_refused() -> None:
    image, mask = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8)
    with pytest.raises(InvalidValue, match=r"raw pixels \(C, H, W\), uint8 or int32, got \(3, 4, 4\) torch.float32"):
        object_examples(image.float(), mask)
    with pytest.raises(InvalidValue, match=r"size \(4, 4\) is as large and uint8, got \(4, 3\) torch.uint8"):
        object_examples(image, mask[:, 1:])
    with pytest.raises(InvalidValue, match=r"both at least 1, got \(0, 5\)"):
        object_examples(image, mask, size=(0, 5))
    with pytest.raises(InvalidValue, match="factor of boxes must be positive, got 0"):
        object_examples(image, mask, factor=0)
    with pytest.raises(InvalidValue, match=r"the mask's size \(4, 4\), got \(4, 4\) torch.float32"):
        object_examples(image, mask, torch.ones(4, 4))
    with pytest.raises(InvalidValue, match="numbered from 1, 0 being none, got -1"):
        object_examples(image, mask, -torch.ones(4, 4, dtype=torch.int32))
    mask[0] = 6
    with pytest.raises(InvalidValue, match=r"instance 3 holds the classes \[1, 6\]; an object has one"):
        object_examples(image, mask, torch.full((4, 4), 3))


def test_wrong_boxes_images_and_forms_are_refused() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(InvalidValue, match=r"box 1 = \[2, 0, 2, 4\] is empty"):
        box_scores(Colours(), image, whole([0, 0, 4, 4], [2, 0, 2, 4]))
    with pytest.raises(InvalidValue, match=r"x0 y0 x1 y1 in pixels, got \(1, 4\) torch.float32"):
        box_scores(Colours(), image, torch.zeros(1, 4))
    with pytest.raises(InvalidValue, match=r"raw pixels \(C, H, W\), uint8 or int32, got \(3, 4, 4\) torch.float32"):
        box_scores(Colours(), image.float(), whole([0, 0, 4, 4]))
    with pytest.raises(InvalidValue, match="batch_size must be >= 1, got 0"):
        box_scores(Colours(), image, whole([0, 0, 4, 4]), batch_size=0)
    with pytest.raises(InvalidValue, match="factor of boxes must be positive, got 0"):
        expand_boxes(whole([0, 0, 1, 1]), 0)
    with pytest.raises(InvalidValue, match="form is 'product' or 'mean', got 'sum'"):
        ensemble_probabilities(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), form="sum")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"one shape, got \(2, 1, 1\) and \(2, 1, 2\)"):
        ensemble_probabilities(torch.zeros(2, 1, 1), torch.zeros(2, 1, 2))

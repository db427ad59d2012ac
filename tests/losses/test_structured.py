import math

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.losses.structured import logistic_loss, pair_cross_entropy
from perpixel.ops import resize, resize_labels
from perpixel.ops.class_masks import dilated_masks, eroded_masks
from perpixel.ops.node_pairs import node_offsets, pair_targets
from perpixel.types import SegOutput, Term


def test_logistic_loss_adds_over_classes_and_averages_over_pixels() -> None:
    logits = torch.tensor([[[[0.0, 2.0]], [[0.0, -1.0]]]])
    masks = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]]]])
    expected = (2 * math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert float(logistic_loss(logits, masks)) == pytest.approx(expected)
    assert float(logistic_loss(logits, masks, reduction="sum")) == pytest.approx(2 * expected)


def test_pair_cross_entropy_leaves_out_the_edges_without_target() -> None:
    scores = torch.zeros(1, 4, 1, 3, requires_grad=True)
    pairs = torch.tensor([[[2, -1, 0]]])
    value = pair_cross_entropy(scores, pairs)
    assert float(value.detach()) == pytest.approx(math.log(4))
    value.backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad[0, :, 0, 1], torch.zeros(4))
    nothing = pair_cross_entropy(scores, torch.full((1, 1, 3), -1))
    assert float(nothing.detach()) == 0 and nothing.requires_grad


def test_structured_losses_gradcheck() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    masks = torch.randint(0, 2, (1, 2, 3, 3))
    assert torch.autograd.gradcheck(lambda x: logistic_loss(x, masks), [logits])
    scores = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    pairs = torch.tensor([[[0, 3, -1], [1, -1, 2]]])
    assert torch.autograd.gradcheck(lambda x: pair_cross_entropy(x, pairs), [scores])


def labels() -> torch.Tensor:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 16, 16))
    target[:, :2] = 255
    return target


def test_segmentation_loss_compares_with_grown_and_shrunk_masks_at_either_size() -> None:
    target, coarse = labels(), torch.randn(2, 3, 4, 4)
    terms = (
        Term(name="grown", output="deep", loss="dilation_logistic", at="logits", options={"radius": 3}),
        Term(name="shrunk", output="deep", loss="erosion_logistic", options={"radius": 1, "ignored_as": 2}),
    )
    criterion = SegmentationLoss(terms, num_classes=3, align_corners=False)
    parts = criterion(SegOutput(torch.randn(2, 3, 16, 16), deep=(coarse,)), target).parts
    grown = dilated_masks(target, 3, radius=3, size=(4, 4))
    assert torch.allclose(parts["grown"], logistic_loss(coarse, grown))
    shrunk = eroded_masks(target, 3, radius=1, ignored_as=2)
    assert torch.allclose(parts["shrunk"], logistic_loss(resize(coarse, (16, 16), align_corners=False), shrunk))


def test_segmentation_loss_compares_pairs_of_the_cells_of_the_logits() -> None:
    target = labels()
    options = {"relation": "above_below", "fraction": 0.5, "grid": 0}
    offsets = node_offsets((4, 4), relation="above_below", fraction=0.5)
    scores = torch.randn(2, 9, len(offsets), 16)
    term = Term(name="pairs", output="deep", loss="pair_cross_entropy", options=options)
    criterion = SegmentationLoss((term,), num_classes=3, align_corners=False)
    value = criterion(SegOutput(torch.randn(2, 3, 4, 4), deep=(scores,)), target).total
    nodes = resize_labels(target, (4, 4), align_corners=False)
    assert torch.allclose(value, pair_cross_entropy(scores, pair_targets(nodes, 3, offsets)))


def test_segmentation_loss_unknown_option_of_a_structured_loss_is_refused() -> None:
    term = Term(name="a", loss="dilation_logistic", options={"raduis": 3})
    with pytest.raises(InvalidValue, match="no option 'raduis'; did you mean 'radius'"):
        SegmentationLoss((term,), num_classes=3, align_corners=False)

"""Pixel-weighted cross-entropy, its place in SegmentationLoss, and Dice pooled over classes."""

from __future__ import annotations

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.losses import (
    SegmentationLoss,
    cross_entropy,
    dice_loss,
    pixel_weighted_cross_entropy,
    segmentation_loss,
    with_class_weights,
)
from perpixel.ops import distance_weights, resize_labels
from perpixel.types import SegOutput, Term

OPTIONS = {"w0": 4.0, "sigma": 2.0}


def scores(size: int = 12, classes: int = 3) -> torch.Tensor:
    return torch.randn(2, classes, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def labels(size: int = 12) -> torch.Tensor:
    target = torch.zeros(2, size, size, dtype=torch.uint8)
    target[:, 1:5, 1:5] = 1
    target[:, 1:5, 7:11] = 2
    target[0, -2:] = 255
    return target


def loss(*terms: Term, margin: int = 0) -> SegmentationLoss:
    return SegmentationLoss(terms, num_classes=3, align_corners=False, margin=margin)


def test_weights_of_one_give_the_plain_cross_entropy() -> None:
    logits, target = scores(), labels()
    for reduction in ("mean_valid", "mean_all", "sum"):
        ours = pixel_weighted_cross_entropy(logits, target, torch.ones(target.shape), reduction=reduction)
        assert torch.allclose(ours, cross_entropy(logits, target, reduction=reduction))


def test_weighted_sum_is_that_of_a_loop_over_pixels() -> None:
    logits, target = scores(), labels()
    weights = torch.rand(target.shape, dtype=torch.float64)
    total, count = 0.0, 0
    for b, y, x in (target != 255).nonzero().tolist():
        label = int(target[b, y, x])
        total -= (0.5 + label) * weights[b, y, x].item() * logits[b, :, y, x].log_softmax(0)[label].item()
        count += 1
    ours = pixel_weighted_cross_entropy(logits, target, weights, class_weights=[0.5, 1.5, 2.5])
    assert ours.item() == pytest.approx(total / count)


def test_weighted_gradient_is_right_and_ignored_pixels_have_none() -> None:
    logits, target = scores(4).requires_grad_(), labels(4)
    weights = torch.rand(target.shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pixel_weighted_cross_entropy(x, target, weights), logits)
    pixel_weighted_cross_entropy(logits, target, weights).backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, -2:].any()


def test_weighted_all_ignored_is_zero_with_a_gradient() -> None:
    logits = scores().requires_grad_()
    value = pixel_weighted_cross_entropy(logits, torch.full((2, 12, 12), 255), torch.ones(2, 12, 12))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_weighted_wrong_shapes_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"weights \(2, 3, 3\) and labels \(2, 12, 12\) differ"):
        pixel_weighted_cross_entropy(scores(), labels(), torch.ones(2, 3, 3))
    with pytest.raises(InvalidValue, match="2 class weights for 3 classes"):
        pixel_weighted_cross_entropy(scores(), labels(), torch.ones(2, 12, 12), class_weights=[1, 2])


def test_distance_weighted_term_uses_the_weights_of_its_options() -> None:
    logits, target = scores(), labels()
    value = loss(Term(name="main", loss="distance_weighted", options=OPTIONS))(SegOutput(logits), target)
    expected = pixel_weighted_cross_entropy(logits, target, distance_weights(target, **OPTIONS))
    assert torch.allclose(value.total, expected)
    assert not torch.allclose(value.total, cross_entropy(logits, target))


def test_distance_weighted_term_sees_the_objects_in_the_margin() -> None:
    logits, target = scores(6), labels()
    value = loss(Term(name="main", loss="distance_weighted", options=OPTIONS), margin=3)(SegOutput(logits), target)
    inner = (slice(None), slice(3, -3), slice(3, -3))
    weights = distance_weights(target, **OPTIONS)[inner]
    assert not torch.allclose(weights, distance_weights(target[inner].contiguous(), **OPTIONS))
    assert torch.allclose(value.total, pixel_weighted_cross_entropy(logits, target[inner], weights))


def test_distance_weighted_term_at_the_logits_picks_labels_and_weights_alike() -> None:
    logits, target = scores(4), labels()
    value = loss(Term(name="main", loss="distance_weighted", at="logits"))(SegOutput(logits), target)
    few, weights = (resize_labels(x, (4, 4), align_corners=False) for x in (target, distance_weights(target)))
    assert torch.allclose(value.total, pixel_weighted_cross_entropy(logits, few, weights))


def test_distance_weights_are_made_once_for_terms_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(target: torch.Tensor, **options: object) -> torch.Tensor:
        calls.append(options)
        return distance_weights(target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(segmentation_loss, "distance_weights", counted)
    terms = [Term(name=name, loss="distance_weighted", options=OPTIONS) for name in "ab"]
    loss(*terms, Term(name="c", loss="distance_weighted"))(SegOutput(scores()), labels())
    assert len(calls) == 2


def test_distance_weighted_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidValue, match="has no option 'sigm'; did you mean 'sigma'"):
        loss(Term(name="main", loss="distance_weighted", options={"sigm": 3.0}))


def test_with_class_weights_takes_the_place_of_the_balance_in_each_map() -> None:
    (plain, asked) = with_class_weights(
        (
            Term(name="a", loss="distance_weighted"),
            Term(name="b", loss="distance_weighted", options={"balance": "frequency"}),
        ),
        [1.0, 2.0, 3.0],
    )
    assert plain.options == {"balance": "none", "class_weights": [1.0, 2.0, 3.0]}
    assert asked.options == {"balance": "frequency", "class_weights": [1.0, 2.0, 3.0]}


def test_pooled_dice_is_one_fraction_over_batch_classes_and_pixels() -> None:
    logits, target = scores(), labels()
    probs = logits.softmax(1)
    hit = total = 0.0
    for b, y, x in (target != 255).nonzero().tolist():
        hit += probs[b, int(target[b, y, x]), y, x].item()
        total += probs[b, :, y, x].sum().item() + 1
    ours = dice_loss(logits, target, classes="pooled", smooth=1e-6)
    assert ours.item() == pytest.approx(1 - (2 * hit + 1e-6) / (total + 1e-6))


def test_pooled_dice_gradient_is_right_and_all_ignored_is_zero() -> None:
    logits = scores(4).requires_grad_()
    target = labels(4)
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, target, classes="pooled", smooth=1e-6), logits)
    value = dice_loss(logits, torch.full((2, 4, 4), 255), classes="pooled", smooth=1e-6)
    value.backward()
    assert value.item() == 0

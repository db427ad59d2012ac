"""shared_divisors: losses of unequal parts of a batch average to the loss of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from perpixel.losses import SegmentationLoss, presence_loss, shared_divisors, sigmoid_focal_loss
from perpixel.losses.structured import logistic_loss
from perpixel.types import SegOutput, Term

WEIGHTS = [0.5, 2.0, 1.0]
TERMS: dict[str, dict[str, Any]] = {
    "mean over valid": {},
    "mean over all": {"reduction": "mean_all"},
    "sum": {"reduction": "sum"},
    "class weights": {"options": {"class_weights": WEIGHTS, "label_smoothing": 0.1}},
    "class weights by pixels": {"options": {"class_weights": WEIGHTS, "normalise": "pixels"}},
    "at the logits": {"at": "logits"},
    "focal": {"loss": "focal"},
    "hard pixels by threshold": {"loss": "ohem", "options": {"threshold": 0.4, "min_kept": 0}},
    "hard pixels, weighted": {
        "loss": "ohem",
        "options": {"threshold": 0.4, "min_kept": 0, "class_weights": WEIGHTS},
    },
    "pixel weights": {"loss": "distance_weighted", "options": {"w0": 4.0, "sigma": 2.0}},
    "borders": {"loss": "border_focal", "output": "border"},
}
PARTS = (slice(0, 2), slice(2, 3))  # the last process has one image, most of it ignored


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 4, 5, generator=generator, dtype=torch.float64).mul_(2).requires_grad_()
    border = torch.randn(3, 1, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 3, (3, 12, 15), generator=generator)
    target[2, 2:] = 255
    return logits, border, target


def averaged(
    loss: Callable[[slice], torch.Tensor], given: list[torch.Tensor], *, processes: int = len(PARTS)
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Average of the parts' losses and gradients, each with the divisors that all parts have together."""
    own: list[list[torch.Tensor]] = []
    for part in PARTS:
        seen: list[torch.Tensor] = []
        with shared_divisors(lambda divisor, seen=seen: seen.append(divisor) or divisor):  # type: ignore[func-returns-value]
            loss(part)
        own.append(seen)
    total = torch.zeros((), dtype=torch.float64)
    for part in PARTS:
        shared = iter([torch.stack(divisors).sum() / len(PARTS) for divisors in zip(*own, strict=True)])
        with shared_divisors(lambda _, shared=shared: next(shared), processes=processes):
            total = total + loss(part) / len(PARTS)
    return total, torch.autograd.grad(total, given)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", TERMS)
def test_shared_divisors_unequal_parts_average_to_the_whole(name: str, fused: bool) -> None:
    logits, border, target = batch()
    term = Term(name=name, **TERMS[name])
    criterion = SegmentationLoss([term], num_classes=3, align_corners=False, fused=fused)

    def loss(part: slice) -> torch.Tensor:
        return criterion(SegOutput(logits[part], border=(border[part],)), target[part]).total

    given = [border if term.output == "border" else logits]
    whole = loss(slice(None))
    found, slopes = averaged(loss, given)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(slopes, torch.autograd.grad(whole, given))
    alone = sum(loss(part) for part in PARTS) / len(PARTS)
    assert not torch.allclose(alone, whole), "the parts must be unequal for this test to say anything"


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: presence_loss(x[:, :, 0, 0], y[:, :3, 0] % 2),
        lambda x, y: logistic_loss(x, (y[:, None, :4, :5] == 1).expand(-1, 3, -1, -1)),
        lambda x, y: sigmoid_focal_loss(x[:, :1], y[:, 2:6, :5] % 2),
    ],
)
def test_shared_divisors_reach_losses_of_other_targets(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    logits, _, target = batch()
    found, slopes = averaged(lambda part: function(logits[part], target[part]), [logits])
    whole = function(logits, target)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(slopes, torch.autograd.grad(whole, [logits]))


def test_shared_divisors_a_share_below_one_divides_too() -> None:
    logits, _, target = batch()
    target[0] = 255
    target[0, 5, 5] = 1  # a single valid pixel, shared by four processes: each divides by a quarter
    criterion = SegmentationLoss([Term(name="a")], num_classes=3, align_corners=False)
    alone = criterion(SegOutput(logits[:1]), target[:1]).total
    with shared_divisors(lambda divisor: divisor / 4):
        assert torch.allclose(criterion(SegOutput(logits[:1]), target[:1]).total, 4 * alone)


def test_shared_divisors_nothing_valid_anywhere_is_zero() -> None:
    logits, _, target = batch()
    criterion = SegmentationLoss([Term(name="a"), Term(name="b", loss="ohem")], num_classes=3, align_corners=False)
    with shared_divisors(lambda divisor: divisor / 2):
        total = criterion(SegOutput(logits), target.fill_(255)).total
    total.backward()
    assert total.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_shared_divisors_end_with_their_block_even_on_an_error() -> None:
    logits, _, target = batch()
    criterion = SegmentationLoss([Term(name="a")], num_classes=3, align_corners=False)
    before = criterion(SegOutput(logits), target).total
    with pytest.raises(RuntimeError, match="stop"), shared_divisors(lambda divisor: 2 * divisor):
        raise RuntimeError("stop")
    assert torch.equal(criterion(SegOutput(logits), target).total, before)


def test_shared_divisors_are_seen_by_a_compiled_criterion() -> None:
    logits, _, target = batch()
    criterion = SegmentationLoss([Term(name="a")], num_classes=3, align_corners=False)
    compiled = torch.compile(lambda x: criterion(SegOutput(x), target).total, fullgraph=True, backend="eager")
    alone = compiled(logits)
    with shared_divisors(lambda divisor: divisor / 2):
        assert torch.allclose(compiled(logits), 2 * alone)

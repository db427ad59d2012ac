import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from perpixel.errors import InvalidValue
from perpixel.losses import (
    cross_entropy,
    dice_loss,
    focal_loss,
    lovasz_softmax_loss,
    ohem_cross_entropy,
    presence_loss,
    sigmoid_focal_loss,
    torchseg_focal_loss,
)

REGION = [dice_loss, lovasz_softmax_loss]
MULTICLASS = [cross_entropy, focal_loss, ohem_cross_entropy, *REGION]
BINARY = [sigmoid_focal_loss, torchseg_focal_loss]


def scores(classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 5, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(0, max(classes, 2), (2, 3, 5), generator=generator)
    target[0, 0, :3] = 255
    return logits, target


@pytest.mark.parametrize("loss", MULTICLASS)
def test_loss_gradient_is_right_with_ignored_and_saturated_pixels(loss) -> None:
    logits, target = scores()
    logits[1, 0, 0, 0] = 40.0
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("loss", BINARY)
def test_binary_loss_gradient_is_right(loss) -> None:
    logits, target = scores(classes=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("loss", [*MULTICLASS, *BINARY])
def test_loss_everything_ignored_is_zero_with_zero_gradient(loss) -> None:
    logits = torch.randn(1, 1 if loss in BINARY else 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("loss", [*MULTICLASS, *BINARY])
def test_loss_ignored_pixels_have_no_effect(loss) -> None:
    logits, target = scores(classes=1 if loss in BINARY else 4)
    changed = logits.clone()
    changed[0, :, 0, :3] = 100.0
    assert torch.equal(loss(logits, target), loss(changed, target))


@given(st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_loss_renaming_the_classes_changes_nothing(order: list[int]) -> None:
    logits, target = scores()
    place = torch.tensor(order)
    renamed = torch.where(target == 255, target, place[target.clamp(max=3)])
    shuffled = torch.empty_like(logits)
    shuffled[:, place] = logits
    for loss in MULTICLASS:
        assert torch.allclose(loss(logits, target), loss(shuffled, renamed))


def test_cross_entropy_equals_pytorch_with_and_without_weights() -> None:
    logits, target = scores()
    weights = [1.0, 2.0, 0.5, 4.0]
    assert torch.allclose(cross_entropy(logits, target), F.cross_entropy(logits, target, ignore_index=255))
    theirs = F.cross_entropy(logits, target, ignore_index=255, weight=torch.tensor(weights, dtype=torch.float64))
    assert torch.allclose(cross_entropy(logits, target, class_weights=weights), theirs)


def test_cross_entropy_segnets_normalisation_divides_by_pixels() -> None:
    logits, target = scores()
    weights = [1.0, 2.0, 0.5, 4.0]
    total = cross_entropy(logits, target, class_weights=weights, reduction="sum")
    by_pixels = cross_entropy(logits, target, class_weights=weights, normalise="pixels")
    assert torch.allclose(by_pixels, total / (target != 255).sum())


def test_cross_entropy_mean_all_counts_ignored_pixels_as_zero() -> None:
    logits, target = scores()
    total = cross_entropy(logits, target, reduction="sum")
    assert torch.allclose(cross_entropy(logits, target, reduction="mean_all"), total / target.numel())


def test_focal_loss_gamma_zero_is_cross_entropy() -> None:
    logits, target = scores()
    assert torch.allclose(focal_loss(logits, target, gamma=0.0), cross_entropy(logits, target))


def test_focal_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[[[0.25]], [[0.75]]]], dtype=torch.float64))
    expected = -(0.75**2) * torch.log(torch.tensor(0.25, dtype=torch.float64))
    assert torch.allclose(focal_loss(logits, torch.zeros(1, 1, 1, dtype=torch.long)), expected)


def test_sigmoid_focal_loss_equals_torchvisions() -> None:
    logits, target = scores(classes=1)
    valid = target != 255
    theirs = torchvision_focal(logits[:, 0][valid], target[valid].double(), reduction="mean")
    assert torch.allclose(sigmoid_focal_loss(logits, target), theirs)


def test_torchseg_focal_loss_pushes_every_score_up() -> None:
    """The published defect, pinned: the gradient is negative for both labels, so minimising raises every score."""
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64).view(1, 1, 5, 5).requires_grad_()
    for label in (0, 1):
        (gradient,) = torch.autograd.grad(torchseg_focal_loss(logits, torch.full((1, 5, 5), label)), logits)
        assert (gradient < 0).all()
    (right,) = torch.autograd.grad(sigmoid_focal_loss(logits, torch.zeros(1, 5, 5)), logits)
    assert (right > 0).all()


def test_ohem_keeps_the_hard_pixels_only() -> None:
    probability = torch.tensor([0.9, 0.6, 0.3, 0.8], dtype=torch.float64)
    logits = torch.log(torch.stack([probability, 1 - probability]))[None, :, None]
    target = torch.zeros(1, 1, 4, dtype=torch.long)
    hard = -torch.log(probability[[1, 2]]).mean()
    assert torch.allclose(ohem_cross_entropy(logits, target, threshold=0.7, min_kept=1), hard)
    three = -torch.log(probability[[1, 2, 3]]).mean()
    assert torch.allclose(ohem_cross_entropy(logits, target, threshold=0.7, min_kept=3), three)


@pytest.mark.parametrize("normalise", ["weights", "pixels"])
def test_ohem_class_weights_weigh_the_kept_pixels_and_choose_none(normalise: str) -> None:
    logits, target = torch.tensor([[[[2.0, 0.0, -1.0]], [[0.0, 0.0, 0.0]]]]), torch.tensor([[[0, 1, 0]]])
    weights = [10.0, 0.5]  # the first pixel is easy (0.88), however much its class weighs
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")[0, 0]
    wanted = 0.5 * losses[1] + 10 * losses[2]
    given = {"threshold": 0.7, "min_kept": 1, "class_weights": weights}
    found = ohem_cross_entropy(logits, target, normalise=normalise, **given)
    assert torch.allclose(found, wanted / (10.5 if normalise == "weights" else 2))
    assert torch.allclose(ohem_cross_entropy(logits, target, reduction="sum", **given), wanted)


def test_ohem_fewer_valid_pixels_than_wanted_keeps_all() -> None:
    logits, target = scores()
    assert torch.allclose(ohem_cross_entropy(logits, target, min_kept=10**6), cross_entropy(logits, target))


def test_presence_loss_is_binary_cross_entropy() -> None:
    values, present = torch.randn(2, 5), torch.randint(0, 2, (2, 5))
    assert torch.allclose(presence_loss(values, present), F.binary_cross_entropy_with_logits(values, present.float()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: cross_entropy(x, y, class_weights=[1.0]), "1 class weights for 4 classes"),
        (lambda x, y: cross_entropy(x, y, normalise="images"), "normalise is 'weights' or 'pixels', got 'images'"),
        (lambda x, y: cross_entropy(x, y, label_smoothing=1.0), r"label_smoothing must lie in \[0, 1\), got 1.0"),
        (lambda x, y: cross_entropy(x, y, reduction="median"), "got 'median'"),
        (lambda x, y: focal_loss(x, y, gamma=-1.0), "gamma must be >= 0, got -1.0"),
        (lambda x, y: sigmoid_focal_loss(x, y, alpha=2.0), r"alpha must lie in \[0, 1\], got 2.0"),
        (lambda x, y: ohem_cross_entropy(x, y, threshold=0.0), r"threshold must lie in \(0, 1\]"),
        (lambda x, y: ohem_cross_entropy(x, y, reduction="mean_all"), "got 'mean_all'"),
        (lambda x, y: ohem_cross_entropy(x, y, class_weights=[1.0]), "1 class weights for 4 classes"),
        (lambda x, y: ohem_cross_entropy(x, y, normalise="pixel"), "normalise is 'weights' or 'pixels', got 'pixel'"),
    ],
)
def test_loss_wrong_argument_is_refused(call, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        call(*scores())


def one_hot_scores(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Scores so certain that softmax gives 0 and 1."""
    return F.one_hot(labels, num_classes).movedim(-1, 1).double() * 500


@pytest.mark.parametrize("loss", REGION)
def test_region_loss_perfect_scores_give_zero(loss) -> None:
    _, target = scores()
    perfect = one_hot_scores(target.masked_fill(target == 255, 0), 4)
    assert loss(perfect, target).item() == pytest.approx(0, abs=1e-12)


def test_lovasz_softmax_certain_scores_give_one_minus_mean_iou_of_present_classes() -> None:
    _, target = scores()
    predicted = scores(seed=1)[1]
    predicted = predicted.masked_fill(predicted == 255, 0)
    valid = target != 255
    ious = [
        ((predicted == k) & (target == k) & valid).sum() / (((predicted == k) | (target == k)) & valid).sum()
        for k in target[valid].unique()
    ]
    wanted = 1 - sum(ious) / len(ious)
    assert lovasz_softmax_loss(one_hot_scores(predicted, 4), target).item() == pytest.approx(wanted.item(), abs=1e-7)


def test_dice_two_pixels_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0]], [[0.0, 0.0]]]], dtype=torch.float64)  # p = 1/2 everywhere
    target = torch.tensor([[[0, 0]]])
    # Class 0: |P T| = 1, |P| = 1, |T| = 2, so 1 - 2/3. Class 1 is absent: left out, or 1 - 0/1.
    assert dice_loss(logits, target, smooth=0.0).item() == pytest.approx(1 / 3)
    assert dice_loss(logits, target, smooth=0.0, classes="all").item() == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("loss", REGION)
def test_region_loss_unknown_choice_is_refused(loss) -> None:
    logits, target = scores()
    with pytest.raises(InvalidValue, match=r"classes is 'present' or 'all'.*, got 'some'"):
        loss(logits, target, classes="some")
    with pytest.raises(InvalidValue, match="has the reduction 'mean_valid', got 'sum'"):
        loss(logits, target, reduction="sum")


def test_dice_negative_smoothing_is_refused() -> None:
    logits, target = scores()
    with pytest.raises(InvalidValue, match="smooth must be >= 0, got -1"):
        dice_loss(logits, target, smooth=-1)

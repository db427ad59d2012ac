import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss, cross_entropy, sigmoid_focal_loss, with_class_weights
from perpixel.ops import border_targets, resize, resize_labels
from perpixel.types import SegOutput, Term


def output() -> SegOutput:
    torch.manual_seed(0)
    return SegOutput(
        torch.randn(2, 3, 8, 8),
        deep=(torch.randn(2, 3, 4, 4),),
        border=(torch.randn(2, 1, 8, 8),),
        presence=(torch.randn(2, 3),),
    )


def target() -> torch.Tensor:
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels[:, :, 16:] = 2
    labels[:, :2] = 255
    return labels


def loss(*terms: Term, align_corners: bool = True, margin: int = 0) -> SegmentationLoss:
    return SegmentationLoss(terms, num_classes=3, align_corners=align_corners, margin=margin)


def test_parts_are_weighted_and_add_up() -> None:
    terms = (
        Term(name="main"),
        Term(name="deep", output="deep", weight=0.4, at="logits"),
        Term(name="border", output="border", loss="border_focal", weight=0.1, options={"radius": 2}),
        Term(name="presence", output="presence", loss="presence", weight=0.2),
    )
    out, labels = output(), target()
    value = loss(*terms)(out, labels)
    full = resize(out.logits, (32, 32), align_corners=True)
    assert torch.allclose(value.parts["main"], cross_entropy(full, labels))
    coarse = resize_labels(labels, (4, 4), align_corners=True)
    assert torch.allclose(value.parts["deep"], 0.4 * cross_entropy(out.deep[0], coarse))
    borders = border_targets(labels, radius=2)
    border = resize(out.border[0], (32, 32), align_corners=True)
    assert torch.allclose(value.parts["border"], 0.1 * sigmoid_focal_loss(border, borders))
    assert torch.allclose(value.total, sum(value.parts.values()))


def test_margin_crops_the_target() -> None:
    out = SegOutput(torch.randn(2, 3, 24, 24))
    value = loss(Term(name="main"), margin=4)(out, target())
    assert torch.allclose(value.total, cross_entropy(out.logits, target()[:, 4:-4, 4:-4]))


def test_half_precision_scores_give_a_float32_loss() -> None:
    out = SegOutput(torch.randn(2, 3, 8, 8, dtype=torch.bfloat16))
    assert loss(Term(name="main"))(out, target()).total.dtype == torch.float32


def test_with_class_weights_reaches_cross_entropy_on_hard_pixels() -> None:
    (weighted,) = with_class_weights([Term(name="a", loss="ohem", options={"threshold": 0.9})], [1.0, 2.0])
    assert weighted.options == {"threshold": 0.9, "class_weights": [1.0, 2.0]}


def test_with_class_weights_reaches_every_plain_cross_entropy() -> None:
    terms = (Term(name="a"), Term(name="b", loss="focal"), Term(name="c", options={"class_weights": [1, 1, 1]}))
    weighted = with_class_weights(terms, [1.0, 2.0, 3.0])
    assert weighted[0].options == {"class_weights": [1.0, 2.0, 3.0]}
    assert weighted[1:] == terms[1:]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((), "at least one term"),
        ((Term(name="a"), Term(name="a")), "names of loss terms must differ"),
        ((Term(name="a", loss="focl"),), "unknown loss 'focl'; did you mean 'focal'"),
        ((Term(name="a", options={"gama": 1}),), "has no option 'gama'"),
        ((Term(name="a", loss="presence"),), "does not fit output 'logits'"),
    ],
)
def test_wrong_terms_are_refused(terms: tuple[Term, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        loss(*terms)


def test_term_of_an_output_that_the_network_lacks_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"wants deep\[4\], but the network gives 1"):
        loss(Term(name="a", output="deep", index=4))(output(), target())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": "edges"}, "output is one of"),
        ({"at": "nowhere"}, "at is one of"),
        ({"reduction": "max"}, "reduction is one of"),
        ({"index": 1}, r"there is no logits\[1\]"),
        ({"weight": 0.0}, "weight must be positive"),
    ],
)
def test_term_wrong_field_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Term(name="a", **change)  # type: ignore[arg-type]

"""SegmentationLoss: terms on small scores give the same value and gradient whether the scores are upsampled or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from perpixel.build.memory_estimate import _LiveBytes
from perpixel.errors import InvalidValue
from perpixel.losses import LOSSES, SegmentationLoss, segmentation_loss
from perpixel.losses.pixel_nll import FullSizeNll, UpsampledNll
from perpixel.ops import full_size_nll
from perpixel.types import SegOutput, Term

WEIGHTS = [0.5, 2.0, 1.0, 3.0]
TERMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mean over all": {"reduction": "mean_all"},
    "sum": {"reduction": "sum"},
    "class weights": {"options": {"class_weights": WEIGHTS}},
    "class weights, by pixels": {"options": {"class_weights": WEIGHTS, "normalise": "pixels"}},
    "class weights, mean over all": {"options": {"class_weights": WEIGHTS}, "reduction": "mean_all"},
    "smoothing": {"options": {"label_smoothing": 0.1}},
    "smoothing with class weights": {"options": {"label_smoothing": 0.1, "class_weights": WEIGHTS}},
    "smoothing by pixels": {"options": {"label_smoothing": 0.2, "class_weights": WEIGHTS, "normalise": "pixels"}},
    "focal": {"loss": "focal"},
    "focal, half": {"loss": "focal", "options": {"gamma": 0.5}, "reduction": "sum"},
    "hard pixels": {"loss": "ohem", "options": {"threshold": 0.4, "min_kept": 40}},
    "all pixels are hard": {"loss": "ohem", "options": {"min_kept": 10**6}},
    "no least number": {"loss": "ohem", "options": {"threshold": 0.3, "min_kept": 0}, "reduction": "sum"},
    "hard pixels, class weights": {"loss": "ohem", "options": {"min_kept": 40, "class_weights": WEIGHTS}},
    "hard pixels, by number": {
        "loss": "ohem",
        "options": {"min_kept": 40, "class_weights": WEIGHTS, "normalise": "pixels"},
    },
    "pixel weights": {"loss": "distance_weighted", "options": {"w0": 4.0, "sigma": 2.0}},
    "pixel and class weights": {
        "loss": "distance_weighted",
        "options": {"balance": "none", "class_weights": WEIGHTS},
        "reduction": "sum",
    },
}


def scores(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64).mul_(2).to(dtype).requires_grad_()


def full_size_scores(memory_format: torch.memory_format, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    enlarged = torch.nn.functional.interpolate(scores().detach(), (24, 31), mode="bilinear")
    return enlarged.to(dtype).contiguous(memory_format=memory_format).requires_grad_()


def labels() -> torch.Tensor:
    target = torch.zeros(2, 24, 31, dtype=torch.uint8)
    target[:, 3:11, 4:13] = 1
    target[:, 3:11, 18:29] = 2
    target[1, 15:21, 2:27] = 3
    target[0, :3] = 255
    return target


def value(term: Term, logits: torch.Tensor, target: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    settings = {"num_classes": logits.shape[1], "align_corners": True, **options}
    total = SegmentationLoss([term], **settings)(SegOutput(logits), target).total
    return total, torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("align_corners", [True, False])
def test_fused_term_gives_the_value_and_gradient_of_the_plain_one(name: str, align_corners: bool) -> None:
    term, logits, target = Term(name=name, **TERMS[name]), scores(), labels()
    fused = value(term, logits, target, align_corners=align_corners)
    plain = value(term, logits, target, align_corners=align_corners, fused=False)
    torch.testing.assert_close(fused[0], plain[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused[1], plain[1], rtol=1e-10, atol=1e-12)
    assert plain[1].any()


def test_fused_terms_cover_every_loss_that_states_how() -> None:
    tried = {TERMS[name].get("loss", "cross_entropy") for name in TERMS}
    assert tried == {name for name, entry in LOSSES.items() if entry.from_nll is not None}


@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.from_nll is not None])
def test_loss_takes_the_same_options_from_scores_and_from_nll(name: str) -> None:
    entry = LOSSES[name]
    assert entry.from_nll is not None
    plain, fused = (list(inspect.signature(f).parameters.values()) for f in (entry.function, entry.from_nll))
    assert plain[1:] == fused[1:]


def test_fused_term_in_float32_is_within_a_millionth() -> None:
    term, target = Term(name="main"), labels()
    fused, plain = value(term, scores(torch.float32), target), value(term, scores(torch.float32), target, fused=False)
    assert fused[0].item() == pytest.approx(plain[0].item(), rel=1e-6)
    assert (fused[1] - plain[1]).abs().max() <= 1e-5 * plain[1].abs().max()


@pytest.mark.parametrize(
    ("term", "size", "fused", "taken"),
    [
        (Term(name="a"), (10, 12), True, True),
        (Term(name="a"), (10, 12), False, False),
        (Term(name="a"), (5, 6), True, False),
        (Term(name="a"), (4, 6), True, False),
        (Term(name="a", at="logits"), (10, 12), True, False),
        (Term(name="a", loss="dice"), (10, 12), True, False),
    ],
)
def test_fused_form_is_taken_where_scores_are_smaller_than_the_target(
    term: Term, size: tuple[int, int], fused: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def watched(*inputs: Any, **places: Any) -> UpsampledNll:
        made.append(inputs)
        return UpsampledNll(*inputs, **places)

    monkeypatch.setattr(segmentation_loss, "UpsampledNll", watched)
    value(term, scores(), torch.zeros(2, *size, dtype=torch.uint8), fused=fused)
    assert bool(made) is taken


@pytest.mark.parametrize("name", ["plain", "focal", "class weights", "smoothing", "hard pixels", "pixel weights"])
def test_fused_term_all_ignored_is_zero_with_zero_gradient(name: str) -> None:
    total, slope = value(Term(name=name, **TERMS[name]), scores(), torch.full((2, 24, 31), 255))
    assert total.item() == 0
    assert not slope.any()


def test_fused_term_half_precision_scores_give_a_float32_loss_and_their_own_gradient() -> None:
    total, slope = value(Term(name="main"), scores(torch.bfloat16), labels())
    assert (total.dtype, slope.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("options", [{}, {"class_weights": WEIGHTS}])
def test_fused_term_label_that_is_no_class_is_refused(options: dict[str, Any]) -> None:
    target = labels()
    target[1, 2, 3] = 4
    with pytest.raises(InvalidValue, match=r"\(1, 2, 3\) is 4; labels lie in \[0, 4\) or are 255"):
        value(Term(name="main", options=options), scores(), target)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_full_size_term_gives_the_value_and_gradient_of_the_plain_one(
    name: str, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_size_nll, "_LEAST_CLASSES_OF_MAPS", 2)
    term, logits, target = Term(name=name, **TERMS[name]), full_size_scores(memory_format), labels()
    fused, plain = value(term, logits, target), value(term, logits, target, fused=False)
    torch.testing.assert_close(fused[0], plain[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused[1], plain[1], rtol=1e-10, atol=1e-12)
    assert plain[1].any()


@pytest.mark.parametrize("term", [Term(name="a"), Term(name="a", loss="ohem"), Term(name="a", at="logits")])
@pytest.mark.parametrize("fused", [True, False])
def test_full_size_term_takes_the_scores_as_they_are_unless_told_to_be_plain(
    term: Term, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[torch.Tensor, bool]] = []

    def watched(logits: torch.Tensor, *inputs: Any, **places: Any) -> FullSizeNll:
        made.append((logits, places["fused"]))
        return FullSizeNll(logits, *inputs, **places)

    monkeypatch.setattr(segmentation_loss, "FullSizeNll", watched)
    logits = full_size_scores(torch.channels_last, torch.bfloat16)
    total, slope = value(term, logits, labels(), fused=fused)
    ((seen, pieces),) = made
    assert seen is logits and pieces is fused
    assert (total.dtype, slope.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("name", ["plain", "focal", "hard pixels", "class weights", "smoothing"])
def test_full_size_term_all_ignored_is_zero_with_zero_gradient(name: str) -> None:
    logits = full_size_scores(torch.channels_last)
    total, slope = value(Term(name=name, **TERMS[name]), logits, torch.full((2, 24, 31), 255))
    assert total.item() == 0
    assert not slope.any()


@pytest.mark.parametrize("name", ["plain", "hard pixels", "class weights"])
def test_full_size_term_label_that_is_no_class_is_refused(name: str) -> None:
    target = labels()
    target[1, 2, 3] = 4
    with pytest.raises(InvalidValue, match=r"\(1, 2, 3\) is 4; labels lie in \[0, 4\) or are 255"):
        value(Term(name=name, **TERMS[name]), full_size_scores(torch.channels_last), target)


@pytest.mark.parametrize("made", [scores, lambda: full_size_scores(torch.channels_last)])
def test_criterion_compiles_with_fused_terms(made: Callable[[], torch.Tensor]) -> None:
    terms = [
        Term(name="main", options={"class_weights": WEIGHTS, "label_smoothing": 0.1}),
        Term(name="hard", loss="ohem", options={"min_kept": 40}),
        Term(name="focal", loss="focal"),
    ]
    criterion = SegmentationLoss(terms, num_classes=4, align_corners=False)
    logits, target = made(), labels()

    def total(x: torch.Tensor) -> torch.Tensor:
        return criterion(SegOutput(2 * x), target).total

    found, wanted = torch.compile(total, fullgraph=True, backend="aot_eager")(logits), total(logits)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(wanted, logits))


@pytest.mark.parametrize("classes", [21, 150])
def test_fused_terms_of_four_stages_take_less_than_a_tenth_of_their_score_maps(classes: int) -> None:
    """DFN at 512 x 512 in batches of 32, counted on fake tensors: what the loss holds at its peak, gradients too."""
    size, batch = 512, 32
    with FakeTensorMode():
        scores = [torch.empty(batch, classes, size // s, size // s, requires_grad=True) for s in (4, 8, 16, 32)]
        target = torch.empty(batch, size, size, dtype=torch.uint8)
        terms = [Term(name="main"), *(Term(name=f"deep{i}", output="deep", index=i) for i in range(3))]
        criterion = SegmentationLoss(terms, num_classes=classes, align_corners=True)
        with _LiveBytes([*scores, target]) as live:
            criterion(SegOutput(scores[0], deep=tuple(scores[1:])), target).total.backward()
    assert 0 < live.peak < 0.1 * 4 * batch * classes * size * size * 4


def test_full_size_cross_entropy_of_bfloat16_scores_adds_no_more_than_their_gradient() -> None:
    """U-Net at 512 x 512, counted on fake tensors: what the loss holds at its peak, the gradient too."""
    with FakeTensorMode():
        logits = torch.empty(8, 21, 512, 512, dtype=torch.bfloat16, requires_grad=True)
        target = torch.empty(8, 512, 512, dtype=torch.uint8)
        criterion = SegmentationLoss([Term(name="main")], num_classes=21, align_corners=True)
        with _LiveBytes([logits, target]) as live:
            criterion(SegOutput(logits), target).total.backward()
    assert 0 < live.peak < 1.1 * 2 * logits.numel()

"""full_size_nll: its values and gradients are those of PyTorch's losses, however scores lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from perpixel.errors import InvalidValue
from perpixel.ops import full_size_nll as room
from perpixel.ops import nll_pieces
from perpixel.ops.full_size_nll import (
    full_size_nll,
    full_size_nll_total,
    plain_full_size_nll,
    plain_full_size_nll_total,
)

LAYOUTS = ["contiguous", "channels_last", "neither"]
CLASSES = [2, 5, 17]  # too few to gain, planes, rows where they are channels_last


CONSTANTS = [(room, "_LEAST_CLASSES_OF_MAPS"), (room, "_LEAST_CLASSES_OF_A_TOTAL"), (nll_pieces, "_PIECE_SCORES")]
MEASURED = [getattr(module, name) for module, name in CONSTANTS]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers of classes are worked out in pieces too, and several of an image."""
    for (module, name), value in zip(CONSTANTS, (2, 2, 150), strict=True):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def as_measured(small_pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that the module states."""
    for (module, name), value in zip(CONSTANTS, MEASURED, strict=True):
        monkeypatch.setattr(module, name, value)


def laid_out(logits: torch.Tensor, layout: str) -> torch.Tensor:
    if layout == "contiguous":
        return logits.contiguous()
    if layout == "channels_last":
        return logits.contiguous(memory_format=torch.channels_last)
    return logits.transpose(2, 3).contiguous().transpose(2, 3)


def problem(
    classes: int = 5, dtype: torch.dtype = torch.float64, layout: str = "contiguous", size: tuple[int, int] = (7, 9)
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, *size, generator=generator, dtype=torch.float64).mul_(3).to(dtype)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    target[0, 0] = 255
    return laid_out(logits, layout).requires_grad_(), target


def gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, logits)[0]


def upstream(nll: torch.Tensor, spread: torch.Tensor | None) -> torch.Tensor:
    """A scalar by which every pixel of both maps pulls differently."""
    pulls = torch.linspace(0.1, 2, nll.numel(), dtype=nll.dtype).view_as(nll)
    return (nll * pulls).sum() + (0 if spread is None else (spread * pulls.flip(-1) * nll.detach()).sum())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("piece", [1, 150, 1 << 18])
def test_full_size_nll_maps_and_gradients_are_the_plain_forms(
    classes: int, layout: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nll_pieces, "_PIECE_SCORES", piece)
    logits, target = problem(classes, layout=layout)
    for mix in (None, torch.linspace(0, 1, classes)):
        found, wanted = (f(logits, target, class_mix=mix) for f in (full_size_nll, plain_full_size_nll))
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(upstream(*found), logits), gradient(upstream(*wanted), logits))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("focus", [0.0, 2.0])
def test_full_size_nll_total_and_its_gradient_are_the_plain_forms(
    classes: int, layout: str, weighted: bool, focus: float
) -> None:
    logits, target = problem(classes, layout=layout)
    weight = torch.rand(target.shape) if weighted else None
    for mix in (None, torch.linspace(0, 1, classes)):
        forms = (full_size_nll_total, plain_full_size_nll_total)
        found, wanted = (f(logits, target, weight, own=0.7, class_mix=mix, focus=focus) for f in forms)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(3 * found, logits), gradient(3 * wanted, logits))


@pytest.mark.usefixtures("as_measured")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [3, 4, 12, 21])
def test_full_size_nll_in_float32_is_as_near_to_float64_as_promised(classes: int, layout: str) -> None:
    logits, target = problem(classes, torch.float32, layout, size=(60, 70))
    exact = logits.detach().double().requires_grad_()
    wanted = plain_full_size_nll_total(exact, target)
    slope = gradient(wanted, exact)
    for found in (full_size_nll(logits, target)[0].sum(), full_size_nll_total(logits, target)):
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
        assert (gradient(found, logits) - slope).abs().max() <= 1e-5 * slope.abs().max()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("classes", [3, 17])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_full_size_nll_half_precision_scores_are_computed_in_float32(
    dtype: torch.dtype, classes: int, layout: str
) -> None:
    logits, target = problem(classes, dtype, layout)
    exact = logits.detach().float().requires_grad_()
    wanted = full_size_nll(exact, target)[0]
    slope = gradient(wanted.sum() / 7, exact)
    with torch.autocast("cpu", torch.bfloat16):
        found = full_size_nll(logits, target)[0]
        total = full_size_nll_total(logits, target)
    assert torch.equal(found, wanted)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, wanted.sum())
    once = torch.finfo(dtype).eps / 2
    assert torch.equal(gradient(found.sum() / 7, logits), slope.to(dtype))
    rounded = gradient(total / 7, logits)
    assert rounded.dtype == dtype
    torch.testing.assert_close(rounded.float(), slope, rtol=2.1 * once, atol=1e-7)


@pytest.mark.parametrize("classes", [5, 17])
def test_full_size_nll_gradcheck(classes: int) -> None:
    logits, target = problem(classes, layout="channels_last", size=(3, 2))
    mix = torch.rand(classes)
    weight = torch.rand(target.shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: full_size_nll(x, target, class_mix=mix), logits)
    for focus in (0.0, 1.5):
        assert torch.autograd.gradcheck(
            lambda x, g=focus: full_size_nll_total(x, target, weight, class_mix=mix, focus=g), logits
        )


def test_full_size_nll_only_the_second_map_used_has_its_gradient() -> None:
    logits, target = problem()
    mix = torch.linspace(0, 1, 5)
    found, wanted = (f(logits, target, class_mix=mix)[1] for f in (full_size_nll, plain_full_size_nll))
    assert found is not None and wanted is not None
    torch.testing.assert_close(gradient(found.sum(), logits), gradient(wanted.sum(), logits))


@pytest.mark.parametrize("classes", CLASSES)
def test_full_size_nll_all_ignored_is_zero_with_zero_gradient(classes: int) -> None:
    logits, target = problem(classes, layout="channels_last")
    target.fill_(255)
    for value in (full_size_nll(logits, target)[0].sum(), full_size_nll_total(logits, target)):
        assert value.item() == 0
        assert not gradient(value, logits).any()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("classes", [5, 17])
def test_full_size_nll_scores_far_apart_neither_overflow_nor_vanish(classes: int, layout: str) -> None:
    logits, target = problem(classes, torch.float32, layout)
    far = logits.detach().mul(1000).requires_grad_()
    for f, plain in ((full_size_nll_total, plain_full_size_nll_total),):
        found, wanted = f(far, target), plain(far, target)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(gradient(found, far), gradient(wanted, far))


@pytest.mark.parametrize("ignore_index", [-1, 2, 255, 1000])
@pytest.mark.parametrize("classes", [5, 17])
def test_full_size_nll_ignores_any_label_that_it_is_told_to(ignore_index: int, classes: int) -> None:
    logits, target = problem(classes)
    target = target.masked_fill(target == 255, ignore_index)
    found, wanted = (
        f(logits, target, ignore_index=ignore_index) for f in (full_size_nll_total, plain_full_size_nll_total)
    )
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient(found, logits), gradient(wanted, logits))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size_nll_takes_any_label_dtype_and_strides_and_changes_no_input(layout: str) -> None:
    logits, target = problem(17, torch.float32, layout)
    wanted = plain_full_size_nll(logits, target)[0]
    before = (logits.detach().clone(), target.clone())
    for labels in (target, target.to(torch.uint8), target.to(torch.int16).transpose(1, 2).contiguous().transpose(1, 2)):
        weight = torch.ones(2, 9, 7).transpose(1, 2)
        torch.testing.assert_close(full_size_nll(logits, labels)[0], wanted)
        total = full_size_nll_total(logits, labels, weight)
        torch.testing.assert_close(total, wanted.sum())
        assert gradient(total, logits).any()
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


@pytest.mark.parametrize("function", [full_size_nll, full_size_nll_total])
def test_full_size_nll_gradient_lies_in_memory_as_the_scores(function: Any) -> None:
    for layout in ("contiguous", "channels_last"):
        logits, target = problem(17, torch.bfloat16, layout)
        found = function(logits * 1, target)
        slope = gradient((found[0] if isinstance(found, tuple) else found).sum(), logits)
        assert slope.stride() == logits.stride()


def test_full_size_nll_total_backward_again_gives_the_same_gradient() -> None:
    logits, target = problem(5)
    total = full_size_nll_total(logits, target, torch.rand(target.shape), own=0.3, class_mix=torch.ones(5))
    first = torch.autograd.grad(2 * total, logits, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(2 * total, logits, retain_graph=True)[0]
    assert torch.equal(second, kept) and torch.equal(first, kept)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("classes", [5, 17])
def test_full_size_nll_pieces_shared_out_to_threads_change_no_bit(classes: int, three_threads: None) -> None:
    logits, target = problem(classes, layout="channels_last")

    def found() -> list[torch.Tensor]:
        nll, total = full_size_nll(logits, target)[0], full_size_nll_total(logits, target)
        return [nll, total, gradient(nll.sum(), logits), gradient(total, logits)]

    several = found()
    assert torch.get_num_threads() == 3
    with torch.inference_mode():
        assert torch.equal(full_size_nll_total(logits, target), several[1])
    target[1, 2, 3] = classes
    with pytest.raises(InvalidValue, match=r"\(1, 2, 3\)"):
        full_size_nll_total(logits, target)
    target[1, 2, 3] = problem(classes)[1][1, 2, 3]
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(several, found(), strict=True))


def test_full_size_nll_holds_in_deterministic_mode() -> None:
    logits, target = problem(17, torch.float32, "channels_last")
    wanted = full_size_nll_total(logits, target)
    slope = gradient(wanted, logits)
    torch.use_deterministic_algorithms(True)
    try:
        found = full_size_nll_total(logits, target)
        assert torch.equal(found, wanted) and torch.equal(gradient(found, logits), slope)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("classes", [2, 5, 17])
def test_full_size_nll_compiles_as_one_node(backend: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_LEAST_CLASSES_OF_MAPS", 3)
    monkeypatch.setattr(room, "_LEAST_CLASSES_OF_A_TOTAL", 3)
    logits, target = problem(classes, layout="channels_last")

    def value(x: torch.Tensor) -> torch.Tensor:
        nll, spread = full_size_nll(2 * x, target, class_mix=torch.ones(classes))
        assert spread is not None
        return nll.sum() + spread.square().sum() + 3 * full_size_nll_total(x.sin(), target, focus=2.0)

    found = torch.compile(value, fullgraph=True, backend=backend)(logits)
    torch.testing.assert_close(found, value(logits))
    torch.testing.assert_close(gradient(found, logits), gradient(value(logits), logits))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size_nll_fake_tensors_have_the_shapes_dtypes_and_strides_of_real_ones(
    layout: str, dtype: torch.dtype
) -> None:
    def outputs() -> list[tuple[Any, ...]]:
        logits, target = torch.zeros(2, 17, 7, 9, dtype=dtype), torch.zeros(2, 7, 9, dtype=torch.uint8)
        logits = laid_out(logits, layout).requires_grad_()
        nll, spread = full_size_nll(logits, target, class_mix=torch.ones(17))
        total = full_size_nll_total(logits, target)
        assert spread is not None
        made = [nll, spread, total, gradient(nll.sum() + spread.sum(), logits), gradient(total, logits)]
        return [(x.shape, x.dtype, x.stride()) for x in made]

    real = outputs()
    with FakeTensorMode():
        assert outputs() == real


def test_full_size_nll_total_without_a_gradient_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = nll_pieces.total_in_pieces

    def watched(*inputs: Any) -> torch.Tensor:
        made.append(inputs[-1])
        return real(*inputs)

    monkeypatch.setattr(room, "total_in_pieces", watched)
    logits, target = problem()
    with torch.no_grad():
        silent = full_size_nll_total(logits, target)
    assert torch.equal(silent, full_size_nll_total(logits, target).detach())
    assert made[0] is None and made[1] is not None


@pytest.mark.usefixtures("as_measured")
@pytest.mark.parametrize(
    ("function", "pieces", "classes", "taken"),
    [
        (full_size_nll, "maps_in_pieces", 15, False),
        (full_size_nll, "maps_in_pieces", 16, True),
        (full_size_nll_total, "total_in_pieces", 3, False),
        (full_size_nll_total, "total_in_pieces", 4, True),
    ],
)
def test_full_size_nll_of_few_classes_goes_the_plain_way(
    function: Any, pieces: str, classes: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def refuse(*_: Any) -> None:
        raise Asked

    monkeypatch.setattr(room, pieces, refuse)
    if taken:
        with pytest.raises(Asked):
            function(*problem(classes))
    else:
        function(*problem(classes))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (0, 5, 4, 4), (2, 5, 3, 4, 2)])
def test_full_size_nll_of_other_numbers_of_axes_goes_the_plain_way(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 5, (shape[0], *shape[2:]))
    mix = torch.ones(5, dtype=torch.float64)
    found = full_size_nll_total(logits, target, class_mix=mix)
    log_p = torch.log_softmax(logits, 1)
    wanted = torch.nn.functional.nll_loss(log_p, target, reduction="sum") - log_p.sum()
    torch.testing.assert_close(found, wanted)
    assert full_size_nll(logits, target)[0].shape == target.shape


@pytest.mark.usefixtures("as_measured")
@pytest.mark.parametrize("function", [full_size_nll, full_size_nll_total])
@pytest.mark.parametrize("classes", [3, 5, 17])
@pytest.mark.parametrize("past", [0, -1])
def test_full_size_nll_label_that_is_no_class_is_refused_with_its_place(function: Any, classes: int, past: int) -> None:
    logits, target = problem(classes)
    wrong = -1 if past else classes
    target[1, 2, 3] = wrong
    with pytest.raises(InvalidValue, match=rf"\(1, 2, 3\) is {wrong}; labels lie in \[0, {classes}\) or are 255"):
        function(logits, target)
    target.masked_fill_(target == 255, wrong)
    function(logits, target, ignore_index=wrong)  # as the label to ignore it is welcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 8, 8, dtype=torch.long)}, r"got \(2, 3, 8, 8\) torch.int64"),
        ({"target": torch.zeros(1, 8, 8, dtype=torch.long)}, r"labels are whole numbers \(B, H, W\) for scores"),
        ({"target": torch.zeros(2, 8, 8)}, r"got \(2, 8, 8\) torch.float32"),
        ({"target": torch.zeros(2, 8, 9, dtype=torch.long)}, r"\(2, 8, 9\) are not at the size of the scores"),
        ({"class_mix": torch.ones(4)}, "one value for each of 3 classes, got 4"),
        ({"weight": torch.ones(2, 4, 8)}, r"weights \(2, 4, 8\) and labels \(2, 8, 8\) differ"),
    ],
)
def test_full_size_nll_inputs_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    given = {"logits": torch.zeros(2, 3, 8, 8), "target": torch.zeros(2, 8, 8, dtype=torch.long), **change}
    with pytest.raises(InvalidValue, match=message):
        full_size_nll_total(**given)
    if "weight" not in change:
        with pytest.raises(InvalidValue, match=message):
            full_size_nll(**given)

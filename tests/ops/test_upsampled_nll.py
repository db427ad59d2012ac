"""upsampled_nll: its values and gradients are those of interpolation and softmax, whatever the sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.ops import banded_nll
from perpixel.ops.upsampled_nll import plain_upsampled_nll, upsampled_nll, upsampled_nll_total

# h, w -> H, W: enlarged by whole and odd ratios, of one cell, unchanged, shrunk, and shrunk along one axis only
SIZES = [((3, 4), (24, 32)), ((3, 4), (10, 13)), ((1, 1), (5, 6)), ((4, 5), (4, 5)), ((6, 7), (3, 5)), ((1, 4), (7, 3))]


def problem(
    cells: tuple[int, int], pixels: tuple[int, int], *, classes: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, *cells, generator=generator, dtype=torch.float64).mul_(3).to(dtype)
    target = torch.randint(0, classes, (2, *pixels), generator=generator)
    target[0, 0] = 255
    return logits.requires_grad_(), target


def gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, logits)[0]


def upstream(nll: torch.Tensor, spread: torch.Tensor | None) -> torch.Tensor:
    """A scalar by which every pixel of both maps pulls differently."""
    pulls = torch.linspace(0.1, 2, nll.numel(), dtype=nll.dtype).view_as(nll)
    return (nll * pulls).sum() + (0 if spread is None else (spread * pulls.flip(-1) * nll.detach()).sum())


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("cells", "pixels"), SIZES)
@pytest.mark.parametrize("band_scores", [1, 1 << 17])
def test_upsampled_nll_maps_and_gradients_are_the_plain_forms(
    cells: tuple[int, int],
    pixels: tuple[int, int],
    align_corners: bool,
    band_scores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(banded_nll, "_BAND_SCORES", band_scores)  # many bands, slabs and blocks, or one
    monkeypatch.setattr(banded_nll, "_SLAB_SCORES", band_scores)
    monkeypatch.setattr(banded_nll, "_BLOCK_PIXELS", 5 if band_scores == 1 else 128)
    logits, target = problem(cells, pixels)
    for mix in (None, torch.linspace(0, 1, 5)):
        fused = upsampled_nll(logits, target, align_corners=align_corners, class_mix=mix)
        plain = plain_upsampled_nll(logits, target, align_corners=align_corners, class_mix=mix)
        torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(upstream(*fused), logits), gradient(upstream(*plain), logits))
        weight = torch.rand(target.shape)
        total = upsampled_nll_total(logits, target, weight, align_corners=align_corners, own=0.7, class_mix=mix)
        wanted = 0.7 * (plain[0] * weight).sum() + (0 if plain[1] is None else plain[1].sum())
        torch.testing.assert_close(total, wanted)
        again = plain_upsampled_nll(logits, target, align_corners=align_corners, class_mix=mix)
        wanted = 0.7 * (again[0] * weight).sum() + (0 if again[1] is None else again[1].sum())
        torch.testing.assert_close(gradient(3 * total, logits), gradient(3 * wanted, logits))


@pytest.mark.parametrize("align_corners", [True, False])
def test_upsampled_nll_in_float32_is_as_near_to_float64_as_promised(align_corners: bool) -> None:
    logits, target = problem((9, 11), (70, 83), classes=21, dtype=torch.float32)
    exact = logits.detach().double().requires_grad_()
    wanted = plain_upsampled_nll(exact, target, align_corners=align_corners)[0].sum()
    slope = gradient(wanted, exact)
    maps = upsampled_nll(logits, target, align_corners=align_corners)[0].sum()
    for found in (maps, upsampled_nll_total(logits, target, align_corners=align_corners)):
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
        assert (gradient(found, logits) - slope).abs().max() <= 1e-6 * slope.abs().max()


def test_upsampled_nll_gradcheck() -> None:
    logits, target = problem((2, 2), (5, 4), classes=3)
    mix = torch.tensor([0.2, 0.3, 0.1])
    weight = torch.rand(target.shape, dtype=torch.float64)
    for corners in (True, False):
        places: dict[str, Any] = {"align_corners": corners, "class_mix": mix}
        assert torch.autograd.gradcheck(lambda x, at=places: upsampled_nll(x, target, **at), logits)
        assert torch.autograd.gradcheck(lambda x, at=places: upsampled_nll_total(x, target, weight, **at), logits)


def test_upsampled_nll_only_the_second_map_used_has_its_gradient() -> None:
    logits, target = problem((3, 4), (10, 13))
    mix = torch.linspace(0, 1, 5)
    both = (upsampled_nll, plain_upsampled_nll)
    found, wanted = (f(logits, target, align_corners=True, class_mix=mix)[1] for f in both)
    assert found is not None and wanted is not None
    torch.testing.assert_close(gradient(found.sum(), logits), gradient(wanted.sum(), logits))


def test_upsampled_nll_all_ignored_is_zero_with_zero_gradient() -> None:
    logits, target = problem((3, 4), (10, 13))
    target.fill_(255)
    nll = upsampled_nll(logits, target, align_corners=False)[0]
    total = upsampled_nll_total(logits, target, align_corners=False)
    for value in (nll.sum(), total):
        assert value.item() == 0
        assert not gradient(value, logits).any()


def test_upsampled_nll_where_all_classes_underflow_searches_for_the_highest() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 1000.0  # between the cells both classes lie 500 below the cells' best
    logits.requires_grad_()
    target = torch.tensor([[[0, 0, 0, 1, 1]]])
    found, wanted = (f(logits, target, align_corners=True)[0] for f in (upsampled_nll, plain_upsampled_nll))
    assert found[0, 0, 2].item() == pytest.approx(0.6931472)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient(found.sum(), logits), gradient(wanted.sum(), logits))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_upsampled_nll_images_shared_out_to_threads_change_no_bit(images: int, three_threads: None) -> None:
    logits, target = (x.repeat(3, *[1] * (x.ndim - 1))[:images] for x in problem((3, 4), (24, 32)))
    logits = logits.detach().mul(torch.arange(1.0, images + 1)[:, None, None, None]).requires_grad_()

    def found() -> list[torch.Tensor]:
        nll = upsampled_nll(logits, target, align_corners=False)[0]
        total = upsampled_nll_total(logits, target, align_corners=False)
        return [nll, total, gradient(nll.sum(), logits), gradient(total, logits)]

    several = found()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(several, found(), strict=True))


def test_upsampled_nll_works_in_inference_mode_and_with_threads(three_threads: None) -> None:
    logits, target = problem((3, 4), (24, 32))
    wanted = upsampled_nll(logits, target, align_corners=True)[0].detach()
    with torch.inference_mode():
        assert torch.equal(upsampled_nll(logits, target, align_corners=True)[0], wanted)
        assert upsampled_nll_total(logits, target, align_corners=True).isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_upsampled_nll_half_precision_scores_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, target = problem((3, 4), (24, 32), dtype=dtype)
    exact = logits.detach().float().requires_grad_()
    wanted = upsampled_nll(exact, target, align_corners=False)[0]
    slope = gradient(wanted.sum(), exact).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = upsampled_nll(logits, target, align_corners=False)[0]
        total = upsampled_nll_total(logits, target, align_corners=False)
    assert torch.equal(found, wanted)
    assert torch.equal(gradient(found.sum(), logits), slope)
    torch.testing.assert_close(gradient(total, logits), slope)


def test_upsampled_nll_takes_any_strides_and_label_dtypes_and_changes_no_input() -> None:
    logits, target = problem((6, 8), (20, 26), dtype=torch.float32)
    wanted = upsampled_nll(logits, target, align_corners=False)[0]
    before = (logits.detach().clone(), target.clone())
    strided = logits.to(memory_format=torch.channels_last)
    for labels in (target, target.to(torch.uint8), target.to(torch.int16).transpose(1, 2).contiguous().transpose(1, 2)):
        found = upsampled_nll(strided, labels, align_corners=False)[0]
        assert torch.equal(found, wanted)
        slopes = [gradient(value.sum(), logits) for value in (found, wanted)]
        assert torch.equal(*slopes)
        wanted = upsampled_nll(logits, target, align_corners=False)[0]
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_upsampled_nll_compiles_as_one_node(backend: str) -> None:
    logits, target = problem((3, 4), (10, 13))

    def value(x: torch.Tensor) -> torch.Tensor:
        nll, spread = upsampled_nll(2 * x, target, align_corners=False, class_mix=torch.ones(5))
        return nll.sum() + spread.square().sum() + upsampled_nll_total(x.sin(), target, align_corners=True)

    found = torch.compile(value, fullgraph=True, backend=backend)(logits)
    torch.testing.assert_close(found, value(logits))
    torch.testing.assert_close(gradient(found, logits), gradient(value(logits), logits))


def test_upsampled_nll_total_without_a_gradient_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real = banded_nll.banded_total

    def watched(*inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(inputs[-1])
        return real(*inputs)

    monkeypatch.setattr("perpixel.ops.upsampled_nll.banded_total", watched)
    logits, target = problem((3, 4), (10, 13))
    with torch.no_grad():
        silent = upsampled_nll_total(logits, target, align_corners=False)
    assert torch.equal(silent, upsampled_nll_total(logits, target, align_corners=False).detach())
    assert asked == [False, True]


@pytest.mark.parametrize("function", [upsampled_nll, upsampled_nll_total])
@pytest.mark.parametrize("wrong", [5, -1])
def test_upsampled_nll_label_that_is_no_class_is_refused_with_its_place(function: Any, wrong: int) -> None:
    logits, target = problem((3, 4), (10, 13))
    target[1, 2, 3] = wrong
    with pytest.raises(InvalidValue, match=rf"\(1, 2, 3\) is {wrong}; labels lie in \[0, 5\) or are 255"):
        function(logits, target, align_corners=False)
    target.masked_fill_(target == 255, wrong)
    function(logits, target, align_corners=False, ignore_index=wrong)  # as the label to ignore it is welcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 4)}, r"scores are floating point \(B, K, h, w\), got \(2, 3, 4\)"),
        ({"logits": torch.zeros(2, 3, 4, 4, dtype=torch.long)}, r"got \(2, 3, 4, 4\) torch.int64"),
        ({"target": torch.zeros(1, 8, 8, dtype=torch.long)}, r"labels are whole numbers \(B, H, W\) for scores"),
        ({"target": torch.zeros(2, 8, 8)}, r"got \(2, 8, 8\) torch.float32"),
        ({"class_mix": torch.ones(4)}, "one value for each of 3 classes, got 4"),
        ({"weight": torch.ones(2, 4, 8)}, r"weights \(2, 4, 8\) and labels \(2, 8, 8\) differ"),
    ],
)
def test_upsampled_nll_inputs_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    given = {"logits": torch.zeros(2, 3, 4, 4), "target": torch.zeros(2, 8, 8, dtype=torch.long), **change}
    with pytest.raises(InvalidValue, match=message):
        upsampled_nll_total(**given, align_corners=False)
    if "weight" not in change:
        with pytest.raises(InvalidValue, match=message):
            upsampled_nll(**given, align_corners=False)

from __future__ import annotations

import pytest
import torch

from perpixel.ops.focus import focused, focused_slope
from perpixel.ops.upsampled_nll import plain_upsampled_nll, upsampled_nll_total


@pytest.mark.parametrize("focus", [0.5, 1.0, 2.0, 5.0])
def test_focused_slope_is_that_of_autograd(focus: float) -> None:
    nll = torch.tensor([0.0, 1e-12, 1e-9, 1e-3, 0.7, 4.0, 60.0], dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(focused(nll, focus).sum(), nll)
    torch.testing.assert_close(focused_slope(nll.detach(), focus), wanted, rtol=1e-12, atol=1e-14)


def test_focused_by_hand() -> None:
    half = torch.tensor(0.5, dtype=torch.float64).log().neg()
    assert focused(half, 2.0).item() == pytest.approx(0.25 * half.item())


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("focus", [0.5, 2.0])
def test_upsampled_nll_total_with_focus_is_focal_loss_of_the_upsampled_scores(
    align_corners: bool, focus: float
) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, 4, generator=draw, dtype=torch.float64).mul_(3).requires_grad_()
    target = torch.randint(0, 5, (2, 10, 13), generator=draw)
    target[0, 0] = 255
    weight = torch.rand(target.shape, generator=draw, dtype=torch.float64)
    nll, _ = plain_upsampled_nll(logits, target, align_corners=align_corners)
    wanted = 0.7 * (focused(nll, focus) * weight).sum()
    found = upsampled_nll_total(logits, target, weight, align_corners=align_corners, own=0.7, focus=focus)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    mine, twin = (torch.autograd.grad(3 * value, logits)[0] for value in (found, wanted))
    torch.testing.assert_close(mine, twin, rtol=1e-11, atol=1e-13)


def test_upsampled_nll_total_with_focus_holds_in_float32_where_the_label_is_certain() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 1] = 40.0
    logits.requires_grad_()
    total = upsampled_nll_total(logits, torch.ones(1, 8, 8, dtype=torch.long), align_corners=False, focus=0.5)
    (slope,) = torch.autograd.grad(total, logits)
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-6)
    assert bool(slope.isfinite().all())

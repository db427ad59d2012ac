"""The gradient of resizing as two matrix products equals PyTorch's own, for any sizes and both corners' rules."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.ops import resize as resize_function
from perpixel.ops.resize import average_to, deterministic_resize, resize

RULES = ("bilinear", "aligned", "average")
SIZES = [((3, 5), (7, 11)), ((8, 6), (3, 4)), ((5, 5), (5, 9)), ((1, 4), (6, 1)), ((4, 1), (1, 1)), ((6, 7), (6, 7))]


def plain(x: torch.Tensor, size: tuple[int, int], rule: str) -> torch.Tensor:
    if rule == "average":
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=rule == "aligned")


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype).requires_grad_()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("source", "wanted"), SIZES)
def test_deterministic_resize_passes_gradcheck(source: tuple[int, int], wanted: tuple[int, int], rule: str) -> None:
    x = noise(1, 2, *source)
    assert torch.autograd.gradcheck(lambda x: deterministic_resize(x, wanted, rule), (x,))
    assert torch.autograd.gradgradcheck(lambda x: deterministic_resize(x, wanted, rule), (x,))


sides = st.integers(1, 23)


@given(sides, sides, sides, sides, st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_deterministic_resize_any_sizes_has_the_plain_values_and_gradients(
    height: int, width: int, rows: int, columns: int, rule: str
) -> None:
    x = noise(2, 3, height, width)
    ours, theirs = deterministic_resize(x, (rows, columns), rule), plain(x, (rows, columns), rule)
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(theirs)
    (own,), (wanted,) = (torch.autograd.grad(out, x, grad) for out in (ours, theirs))
    torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_deterministic_resize_half_precision_keeps_more_digits_than_the_plain_gradient(
    order: torch.memory_format,
) -> None:
    x = noise(1, 4, 6, 5, dtype=torch.float32).detach().bfloat16().contiguous(memory_format=order).requires_grad_()
    exact = x.detach().double().requires_grad_()
    grad = torch.randn(1, 4, 48, 37).bfloat16().contiguous(memory_format=order)
    (own,) = torch.autograd.grad(deterministic_resize(x, (48, 37), "bilinear"), x, grad)
    (wanted,) = torch.autograd.grad(plain(exact, (48, 37), "bilinear"), exact, grad.double())
    assert own.dtype == torch.bfloat16
    torch.testing.assert_close(own.double(), wanted, rtol=2**-8, atol=1e-3)


def test_resize_takes_the_matrices_on_cuda_in_deterministic_mode_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        """Answers as a tensor on a GPU would."""

        is_cuda, requires_grad, shape = True, True, (1, 1, 3, 3)

    taken = []
    monkeypatch.setattr(module(), "deterministic_resize", lambda x, size, rule: taken.append((size, rule)))
    monkeypatch.setattr(module(), "_forward", lambda x, size, rule: taken.append("plain"))
    for enabled in (False, True):
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda enabled=enabled: enabled)
        resize(OnCuda(), (6, 6), align_corners=True)
        average_to(OnCuda(), (2, 2))
        resize(torch.zeros(1, 1, 3, 3, requires_grad=True), (6, 6), align_corners=False)
    assert taken == ["plain", "plain", "plain", ((6, 6), "aligned"), ((2, 2), "average"), "plain"]


def module() -> object:
    """The module: the package's name of it is the function."""
    return sys.modules[resize_function.__module__]


def test_average_to_is_adaptive_average_pooling() -> None:
    x = noise(1, 2, 7, 5)
    assert torch.equal(average_to(x, (3, 2)), F.adaptive_avg_pool2d(x, (3, 2)))


@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES)
def test_deterministic_resize_on_cuda_gives_the_same_gradient_twice(rule: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x = torch.randn(2, 8, 33, 47, device="cuda", requires_grad=True)
    grad = torch.randn(2, 8, 200, 190, device="cuda")
    first, second = (torch.autograd.grad(deterministic_resize(x, (200, 190), rule), x, grad)[0] for _ in range(2))
    assert torch.equal(first, second)

"""The Encoding layer equals the direct form with all differences, and never makes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perpixel.errors import InvalidValue
from perpixel.layers import Encoding


def direct(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """The plain twin: every difference (B, N, K, D) is made."""
    residuals = x.flatten(2).transpose(1, 2)[:, :, None] - codewords
    assigned = (scale * residuals.square().sum(dim=3)).softmax(dim=2)
    return (assigned[..., None] * residuals).sum(dim=1)


def layer(channels: int, num_codewords: int, dtype: torch.dtype = torch.float64) -> Encoding:
    torch.manual_seed(0)
    return Encoding(channels, num_codewords).to(dtype)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, Tensor):
                self.numel = max(self.numel, made.untyped_storage().nbytes() // made.element_size())
        return out


def test_encoding_two_positions_two_codewords_by_hand() -> None:
    encoding = layer(1, 2)
    with torch.no_grad():
        encoding.codewords.copy_(torch.tensor([[0.0], [1.0]]))
        encoding.scale.fill_(-torch.log(torch.tensor(2.0, dtype=torch.float64)))
    # x = 0: distances 0, 1, weights 1, 1/2, shares 2/3, 1/3. x = 2: 4, 1, weights 1/16, 1/2, shares 1/9, 8/9.
    encoded = encoding(torch.tensor([[[[0.0, 2.0]]]], dtype=torch.float64))
    expected = torch.tensor([[[2 / 3 * 0 + 1 / 9 * 2], [1 / 3 * -1 + 8 / 9 * 1]]], dtype=torch.float64)
    torch.testing.assert_close(encoded, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("channels", "num_codewords", "size"), [(5, 3, (4, 6)), (16, 32, (3, 3)), (3, 1, (1, 1))])
def test_encoding_of_any_size_equals_the_plain_twin_forward_and_backward(
    channels: int, num_codewords: int, size: tuple[int, int]
) -> None:
    encoding = layer(channels, num_codewords)
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    leaves = (x, encoding.codewords, encoding.scale)
    ours, theirs = encoding(x), direct(*leaves)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    pull = torch.randn_like(ours)
    for mine, twin in zip(*(torch.autograd.grad((e * pull).sum(), leaves) for e in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, twin, rtol=0, atol=1e-11)


def test_encoding_passes_gradcheck() -> None:
    encoding = layer(3, 4)
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(encoding.named_parameters())

    def encoded(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
        values = {"codewords": codewords, "scale": scale}
        result: Tensor = torch.func.functional_call(encoding, values, (x,))
        return result

    assert torch.autograd.gradcheck(encoded, (x, *parameters.values()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_encoding_never_makes_a_tensor_larger_than_the_map(memory_format: torch.memory_format) -> None:
    encoding = layer(16, 8, torch.float32)
    x = torch.randn(2, 16, 6, 7).contiguous(memory_format=memory_format).requires_grad_()
    with Largest() as seen:
        encoding(x).square().sum().backward()
    assert seen.numel == x.numel()
    with Largest() as plain:
        direct(x, encoding.codewords, encoding.scale)
    assert plain.numel == 8 * x.numel()


def test_encoding_far_from_the_origin_keeps_its_shares_in_float32() -> None:
    encoding = layer(32, 8)
    x = 3 + torch.randn(1, 32, 8, 8, dtype=torch.float64)
    exact = direct(x, encoding.codewords, encoding.scale)
    torch.testing.assert_close(encoding.float()(x.float()).double(), exact, rtol=1e-3, atol=1e-3)


def test_encoding_under_autocast_computes_in_float32() -> None:
    encoding = layer(32, 8, torch.float32)
    x = torch.randn(2, 32, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoding(x)
        assert encoding.scaled_distances(x).dtype == torch.float32
    assert inside.dtype == torch.float32
    assert torch.equal(inside, encoding(x.float()))


def test_encoding_in_half_precision_gives_half_precision_and_float32_numbers() -> None:
    encoding = layer(32, 8, torch.float32).bfloat16()
    x = torch.randn(1, 32, 4, 4).bfloat16()
    encoded = encoding(x)
    assert encoded.dtype == torch.bfloat16
    exact = direct(x.double(), encoding.codewords.double(), encoding.scale.double())
    torch.testing.assert_close(encoded.double(), exact, rtol=2**-8, atol=1e-4)


def test_encoding_begins_within_the_published_bounds() -> None:
    encoding = layer(64, 32)
    bound = (64 * 32) ** -0.5
    assert bound * 0.98 < encoding.codewords.abs().max().item() <= bound
    assert -1 <= encoding.scale.min().item() < -0.8
    assert -0.2 < encoding.scale.max().item() <= 0


@pytest.mark.parametrize(("channels", "num_codewords"), [(0, 3), (4, 0)])
def test_encoding_without_channels_or_codewords_is_refused(channels: int, num_codewords: int) -> None:
    with pytest.raises(InvalidValue, match=rf"must be >= 1, got {channels} and {num_codewords}"):
        Encoding(channels, num_codewords)

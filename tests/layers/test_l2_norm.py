import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.layers.l2_norm import L2Norm


def test_l2_norm_by_hand() -> None:
    norm = L2Norm(2, 10.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([10.0, 20.0]))
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, -5.0]]]])  # vectors (3, 4) and (0, -5), both of length 5
    expected = torch.tensor([[[[6.0, 0.0]], [[16.0, -20.0]]]])
    torch.testing.assert_close(norm(x), expected)


def test_l2_norm_is_blind_to_the_length_of_each_vector() -> None:
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    factors = torch.rand(2, 1, 3, 4, dtype=torch.float64) + 0.5
    norm = L2Norm(5, 3.0).double()
    torch.testing.assert_close(norm(x * factors), norm(x), rtol=0, atol=1e-9)
    torch.testing.assert_close(norm(x).norm(dim=1), torch.full((2, 3, 4), 3.0, dtype=torch.float64))


def test_l2_norm_zeros_stay_zeros_with_a_finite_gradient() -> None:
    x = torch.zeros(1, 3, 1, 1, requires_grad=True)
    y = L2Norm(3, 10.0)(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, 3, 1, 1))
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_l2_norm_gradients_are_those_of_finite_differences() -> None:
    norm = L2Norm(3, 2.0).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(norm, {"weight": w}, (x,)), (x, norm.weight)
    )


def test_l2_norm_half_precision_does_not_overflow() -> None:
    x = torch.full((1, 4, 1, 1), 300.0, dtype=torch.float16)  # 300² is over the largest number of this type
    y = L2Norm(4, 2.0).half()(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, torch.ones_like(x))


@pytest.mark.parametrize(("channels", "scale"), [(0, 10.0), (3, 0.0), (3, -1.0)])
def test_l2_norm_without_channels_or_scale_is_refused(channels: int, scale: float) -> None:
    with pytest.raises(InvalidValue, match=f"got {channels} and {scale}"):
        L2Norm(channels, scale)

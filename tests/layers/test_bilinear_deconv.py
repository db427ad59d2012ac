import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.layers.bilinear_deconv import BilinearDeconv, bilinear_kernel
from perpixel.ops import resize


@pytest.mark.parametrize(
    ("size", "ramp"),
    [
        (1, [1.0]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1.0, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear_kernel_by_hand(size: int, ramp: list[float]) -> None:
    row = torch.tensor(ramp, dtype=torch.float64)
    assert torch.allclose(bilinear_kernel(size, dtype=torch.float64), torch.outer(row, row), rtol=0, atol=1e-15)
    assert bilinear_kernel(size).dtype == torch.float32


@pytest.mark.parametrize(("stride", "padding"), [(2, 1), (3, 1), (8, 4)])
@pytest.mark.parametrize("groups", [1, 3])
def test_bilinear_deconv_away_from_edges_is_interpolation(stride: int, padding: int, groups: int) -> None:
    deconv = BilinearDeconv(3, stride, padding=padding, groups=groups).double()
    deconv.reset_parameters()  # thirds in float64, not those of float32
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    enlarged = resize(x, (5 * stride, 6 * stride), align_corners=False)
    inner = slice(stride, -stride)
    assert deconv(x).shape == enlarged.shape
    assert torch.allclose(deconv(x)[..., inner, inner], enlarged[..., inner, inner], rtol=0, atol=1e-12)


def test_bilinear_deconv_at_the_edge_mixes_in_zeros() -> None:
    ones = torch.ones(1, 1, 3, 3)
    edge = BilinearDeconv(1, 2, padding=1)(ones)[0, 0, 0]
    assert edge.tolist() == pytest.approx([0.5625, 0.75, 0.75, 0.75, 0.75, 0.5625])


@pytest.mark.parametrize(("groups", "shape"), [(1, (4, 4, 6, 6)), (2, (4, 2, 6, 6)), (4, (4, 1, 6, 6))])
def test_bilinear_deconv_weights_join_a_channel_with_itself_alone(groups: int, shape: tuple[int, ...]) -> None:
    weight = BilinearDeconv(4, 3, kernel_size=6, groups=groups).weight
    assert tuple(weight.shape) == shape
    own = [weight[c, c % shape[1]] for c in range(4)]
    assert all(torch.equal(w, bilinear_kernel(6)) for w in own)
    assert weight.sum().item() == pytest.approx(4 * bilinear_kernel(6).sum().item())


def test_bilinear_deconv_fixed_needs_no_gradient_and_bias_begins_with_zero() -> None:
    fixed = BilinearDeconv(2, 2, bias=True, fixed=True)
    assert [p.requires_grad for p in fixed.parameters()] == [False, False]
    assert fixed.bias is not None and not fixed.bias.any()
    learned = BilinearDeconv(2, 2)
    assert learned.bias is None
    assert learned.weight.requires_grad


def test_bilinear_deconv_of_an_odd_kernel_doubles_by_an_output_padding() -> None:
    deconv = BilinearDeconv(1, 2, kernel_size=3, padding=1, output_padding=1)
    doubled = deconv(torch.tensor([[[[1.0, 3.0]]]]))
    assert doubled.shape == (1, 1, 2, 4)
    assert doubled[0, 0, 0].tolist() == [1.0, 2.0, 3.0, 1.5]  # cell 2i is cell i; beyond the last there are zeros


def test_bilinear_deconv_builds_without_memory() -> None:
    with torch.device("meta"):
        deconv = BilinearDeconv(21, 32)
    assert tuple(deconv.weight.shape) == (21, 21, 64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0, "stride": 2}, "0 channels"),
        ({"channels": 3, "stride": 0}, "stride 0"),
        ({"channels": 3, "stride": 2, "kernel_size": 0}, "kernel 0"),
        ({"channels": 3, "stride": 2, "padding": -1}, "padding -1"),
        ({"channels": 3, "stride": 2, "groups": 2}, "3 channels in 2 groups"),
        ({"channels": 3, "stride": 2, "output_padding": 2}, r"output_padding must lie in \[0, stride\), got 2"),
    ],
)
def test_bilinear_deconv_numbers_that_fit_nothing_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        BilinearDeconv(**arguments)  # type: ignore[misc]


def test_bilinear_kernel_of_no_size_is_refused() -> None:
    with pytest.raises(InvalidValue, match="must be >= 1, got 0"):
        bilinear_kernel(0)

import pytest
import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.local_filter import LocalWeights, block_min, local_filter


def dense(values: Tensor, guide: Tensor, precisions: Tensor, window: int, kind: str) -> Tensor:
    """One matrix of all pixels against all pixels."""
    batch, channels, height, width = values.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()]).to(values)
    steps = places[:, None, :] - places[:, :, None]  # from pixel j (rows) to neighbour z (columns)
    inside = ((steps >= -(window // 2)) & (steps <= (window - 1) // 2)).all(dim=0)
    colors = guide.flatten(2)
    unlike = (colors[:, :, None, :] - colors[:, :, :, None]).square().sum(dim=1)
    distance = precisions[0] * unlike + precisions[1] * steps.square().sum(dim=0)
    weights = torch.exp(-distance) * inside if kind == "similarity" else distance * inside
    total = weights.sum(dim=2) if kind == "similarity" else inside.sum(dim=1).expand(batch, -1)
    filtered = torch.einsum("bjz,bcz->bcj", weights, values.flatten(2)) / total[:, None]
    return filtered.view(batch, channels, height, width)


def maps() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    values, guide = torch.rand(2, 3, 5, 7, dtype=torch.float64), torch.rand(2, 2, 5, 7, dtype=torch.float64)
    return values, guide, torch.tensor([1.5, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("kind", ["similarity", "distance"])
@pytest.mark.parametrize("window", [1, 4, 5, 12])
@pytest.mark.parametrize("budget", [1, 4000, 2**26])
def test_local_filter_in_bands_equals_the_dense_product(kind: LocalWeights, window: int, budget: int) -> None:
    values, guide, precisions = maps()
    filtered = local_filter(values, guide, precisions, window=window, kind=kind, budget=budget)
    assert torch.allclose(filtered, dense(values, guide, precisions, window, kind), atol=1e-12)


def test_local_filter_by_hand_on_three_pixels() -> None:
    """Guide 0 0 1, a = ln 4, b = ln 2: the middle pixel weighs its neighbours 1/2, 1 and 1/8."""
    values = torch.tensor([[[[8.0, 0.0, 16.0]]]])
    guide = torch.tensor([[[[0.0, 0.0, 1.0]]]])
    precisions = torch.tensor([4.0, 2.0]).log()
    filtered = local_filter(values, guide, precisions, window=3)
    assert filtered[0, 0, 0, 1] == pytest.approx((4.0 + 0.0 + 2.0) / (0.5 + 1 + 0.125))


def test_local_filter_recomputed_has_the_same_gradients() -> None:
    values, guide, precisions = (x.requires_grad_() for x in maps())
    gradients = []
    for recompute in (False, True):
        filtered = local_filter(values, guide, precisions, window=4, recompute=recompute, budget=4000)
        gradients.append(torch.autograd.grad(filtered.square().sum(), [values, guide, precisions]))
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", ["similarity", "distance"])
def test_local_filter_gradcheck(kind: LocalWeights) -> None:
    torch.manual_seed(0)
    inputs = [torch.rand(1, 2, 3, 3), torch.rand(1, 1, 3, 3), torch.tensor([0.5, 0.1])]
    inputs = [x.double().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: local_filter(*x, window=3, kind=kind, budget=1), inputs)


def test_block_min_takes_the_least_of_neighbouring_channels() -> None:
    x = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]).view(1, 6, 1, 1)
    assert block_min(x, 3).flatten().tolist() == [1.0, 4.0]
    assert block_min(x, 2).flatten().tolist() == [1.0, 2.0, 4.0]


def test_local_filter_wrong_arguments_are_refused() -> None:
    values, guide, precisions = maps()
    with pytest.raises(InvalidValue, match="window must be >= 1 pixel, got 0"):
        local_filter(values, guide, precisions, window=0)
    with pytest.raises(InvalidValue, match="'similarity' or 'distance', got 'both'"):
        local_filter(values, guide, precisions, window=3, kind="both")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"values are \(5, 7\) and the guide is \(4, 7\)"):
        local_filter(values, guide[:, :, 1:], precisions, window=3)

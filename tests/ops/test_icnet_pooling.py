from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perpixel.ops.icnet_pooling import BINS, ICNetPooling, pool_icnet

PUBLISHED = {1: ((33, 65), (33, 65)), 2: ((17, 33), (16, 32)), 3: ((13, 25), (10, 20)), 6: ((8, 15), (5, 10))}


def maps(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def floor_pooled(x: torch.Tensor) -> list[torch.Tensor]:
    kernels = [tuple(max(1, side // bins) for side in x.shape[-2:]) for bins in BINS]
    return [F.avg_pool2d(x, kernel, kernel) for kernel in kernels]


def assert_equal(ours: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for a, b in zip(ours, wanted, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", ["published", "ptsemseg"])
def test_pool_icnet_on_the_published_map_has_the_published_kernels(rule: ICNetPooling) -> None:
    x = maps(33, 65)
    assert_equal(pool_icnet(x, rule), [F.avg_pool2d(x, *PUBLISHED[bins]) for bins in BINS])


@pytest.mark.parametrize("size", [(7, 9), (13, 25), (4, 3), (1, 1), (24, 60)])
def test_pool_icnet_by_floor_is_whole_division(size: tuple[int, int]) -> None:
    x = maps(*size)
    assert_equal(pool_icnet(x, "floor"), floor_pooled(x))
    assert_equal(pool_icnet(x, "ptsemseg"), floor_pooled(x))


def test_pool_icnet_by_floor_leaves_the_published_kernels_aside() -> None:
    x = maps(33, 65)
    assert_equal(pool_icnet(x, "floor"), floor_pooled(x))
    assert (pool_icnet(x, "floor")[2] - pool_icnet(x, "published")[2]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(7, 9), (33, 65), (1, 4)])
def test_pool_icnet_adaptive_is_torchs(size: tuple[int, int]) -> None:
    x = maps(*size)
    assert_equal(pool_icnet(x, "adaptive"), [F.adaptive_avg_pool2d(x, bins) for bins in BINS])


def test_pool_icnet_published_elsewhere_by_hand() -> None:
    """A side of 9 cells: strides 8 p / 32 are 4, 2 and 1; kernels 9 - (n - 1) stride are 5, 5 and 4."""
    x = torch.arange(9.0).repeat(1, 1, 9, 1)
    one, two, three, six = (pooled[0, 0, 0] for pooled in pool_icnet(x, "published"))
    assert one.tolist() == [4.0]
    assert two.tolist() == [2.0, 6.0]
    assert three.tolist() == [2.0, 4.0, 6.0]
    assert six.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


@pytest.mark.parametrize("side", [*range(6, 40), 65, 100])
def test_pool_icnet_published_windows_reach_from_the_first_cell_to_the_last(side: int) -> None:
    x = torch.zeros(1, 1, side, side)
    x[..., 0, 0] = 1
    x[..., -1, -1] = 2
    for bins, pooled in zip(BINS, pool_icnet(x, "published"), strict=True):
        assert pooled.shape[-2:] == (bins, bins)
        assert pooled[..., 0, 0].item() > 0
        assert pooled[..., -1, -1].item() > 0


def test_pool_icnet_published_on_fewer_cells_than_bins_repeats_the_last() -> None:
    x = torch.tensor([[3.0, 5.0], [3.0, 5.0]])[None, None]
    six = pool_icnet(x, "published")[3][0, 0]
    assert six[0].tolist() == [3.0, 5.0, 5.0, 5.0, 5.0, 5.0]

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perpixel.errors import InvalidValue
from perpixel.ops import resize
from perpixel.ops.bin_pooling import interpolation_matrix, pool_pyramid, pool_to_bins

SIZES = [(1, 1), (2, 5), (6, 6), (7, 9), (9, 13), (12, 60)]


def maps(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bins", [1, 2, 3, 6, 8])
def test_pool_to_bins_is_adaptive_average_pooling(size: tuple[int, int], bins: int) -> None:
    x = maps(size)
    torch.testing.assert_close(pool_to_bins(x, bins), F.adaptive_avg_pool2d(x, bins), rtol=0, atol=1e-14)


def test_pool_to_bins_by_hand() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0, 10.0, 20.0]]]])  # two bins over five cells share the one in the middle
    assert pool_to_bins(row, 2).tolist() == [[[[2.0, 11.0], [2.0, 11.0]]]]


@pytest.mark.parametrize("size", [(6, 6), (9, 24), (17, 60), (31, 95)])
def test_fixed_pooling_is_caffes_with_kernel_and_stride_of_a_bin(size: tuple[int, int]) -> None:
    x = maps(size)
    for bins, ours in zip((1, 2, 3), pool_pyramid(x, (1, 2, 3), "fixed"), strict=True):
        kernel = tuple(-(-s // bins) for s in size)
        theirs = F.avg_pool2d(x, kernel, kernel, ceil_mode=True)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_fixed_pooling_by_hand_where_the_map_is_too_short() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0]]]])  # kernel 2: three pairs, the last cell, then nothing
    (pooled,) = pool_pyramid(row, (6,), "fixed")
    assert pooled.shape == (1, 1, 6, 6)
    assert pooled[0, 0, 5].tolist() == [1.5, 3.5, 5.5, 9.0, 9.0, 9.0]


@pytest.mark.parametrize("size", [(60, 60), (90, 90)])
def test_fixed_pooling_at_a_published_size_is_adaptive_pooling(size: tuple[int, int]) -> None:
    x = maps(size)[:1, :1]
    for fixed, adaptive in zip(*(pool_pyramid(x, (6, 3, 2, 1), r) for r in ("fixed", "adaptive")), strict=True):
        torch.testing.assert_close(fixed, adaptive, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bins", [(), (0,), (2, -1)])
def test_bins_that_are_not_positive_are_refused(bins: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue, match="bins must be >= 1, got"):
        pool_pyramid(torch.zeros(1, 1, 4, 4), bins, "adaptive")


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "size"), [(1, 1), (1, 7), (2, 1), (3, 8), (6, 6), (6, 60), (6, 4)])
def test_interpolation_matrix_is_resize(source: int, size: int, align_corners: bool) -> None:
    x = maps((source, source))
    matrix = interpolation_matrix(source, size, align_corners=align_corners, like=x)
    wanted = resize(x, (size, size), align_corners=align_corners)
    torch.testing.assert_close(matrix @ x @ matrix.T, wanted, rtol=0, atol=1e-13)


def test_interpolation_matrix_of_half_precision_is_made_in_float32() -> None:
    assert interpolation_matrix(2, 5, align_corners=True, like=torch.zeros(1).half()).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["adaptive", "fixed"])
def test_pooling_exports_for_any_height_and_width(rule: str) -> None:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return pool_pyramid(x, (1, 2, 3, 6), rule)  # type: ignore[arg-type]

    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(Pool(), (maps((14, 19)),), dynamic_shapes=[sides]).module()
    for size in ((12, 60), (7, 31)):
        for ours, theirs in zip(exported(maps(size)), Pool()(maps(size)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)

"""Resizing with OpenCV's numbers: by hand, by properties, and beside OpenCV where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.inference.opencv_resize import opencv_resize, opencv_scale

SIZES = [(5, 7, 9, 4), (6, 8, 12, 16), (8, 6, 4, 3), (3, 5, 3, 9), (9, 4, 5, 13), (12, 20, 7, 8), (1, 6, 4, 3)]


def random_pixels(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, height, width), generator=generator, dtype=torch.uint8)


def test_resize_float_doubling_worked_by_hand():
    x = torch.tensor([[[0.0, 8.0]]], dtype=torch.float64)
    # Centres of the new pixels lie at -1/4, 1/4, 3/4 and 5/4 of the old grid.
    assert opencv_resize(x, (1, 4)).flatten().tolist() == [0.0, 2.0, 6.0, 8.0]


@pytest.mark.parametrize(("side", "factor"), [(2, 1.25), (3, 1.1), (40, 1.01), (50, 0.991)])
def test_scale_that_rounds_to_the_same_size_copies_as_opencv_does(side, factor):
    image = random_pixels(3, side, side)
    assert torch.equal(opencv_scale(image, factor), image)


def test_resize_uint8_between_rows_rounds_the_whole_number_sum():
    x = torch.tensor([[[0], [255]]], dtype=torch.uint8)
    # 1/4 of 255 is 63.75 and 3/4 is 191.25.
    assert opencv_resize(x, (4, 1)).flatten().tolist() == [0, 64, 191, 255]


def test_resize_uint8_top_edge_mixes_the_row_with_itself_and_rounds_down_twice():
    # 1 of 3 channels: across, 3 + (8 - 3) / 4 = 4.25 loses nothing; down, both parts of the top row are cut separately.
    x = torch.tensor([[[56, 57]]], dtype=torch.uint8)
    across = opencv_resize(x, (1, 3))[0, 0]
    twice = opencv_resize(x, (2, 3))[0, 0]
    assert across.tolist() == [56, 57, 57]
    assert twice.tolist() == [56, 56, 57]


@pytest.mark.parametrize(("channels", "expected"), [(3, 3), (2, 2)])
def test_resize_uint8_halving_rounds_a_tie_by_the_number_of_channels(channels, expected):
    x = torch.tensor([[[2, 3], [2, 3]]], dtype=torch.uint8).expand(channels, 2, 2)
    assert opencv_resize(x, (1, 1)).flatten().tolist() == [expected] * channels


def test_scale_half_of_odd_sides_averages_what_is_there_at_the_edge():
    x = torch.arange(49, dtype=torch.uint8).reshape(1, 7, 7)  # both sides become round(3.5) = 4
    result = opencv_scale(x, 0.5)[0]
    assert result.shape == (4, 4)
    assert result[0].tolist() == [4, 6, 8, 10]  # (0 + 1 + 7 + 8 + 2) // 4 and so on; the edge: mean of 6 and 13 is 9.5
    assert result[3].tolist() == [42, 44, 46, 48]  # 42.5 and 44.5 to even; the corner alone


def test_scale_rounds_halves_to_the_even_side():
    assert opencv_scale(torch.zeros(1, 70, 90), 0.75).shape == (1, 52, 68)  # 52.5 and 67.5


def test_scale_step_is_the_factor_not_the_ratio_of_sizes():
    x = torch.arange(10.0).reshape(1, 1, 10).expand(2, 10, 10)
    # round(7.5) = 8 pixels, 4/3 apart: the first at 1/6, the last beyond the edge at 9.5 - 1/3 = 9.
    assert opencv_scale(x, 0.75)[0, 0, 0].item() == pytest.approx(1 / 6)
    assert opencv_resize(x, (8, 8))[0, 0, 0].item() == pytest.approx(1 / 8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
@pytest.mark.parametrize("size", SIZES)
def test_resize_constant_image_stays_constant(dtype, size):
    height, width, rows, columns = size
    x = torch.full((5, height, width), 200).to(dtype)
    result = opencv_resize(x, (rows, columns))
    assert result.dtype == dtype
    assert torch.allclose(
        result.double(), torch.tensor(200.0, dtype=torch.float64), atol=1 if dtype == torch.uint8 else 1e-4
    )


def test_resize_same_size_returns_the_image():
    x = random_pixels(3, 4, 5)
    assert opencv_resize(x, (4, 5)) is x
    assert torch.equal(opencv_scale(x, 1.0), x)


def test_resize_part_of_an_image_equals_the_part_of_the_whole_result():
    x = torch.randn(5, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = opencv_resize(x, (9, 11))
    assert torch.equal(opencv_resize(x[2:3], (9, 11), channels=5), whole[2:3])
    assert not torch.equal(opencv_resize(x[2:3], (9, 11)), whole[2:3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", SIZES)
def test_resize_equals_opencv(channels, size):
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    height, width, rows, columns = size
    pixels = random_pixels(channels, height, width, seed=channels)
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    expected = cv2.resize(array, (columns, rows)).reshape(rows, columns, channels)
    assert np.array_equal(opencv_resize(pixels, (rows, columns)).permute(1, 2, 0).numpy(), expected)
    for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 1e-4)):
        expected = cv2.resize(array.astype(dtype), (columns, rows)).reshape(rows, columns, channels)
        ours = opencv_resize(torch.from_numpy(array.astype(dtype)).permute(2, 0, 1), (rows, columns))
        # Without Intel's library, weights of 1, 3 and 4 channels are rounded to float32.
        assert np.abs(ours.permute(1, 2, 0).numpy() - expected).max() <= max(tolerance, 5e-3 * (channels in (1, 3, 4)))


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 1.75])
def test_scale_equals_opencv(factor):
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    pixels = random_pixels(3, 19, 26)
    expected = cv2.resize(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), None, fx=factor, fy=factor)
    assert np.array_equal(opencv_scale(pixels, factor).permute(1, 2, 0).numpy(), expected)


def test_scale_that_leaves_no_pixel_refused():
    with pytest.raises(InvalidValue, match=r"an image of \(1, 9\) pixels cannot become \(0, 4\)"):
        opencv_scale(torch.zeros(1, 1, 9), 0.4)


def test_resize_to_nothing_refused():
    with pytest.raises(InvalidValue, match=r"cannot become \(3, 0\)"):
        opencv_resize(torch.zeros(1, 4, 4), (3, 0))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_of_no_size_refused(factor):
    with pytest.raises(InvalidValue, match="a scale is a positive number, got"):
        opencv_scale(torch.zeros(1, 4, 4), factor)

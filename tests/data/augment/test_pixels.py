"""data.augment.blur, photometric, erasing and packed against plain float64 twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from perpixel.data.augment.blur import blurred, weights
from perpixel.data.augment.erasing import cover, draw_holes
from perpixel.data.augment.packed import pack, unpack
from perpixel.data.augment.photometric import hue_matrix, noise_levels, with_gamma, with_hue, with_noise, without_colour

RNG = np.random.default_rng(0)
LUMA = np.array([0.299, 0.587, 0.114])


def picture(height: int = 24, width: int = 18, channels: int = 3, dtype: Any = np.uint8) -> NDArray[Any]:
    return RNG.integers(0, 256 if dtype == np.uint8 else 65536, (height, width, channels)).astype(dtype)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pack_and_unpack_are_inverse(channels: int) -> None:
    pixels = picture(channels=channels)
    assert (unpack(pack(pixels), channels) == pixels).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1)])
def test_pack_takes_the_last_pixel_and_views(size: tuple[int, int]) -> None:
    pixels = picture(9, 9)[2 : 2 + size[0], 3 : 3 + size[1]]
    assert (unpack(pack(pixels), 3) == pixels).all()
    assert (unpack(pack(pixels[:, ::-1]), 3) == pixels[:, ::-1]).all()


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.8, 1.5, 2.0, 5.0, 8.0])
def test_weights_of_a_blur_add_up_and_fall(sigma: float) -> None:
    taps = weights(sigma)
    assert taps[0] + 2 * sum(taps[1:]) == 256
    assert list(taps[1:]) == sorted(taps[1:], reverse=True)
    assert min(taps) > 0


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (3, np.uint8), (3, np.int32)])
def test_blurred_agrees_with_the_plain_twin(sigma: float, channels: int, dtype: Any) -> None:
    pixels = picture(channels=channels, dtype=dtype)
    taps = np.array(weights(sigma)) / 256
    kernel = np.concatenate([taps[:0:-1], taps])
    expected = ndimage.correlate1d(pixels.astype(np.float64), kernel, axis=0, mode="mirror")
    expected = ndimage.correlate1d(expected, kernel, axis=1, mode="mirror")
    assert abs(blurred(pixels, sigma) - expected).max() <= 1.01


@pytest.mark.parametrize("height", [63, 64, 65, 130])
def test_blurred_in_several_bands_agrees_with_the_plain_twin(height: int) -> None:
    pixels = picture(height, 9)
    taps = np.array(weights(2.0)) / 256
    kernel = np.concatenate([taps[:0:-1], taps])
    expected = ndimage.correlate1d(pixels.astype(np.float64), kernel, axis=0, mode="mirror")
    expected = ndimage.correlate1d(expected, kernel, axis=1, mode="mirror")
    assert abs(blurred(pixels, 2.0) - expected).max() <= 1.01


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 5.0])
def test_blurred_is_the_gaussian_of_that_deviation(sigma: float) -> None:
    pixels = np.zeros((61, 61, 1), np.int32)
    pixels[30, 30] = 65535
    done = blurred(pixels, sigma)[..., 0] / 65535
    row = done.sum(0) / done.sum()
    assert abs(np.sqrt((row * (np.arange(61) - 30) ** 2).sum()) - sigma) < 0.1 * sigma


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
def test_blurred_windows_smaller_than_the_kernel_keep_their_size_and_mean_colour(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 77, np.uint8)
    assert (blurred(pixels, 3.0) == pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("gamma", [0.4, 1.0, 2.2])
def test_with_gamma_agrees_with_the_plain_twin(gamma: float, dtype: Any) -> None:
    pixels = picture(dtype=dtype)
    full = 255 if dtype == np.uint8 else 65535
    result = with_gamma(pixels, gamma)
    assert result.dtype == dtype
    assert result.flags.writeable
    assert abs(result - full * (pixels / full) ** gamma).max() <= 0.501


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_with_noise_has_the_mean_and_deviation_asked_for(dtype: Any) -> None:
    full = 255 if dtype == np.uint8 else 65535
    pixels = np.full((100, 101, 3), full // 2, dtype)
    noise = (with_noise(pixels, 0.04, np.random.default_rng(1)).astype(int) - full // 2) / full
    assert abs(noise.mean()) < 0.001
    assert abs(noise.std() - 0.04) < 0.001
    assert abs((abs(noise) < 0.04).mean() - 0.683) < 0.03


def test_with_noise_clips_and_differs_between_channels() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    result = with_noise(pixels, 0.2, np.random.default_rng(1))
    assert result.min() == 0
    assert (result[..., 0] != result[..., 1]).any()
    assert with_noise(np.full((4, 4, 1), 255, np.uint8), 0.5, np.random.default_rng(1)).max() == 255


def test_noise_levels_are_quantiles_of_the_normal_distribution() -> None:
    levels = noise_levels(100.0)
    assert levels.dtype == np.int16
    assert (levels + levels[::-1] == 0).all()
    assert levels[32768 + 32768 * 6827 // 10000] in (100, 101)
    assert noise_levels(65535 * 0.5).dtype == np.int32


@pytest.mark.parametrize("degrees", [-180.0, -20.0, 7.0, 90.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_with_hue_agrees_with_the_plain_twin(degrees: float, dtype: Any) -> None:
    pixels = picture(dtype=dtype)
    full = 255 if dtype == np.uint8 else 65535
    expected = np.clip(pixels @ hue_matrix(degrees).T, 0, full)
    assert abs(with_hue(pixels, degrees) - expected).max() <= 1.2


def test_with_hue_keeps_grey_and_luma() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert (with_hue(grey, 50.0) == grey).all()
    middle = RNG.integers(100, 156, (20, 20, 3)).astype(np.uint8)
    assert abs(with_hue(middle, 40.0) @ LUMA - middle @ LUMA).max() < 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_without_colour_is_the_luma_in_every_channel(dtype: Any) -> None:
    pixels = picture(dtype=dtype)
    grey = without_colour(pixels)
    assert (grey == grey[..., :1]).all()
    assert abs(grey[..., 0] - pixels @ LUMA).max() <= 0.8


def test_draw_holes_and_cover_fill_what_they_say_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        pixels, labels = picture(), RNG.integers(0, 4, (24, 18)).astype(np.uint8)
        holes = draw_holes(3, (0.1, 0.4), (24, 18), rng)
        covered = np.zeros((24, 18), bool)
        for rows, columns in holes:
            covered[rows, columns] = True
            assert 1 <= rows.stop - rows.start <= round(0.4 * 24)
            assert 1 <= columns.stop - columns.start <= round(0.4 * 18)
        changed, relabelled = pixels.copy(), labels.copy()
        cover(changed, relabelled, holes, levels=(1, 2, 3), label=255)
        assert (changed[covered] == (1, 2, 3)).all()
        assert (relabelled[covered] == 255).all()
        assert (changed[~covered] == pixels[~covered]).all()
        assert (relabelled[~covered] == labels[~covered]).all()


def test_cover_without_a_label_keeps_the_labels() -> None:
    pixels, labels = picture(), np.ones((24, 18), np.uint8)
    cover(pixels, labels, [(slice(0, 24), slice(0, 18))], levels=(9, 9, 9), label=None)
    assert (labels == 1).all()
    assert (pixels == 9).all()

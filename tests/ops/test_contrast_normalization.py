"""Response and contrast normalisation against PyTorch, SciPy and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate1d

from perpixel.errors import InvalidValue
from perpixel.ops.contrast_normalization import (
    INPUT_NORMALISATIONS,
    local_contrast_normalization,
    local_response_normalization,
)


@pytest.mark.parametrize(("channels", "size"), [(3, 5), (7, 3), (1, 1)])
def test_lrn_equals_pytorchs_across_channels(channels: int, size: int) -> None:
    x = 100 * torch.randn(2, channels, 4, 5, dtype=torch.float64)
    theirs = F.local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0)
    torch.testing.assert_close(local_response_normalization(x, size=size), theirs, rtol=0, atol=1e-12)


def test_lrn_of_one_pixel_by_hand() -> None:
    x = torch.tensor([3.0, 4.0], dtype=torch.float64).view(1, 2, 1, 1)
    divisor = (1.0 + 0.3 / 3 * 25) ** 0.75
    result = local_response_normalization(x, size=3, alpha=0.3)
    assert result.flatten().tolist() == pytest.approx([3 / divisor, 4 / divisor])


def test_lcn_equals_the_formula_in_numpy() -> None:
    random = np.random.default_rng(0)
    x = random.normal(50, 20, (3, 11, 9))
    offsets = np.arange(-2, 3)
    weights = np.exp(-((offsets / 1.5) ** 2) / 2)

    def local_mean(values: np.ndarray) -> np.ndarray:
        def blur(a: np.ndarray) -> np.ndarray:
            return correlate1d(correlate1d(a, weights, axis=0, mode="constant"), weights, axis=1, mode="constant")

        return blur(values.mean(0)) / blur(np.ones(values.shape[1:]))

    centred = x - local_mean(x)
    deviation = np.sqrt(local_mean(centred**2))
    expected = centred / np.maximum(deviation, deviation.mean())
    result = local_contrast_normalization(torch.from_numpy(x)[None], window=5, sigma=1.5)[0]
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


def test_lcn_does_not_see_brightness_and_contrast() -> None:
    x = torch.rand(2, 3, 16, 20, dtype=torch.float64) * 200
    torch.testing.assert_close(local_contrast_normalization(0.3 * x + 40), local_contrast_normalization(x))


def test_lcn_of_a_flat_image_is_zero() -> None:
    assert local_contrast_normalization(torch.full((1, 3, 12, 12), 200.0)).abs().max() < 0.1


def test_input_normalisations_keep_the_shape_and_none_the_image() -> None:
    x = torch.rand(1, 3, 10, 12) * 255
    results = {name: function(x) for name, function in INPUT_NORMALISATIONS.items()}
    assert {name: tuple(y.shape) for name, y in results.items()} == dict.fromkeys(
        ("none", "lrn", "contrast"), (1, 3, 10, 12)
    )
    assert results["none"] is x


@pytest.mark.parametrize("size", [0, 4])
def test_even_or_empty_windows_are_refused(size: int) -> None:
    with pytest.raises(InvalidValue, match=f"size must be odd and positive, got {size}"):
        local_response_normalization(torch.zeros(1, 3, 2, 2), size=size)
    with pytest.raises(InvalidValue, match=f"window must be odd and positive, got {size}"):
        local_contrast_normalization(torch.zeros(1, 3, 2, 2), window=size)


def test_lcn_without_width_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"sigma and eps must be positive, got 0 and 0\.001"):
        local_contrast_normalization(torch.zeros(1, 3, 2, 2), sigma=0)

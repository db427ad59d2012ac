"""ops.normalize against the same steps written one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.normalize import FULL_SCALE, normalize, padding_fractions
from perpixel.types import Preprocessing

IMAGENET = Preprocessing()
CAFFE = Preprocessing(
    mean=(104.0, 117.0, 123.0), std=(1.0, 2.0, 3.0), channel_order="bgr", value_range=255.0, pad_value=(1.0, 2.0, 3.0)
)
FIVE = Preprocessing(mean=(0.1, 0.2, 0.3, 0.4, 0.5), std=(1.0, 0.5, 0.2, 0.1, 0.3))
GREY = Preprocessing(mean=(0.5,), std=(0.25,))


def normalize_plain(images: Tensor, preprocessing: Preprocessing, *, jitter: Tensor | None = None) -> Tensor:
    """The definition, image by image, step by step, in float64."""
    results = []
    for index, image in enumerate(images):
        u = image.double() / FULL_SCALE[image.dtype]
        if jitter is not None:
            brightness, contrast, saturation = jitter[index].double()
            u = brightness * u
            u = contrast * u + (1 - contrast) * grey_plain(u).mean()
            if u.shape[0] == 3:
                u = saturation * u + (1 - saturation) * grey_plain(u)
            u = u.clamp(0, 1)
        if preprocessing.channel_order == "bgr":
            u = u.flip(0)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(-1, 1, 1)
        std = torch.tensor(preprocessing.std, dtype=torch.float64).view(-1, 1, 1)
        results.append((u * preprocessing.value_range - mean) / std)
    return torch.stack(results)


def grey_plain(u: Tensor) -> Tensor:
    return 0.299 * u[0] + 0.587 * u[1] + 0.114 * u[2] if u.shape[0] == 3 else u.mean(0)


def random_images(channels: int, *, wide: bool = False, seed: int = 0, size: tuple[int, int] = (7, 9)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    high, dtype = (65536, torch.int32) if wide else (256, torch.uint8)
    return torch.randint(0, high, (2, channels, *size), generator=generator, dtype=dtype)


@given(
    preprocessing=st.sampled_from([IMAGENET, CAFFE, FIVE, GREY]),
    wide=st.booleans(),
    seed=st.integers(0, 1000),
    factors=st.lists(st.floats(0, 2, width=32), min_size=6, max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_normalize_with_jitter_equals_the_steps_one_by_one(
    preprocessing: Preprocessing, wide: bool, seed: int, factors: list[float]
) -> None:
    images = random_images(preprocessing.num_channels, wide=wide, seed=seed)
    jitter = torch.tensor(factors).view(2, 3)
    expected = normalize_plain(images, preprocessing, jitter=jitter)
    # 1e-5 of the range of the normalised values: Caffe's reach 255, so its absolute error may as well
    scale = preprocessing.value_range / min(preprocessing.std)
    result = normalize(images, preprocessing, jitter=jitter)
    assert result.dtype == torch.float32
    assert (result.double() - expected).abs().max() <= 1e-5 * max(1.0, scale / 4)


@pytest.mark.parametrize("preprocessing", [IMAGENET, CAFFE, FIVE, GREY])
@pytest.mark.parametrize("wide", [False, True])
def test_normalize_without_jitter_equals_the_formula(preprocessing: Preprocessing, wide: bool) -> None:
    images = random_images(preprocessing.num_channels, wide=wide)
    expected = normalize_plain(images, preprocessing)
    torch.testing.assert_close(normalize(images, preprocessing).double(), expected, rtol=1e-5, atol=1e-5)


def test_normalize_factors_of_one_equal_no_jitter() -> None:
    images = random_images(3)
    torch.testing.assert_close(normalize(images, IMAGENET, jitter=torch.ones(2, 3)), normalize(images, IMAGENET))


def test_normalize_bright_pixels_are_clamped_to_the_image_range() -> None:
    images = torch.full((1, 3, 2, 2), 200, dtype=torch.uint8)
    result = normalize(images, IMAGENET, jitter=torch.tensor([[2.0, 1.0, 1.0]]))
    white = normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), IMAGENET)
    torch.testing.assert_close(result, white)


def test_normalize_saturation_zero_gives_grey_by_hand() -> None:
    images = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    identity = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    result = normalize(images, identity, jitter=torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(result.flatten(), torch.full((3,), 0.299))


def test_normalize_contrast_zero_gives_the_mean_grey_of_each_image() -> None:
    images = torch.tensor([[[[0, 255]]], [[[51, 51]]]], dtype=torch.uint8)
    identity = Preprocessing(mean=(0.0,), std=(1.0,))
    result = normalize(images, identity, jitter=torch.tensor([[1.0, 0.0, 1.0]]).expand(2, 3))
    torch.testing.assert_close(result.flatten(), torch.tensor([0.5, 0.5, 0.2, 0.2]))


def test_normalize_saturation_is_ignored_unless_there_are_three_channels() -> None:
    images = random_images(5)
    one, other = torch.tensor([[1.2, 0.7, 0.0]]).expand(2, 3), torch.tensor([[1.2, 0.7, 1.9]]).expand(2, 3)
    assert torch.equal(normalize(images, FIVE, jitter=one), normalize(images, FIVE, jitter=other))


def test_normalize_channels_last_images_give_the_same_values_and_leave_the_input_alone() -> None:
    images = random_images(3)
    before = images.clone()
    jitter = torch.tensor([[0.7, 1.3, 0.5], [1.1, 0.9, 1.4]])
    result = normalize(images.contiguous(memory_format=torch.channels_last), IMAGENET, jitter=jitter)
    torch.testing.assert_close(result, normalize(images, IMAGENET, jitter=jitter))
    assert result.is_contiguous()
    assert torch.equal(images, before)


def test_normalize_under_autocast_stays_in_full_precision() -> None:
    images, jitter = random_images(3), torch.tensor([[0.7, 1.3, 0.5], [1.1, 0.9, 1.4]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = normalize(images, IMAGENET, jitter=jitter)
    assert torch.equal(result, normalize(images, IMAGENET, jitter=jitter))


def test_padding_fractions_in_the_order_of_stored_images() -> None:
    assert padding_fractions(IMAGENET) == IMAGENET.mean
    assert padding_fractions(CAFFE) == (3 / 255, 2 / 255, 1 / 255)


def test_padding_fractions_normalise_to_zero_for_the_mean() -> None:
    reversed_mean = Preprocessing(mean=(51.0, 102.0, 204.0), std=(1.0,) * 3, channel_order="bgr", value_range=255.0)
    levels = [round(255 * fraction) for fraction in padding_fractions(reversed_mean)]
    images = torch.tensor(levels, dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(images, reversed_mean), torch.zeros(1, 3, 1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "preprocessing", "jitter", "message"),
    [
        (torch.zeros(1, 3, 2, 2), IMAGENET, None, "torch.float32"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), IMAGENET, None, r"\(3, 2, 2\)"),
        (torch.zeros(1, 4, 2, 2, dtype=torch.uint8), IMAGENET, None, "4 channels, the network takes 3"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), IMAGENET, torch.ones(2, 3), r"\(1, 3\).*got \(2, 3\)"),
        (
            torch.zeros(1, 1, 2, 2, dtype=torch.uint8),
            Preprocessing(mean=(0.5,), std=(0.5,), channel_order="bgr"),
            None,
            "'bgr' needs 3 channels, got 1",
        ),
    ],
)
def test_normalize_input_that_does_not_fit_raises(
    images: Tensor, preprocessing: Preprocessing, jitter: Tensor | None, message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        normalize(images, preprocessing, jitter=jitter)

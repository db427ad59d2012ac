"""data.transforms against the plain way: resize the whole image, crop, pad, flip."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from perpixel.data.transforms import Augmentation, Window, apply, draw, draw_jitter, part_inside, sample_rng
from perpixel.errors import InvalidValue

QUICK = settings(deadline=None, max_examples=60)
PUBLISHED = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
FULL = {torch.uint8: 255, torch.int32: 65535}


def apply_plain(
    window: Window, image: Tensor, target: Tensor, *, pad_value: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Resizes everything, pads everything, cuts the crop out of it, mirrors it."""
    p, q = window.step
    steps = [Fraction(p, q) if int(n * Fraction(q, p)) != n else Fraction(1) for n in target.shape]
    factors = tuple(float(1 / step) * (1 + 2**-40) for step in steps)
    scaled = image if p == q else resize_whole(image, factors)
    assert tuple(scaled.shape[1:]) == window.scaled
    picked = [
        torch.tensor([int((y + Fraction(1, 2)) * step) for y in range(length)])
        for length, step in zip(window.scaled, steps, strict=True)
    ]
    labels = target[picked[0]][:, picked[1]]
    (top, left), (height, width) = window.corner, window.crop
    out_image = torch.empty(image.shape[0], height, width, dtype=image.dtype)
    out_target = torch.empty(height, width, dtype=torch.uint8)
    fill = torch.tensor([round(v * FULL[image.dtype]) for v in pad_value], dtype=image.dtype)
    for y, x in itertools.product(range(height), range(width)):
        row, column = top + y, left + x
        inside = 0 <= row < window.scaled[0] and 0 <= column < window.scaled[1]
        out_image[:, y, x] = scaled[:, row, column] if inside else fill
        out_target[y, x] = labels[row, column] if inside else 255
    return (out_image.flip(-1), out_target.flip(-1)) if window.flip else (out_image, out_target)


def resize_whole(image: Tensor, factors: tuple[float, ...]) -> Tensor:
    planes = image[:, None] if image.dtype == torch.uint8 else image[:, None].float()
    # channel by channel: PyTorch 2.14 fails on planar 8-bit RGB when the result is one pixel
    scaled = F.interpolate(planes.contiguous(), scale_factor=factors, mode="bilinear", antialias=True)[:, 0]
    return scaled if image.dtype == torch.uint8 else scaled.round().to(image.dtype)


def sample(size: tuple[int, int], channels: int = 3, *, wide: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    high, dtype = (65536, torch.int32) if wide else (256, torch.uint8)
    image = torch.randint(0, high, (channels, *size), generator=generator, dtype=dtype)
    return image, torch.randint(0, 7, size, generator=generator, dtype=torch.uint8)


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    scale=st.sampled_from(PUBLISHED) | st.floats(0.25, 3.0),
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    wide=st.booleans(),
    interleaved=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=150)
def test_apply_equals_resizing_the_whole_image_and_cropping(
    size: tuple[int, int],
    crop: tuple[int, int],
    scale: float,
    channels: int,
    wide: bool,
    interleaved: bool,
    seed: int,
) -> None:
    image, target = sample(size, channels, wide=wide, seed=seed)
    if interleaved:
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    window = draw(Augmentation(crop_size=crop, scales=(scale,)), size, sample_rng(seed, 0, 0))
    pad_value = tuple(0.1 * (c + 1) for c in range(channels))
    pixels, labels = apply(window, image, target, pad_value=pad_value)
    expected_pixels, expected_labels = apply_plain(window, image, target, pad_value=pad_value)
    assert torch.equal(labels, expected_labels)
    assert pixels.dtype == image.dtype
    assert (pixels.long() - expected_pixels.long()).abs().max() <= 1


@pytest.mark.parametrize("scale", PUBLISHED)
def test_apply_published_scale_equals_torch_resizing_to_the_size(scale: float) -> None:
    image, target = sample((48, 64))
    size = round(48 * scale), round(64 * scale)
    window = draw(Augmentation(crop_size=size, scales=(scale,), flip=0.0), (48, 64), sample_rng(0, 0, 0))
    pixels, labels = apply(window, image, target, pad_value=(0, 0, 0))
    expected = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    assert (pixels.int() - expected.int()).abs().max() <= 1
    assert torch.equal(labels, F.interpolate(target[None, None], size=size, mode="nearest-exact")[0, 0])


@pytest.mark.parametrize("interleaved", [False, True])
def test_apply_window_of_a_large_image_keeps_the_sampling_grid(interleaved: bool) -> None:
    image, target = sample((300, 400))
    if interleaved:
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for index in range(12):
        augmentation = Augmentation(crop_size=(32, 32), scale_range=(0.5, 2.0))
        window = draw(augmentation, (300, 400), sample_rng(1, 0, index))
        pixels, labels = apply(window, image, target, pad_value=(0, 0, 0))
        expected_pixels, expected_labels = apply_plain(window, image, target, pad_value=(0, 0, 0))
        assert torch.equal(labels, expected_labels)
        assert (pixels.int() - expected_pixels.int()).abs().max() <= 1


@given(scale=st.floats(1 / 16, 16))
@QUICK
def test_draw_moves_the_scale_by_at_most_two_percent_up_to_four(scale: float) -> None:
    p, q = draw(Augmentation(crop_size=(1, 1), scales=(scale,)), (64, 64), sample_rng(0, 0, 0)).step
    assert 1 <= q <= 32
    assert abs(q / p - scale) <= (0.02 if scale <= 4 else scale / 50) * scale


@given(scale=st.sampled_from((*PUBLISHED, 0.8, 1.1, 1.2)))
@QUICK
def test_draw_common_scale_is_met_exactly(scale: float) -> None:
    p, q = draw(Augmentation(crop_size=(1, 1), scales=(scale,)), (64, 64), sample_rng(0, 0, 0)).step
    assert q / p == pytest.approx(scale, rel=1e-12)


@given(seed=st.integers(0, 10_000), size=st.tuples(st.integers(1, 60), st.integers(1, 60)))
@QUICK
def test_apply_never_invents_a_label(seed: int, size: tuple[int, int]) -> None:
    image, target = sample(size, seed=seed)
    window = draw(Augmentation(crop_size=(24, 24), scale_range=(0.5, 2.0)), size, sample_rng(seed, 1, 2))
    _, labels = apply(window, image, target, pad_value=(0, 0, 0))
    assert set(labels.unique().tolist()) <= set(target.unique().tolist()) | {255}


@given(seed=st.integers(0, 10_000), size=st.tuples(st.integers(1, 60), st.integers(1, 60)))
@QUICK
def test_apply_flipped_window_is_the_mirror_image(seed: int, size: tuple[int, int]) -> None:
    image, target = sample(size, seed=seed)
    window = draw(Augmentation(crop_size=(24, 31), scale_range=(0.5, 2.0), flip=0.0), size, sample_rng(seed, 0, 0))
    pixels, labels = apply(window, image, target, pad_value=(0.2, 0.4, 0.6))
    mirrored = apply(window._replace(flip=True), image, target, pad_value=(0.2, 0.4, 0.6))
    assert torch.equal(mirrored[0].flip(-1), pixels)
    assert torch.equal(mirrored[1].flip(-1), labels)


def test_apply_crop_larger_than_the_image_centres_it_in_padding() -> None:
    image, target = sample((3, 4))
    window = draw(Augmentation(crop_size=(6, 9), flip=0.0), (3, 4), sample_rng(0, 0, 0))
    pixels, labels = apply(window, image, target, pad_value=(0.0, 0.5, 1.0))
    assert window.corner == (-1, -2)
    assert torch.equal(pixels[:, 1:4, 2:6], image)
    assert torch.equal(labels[1:4, 2:6], target)
    assert pixels[:, 0, 0].tolist() == [0, 128, 255]
    assert (labels == 255).sum() == 6 * 9 - 3 * 4


@pytest.mark.parametrize("wide", [False, True])
def test_apply_pads_with_the_fraction_of_the_full_scale(wide: bool) -> None:
    image, target = sample((1, 1), 1, wide=wide)
    window = draw(Augmentation(crop_size=(2, 2), flip=0.0), (1, 1), sample_rng(0, 0, 0))
    pixels, labels = apply(window, image, target, pad_value=(0.25,))
    fill = 16384 if wide else 64
    assert pixels[0].tolist() == [[image[0, 0, 0].item(), fill], [fill, fill]]
    assert labels.tolist() == [[target[0, 0].item(), 255], [255, 255]]


@pytest.mark.parametrize("scale", [1 / 16, 0.5, 1.0, 2.0, 16.0])
def test_apply_one_pixel_image_stays_one_colour(scale: float) -> None:
    image, target = torch.full((3, 1, 1), 77, dtype=torch.uint8), torch.full((1, 1), 3, dtype=torch.uint8)
    window = draw(Augmentation(crop_size=(4, 4), scales=(scale,)), (1, 1), sample_rng(0, 0, 0))
    pixels, labels = apply(window, image, target, pad_value=(0, 0, 0))
    assert (labels == 3).sum() == (min(4, int(scale)) ** 2 if scale >= 2 else 1)
    assert set(pixels[:, labels == 3].unique().tolist()) == {77}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_apply_line_of_pixels_is_interpolated_along_it(wide: bool, turned: bool) -> None:
    values = torch.tensor([0, 40, 80, 120], dtype=torch.int32 if wide else torch.uint8)
    image = values.view(1, 1, 4) if turned else values.view(1, 4, 1)
    size = tuple(image.shape[1:])
    crop = (2, 8) if turned else (8, 2)
    window = draw(Augmentation(crop_size=crop, scales=(2.0,), flip=0.0), size, sample_rng(0, 0, 0))
    pixels, _ = apply(window, image, torch.zeros(size, dtype=torch.uint8), pad_value=(0,))
    expected = torch.tensor([0, 10, 30, 50, 70, 90, 110, 120])
    lines = pixels[0] if turned else pixels[0].T
    assert (lines - expected).abs().max() <= 0
    assert lines.shape == (2, 8)


def test_apply_result_does_not_share_memory_with_the_sample() -> None:
    image, target = sample((4, 4))
    before = image.clone(), target.clone()
    window = draw(Augmentation(crop_size=(4, 4), flip=0.0), (4, 4), sample_rng(0, 0, 0))
    pixels, labels = apply(window, image, target, pad_value=(0, 0, 0))
    pixels.zero_()
    labels.zero_()
    assert torch.equal(image, before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_part_inside_is_what_apply_shows_between_its_padding(scale: float) -> None:
    image, target = sample((20, 30))
    for seed in range(5):
        augmentation = Augmentation(crop_size=(18, 35), scales=(scale,), flip=0.0)
        window = draw(augmentation, (20, 30), sample_rng(seed, 0, 0))
        pixels, labels = apply(window, image, target, pad_value=(0, 0, 0))
        part, part_labels = part_inside(window, image, target)
        top, left = (max(0, -start) for start in window.corner)
        place = slice(top, top + part.shape[1]), slice(left, left + part.shape[2])
        assert torch.equal(pixels[:, *place], part)
        assert np.array_equal(labels[place].numpy(), part_labels)
        assert (labels == 255).sum() == labels.numel() - part_labels.size


def test_part_inside_of_another_image_raises() -> None:
    window = draw(Augmentation(crop_size=(8, 8)), (9, 9), sample_rng(0, 0, 0))
    with pytest.raises(InvalidValue, match=r"another image: \(9, 8\)"):
        part_inside(window, *sample((9, 8)))


def test_draw_positions_are_uniform_and_flips_have_their_probability() -> None:
    augmentation = Augmentation(crop_size=(8, 8), flip=0.25)
    windows = [draw(augmentation, (8, 11), sample_rng(0, 0, index)) for index in range(2000)]
    counts = np.bincount([window.corner[1] for window in windows], minlength=4)
    assert len(counts) == 4
    assert counts.min() > 430
    assert {window.corner[0] for window in windows} == {0}
    assert 0.21 < np.mean([window.flip for window in windows]) < 0.29


def test_draw_scale_range_is_uniform_in_the_scale() -> None:
    augmentation = Augmentation(crop_size=(1, 1), scale_range=(0.5, 2.0))
    steps = [draw(augmentation, (64, 64), sample_rng(0, 0, index)).step for index in range(2000)]
    scales = np.array([q / p for p, q in steps])
    assert 0.5 <= scales.min() < 0.52
    assert 1.98 < scales.max() <= 2.0
    assert np.mean(scales) == pytest.approx(1.25, abs=0.04)
    assert len(set(steps)) > 250


@given(seed=st.integers(0, 500), scale=st.sampled_from(PUBLISHED))
@QUICK
def test_draw_class_crop_contains_the_rare_class(seed: int, scale: float) -> None:
    target = torch.zeros(60, 70, dtype=torch.uint8)
    target[:5] = 255
    row, column = seed * 7 % 58, seed * 11 % 68
    target[row : row + 2, column : column + 2] = 1  # two pixels wide: visible at half the size
    augmentation = Augmentation(crop_size=(9, 9), scales=(scale,), class_crop=1.0)
    rng = sample_rng(seed, 0, 0)
    window = draw(augmentation, (60, 70), rng, target)
    _, labels = apply(window, torch.zeros(1, 60, 70, dtype=torch.uint8), target, pad_value=(0,))
    found = set(labels.unique().tolist()) - {255}
    assert found, "the crop is placed around a class, so it cannot be all ignored"
    rare = [
        1
        in apply(draw(augmentation, (60, 70), sample_rng(seed, 1, i), target), target[None], target, pad_value=(0,))[1]
        for i in range(40)
    ]
    assert 8 <= sum(rare) <= 38  # one of two classes each time, though 4 of 4,000 pixels


def test_draw_class_crop_of_an_ignored_target_falls_back_to_any_position() -> None:
    target = torch.full((20, 20), 255, dtype=torch.uint8)
    augmentation = Augmentation(crop_size=(8, 8), class_crop=1.0)
    without = Augmentation(crop_size=(8, 8))
    assert draw(augmentation, (20, 20), sample_rng(3, 0, 0), target) == draw(without, (20, 20), sample_rng(3, 0, 0))


@given(scale=st.floats(1 / 16, 16) | st.fractions(1 / 16, 16, max_denominator=70).map(float))
@QUICK
@example(63 / 64)
@example(64 / 63)
@example(64 / 65)
def test_draw_steps_are_the_nearest_fractions_of_the_scales(scale: float) -> None:
    window = draw(Augmentation(crop_size=(8, 8), scales=(scale,)), (900, 900), sample_rng(0, 0, 0))
    nearest = Fraction(1 / scale).limit_denominator(32)
    assert window.step == (nearest.numerator, nearest.denominator)


def test_draw_same_triple_gives_the_same_window_and_others_differ() -> None:
    augmentation = Augmentation(crop_size=(8, 8), scale_range=(0.5, 2.0))
    draws = {
        triple: draw(augmentation, (100, 100), sample_rng(*triple)) for triple in itertools.product(range(3), repeat=3)
    }
    assert len(set(draws.values())) == 27
    assert all(draw(augmentation, (100, 100), sample_rng(*triple)) == window for triple, window in draws.items())


def test_draw_jitter_lies_within_the_strengths() -> None:
    augmentation = Augmentation(crop_size=(8, 8), brightness=0.4, contrast=0.2)
    factors = np.array([draw_jitter(augmentation, sample_rng(0, 0, index)) for index in range(500)])
    assert np.all(factors[:, 2] == 1)
    for column, strength in ((0, 0.4), (1, 0.2)):
        assert 1 - strength <= factors[:, column].min() < 1 - 0.9 * strength
        assert 1 + 0.9 * strength < factors[:, column].max() <= 1 + strength


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_size": (0, 5)}, r"crop_size.*\(0, 5\)"),
        ({"crop_size": (5,)}, r"crop_size.*\(5,\)"),
        ({"scales": (1.0,), "scale_range": (1.0, 2.0)}, "not both"),
        ({"scales": ()}, "scales is empty"),
        ({"scales": (1.0, 0.0)}, r"resize factors.*got 0\.0"),
        ({"scale_range": (2.0, 1.0)}, r"\(smallest, largest\), got \(2\.0, 1\.0\)"),
        ({"scale_range": (0.5, 17.0)}, r"resize factors.*got 17\.0"),
        ({"flip": 1.5}, r"flip lies in \[0, 1\], got 1\.5"),
        ({"brightness": -0.1}, r"brightness.*got -0\.1"),
        ({"class_crop": float("nan")}, "class_crop.*got nan"),
    ],
)
def test_augmentation_outside_its_range_raises(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Augmentation(**{"crop_size": (8, 8), **fields})  # type: ignore[arg-type]


def test_draw_class_crop_without_target_raises() -> None:
    with pytest.raises(InvalidValue, match=r"class_crop 0\.5 needs the target"):
        draw(Augmentation(crop_size=(8, 8), class_crop=0.5), (9, 9), sample_rng(0, 0, 0))


@pytest.mark.parametrize(
    ("image", "target", "pad_value", "message"),
    [
        (torch.zeros(3, 9, 9), torch.zeros(9, 9, dtype=torch.uint8), (0, 0, 0), r"got \(3, 9, 9\) torch.float32"),
        (
            torch.zeros(3, 9, 9, dtype=torch.uint8),
            torch.zeros(9, 8, dtype=torch.uint8),
            (0, 0, 0),
            r"size \(9, 9\).*got \(9, 8\)",
        ),
        (
            torch.zeros(3, 9, 8, dtype=torch.uint8),
            torch.zeros(9, 8, dtype=torch.uint8),
            (0, 0, 0),
            r"another image: \(9, 8\)",
        ),
        (
            torch.zeros(3, 9, 9, dtype=torch.uint8),
            torch.zeros(9, 9, dtype=torch.uint8),
            (124, 117, 104),
            r"fraction.*\(124, 117, 104\)",
        ),
        (torch.zeros(1, 9, 9, dtype=torch.uint8), torch.zeros(9, 9, dtype=torch.uint8), (0, 0), r"per channel \(1\)"),
    ],
)
def test_apply_parts_that_do_not_fit_raise(
    image: Tensor, target: Tensor, pad_value: tuple[float, ...], message: str
) -> None:
    window = draw(Augmentation(crop_size=(8, 8)), (9, 9), sample_rng(0, 0, 0))
    with pytest.raises(InvalidValue, match=message):
        apply(window, image, target, pad_value=pad_value)

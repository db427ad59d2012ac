"""data.elastic against loops over pixels, and its place in the training batches."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.batches import TrainBatches
from perpixel.data.elastic import deform, draw_displacement, with_mirrored_border
from perpixel.data.transforms import Augmentation, apply, draw, draw_jitter, sample_rng
from perpixel.errors import InvalidValue

QUICK = settings(deadline=None, max_examples=40)


def sample(size: tuple[int, int], channels: int = 2, *, wide: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    high, dtype = (65536, torch.int32) if wide else (256, torch.uint8)
    image = torch.randint(0, high, (channels, *size), generator=generator, dtype=dtype)
    return image, torch.randint(0, 7, size, generator=generator, dtype=torch.uint8)


def mirrored(place: float, size: int) -> float:
    """A place as it is after reflection about the edge pixels, as often as needed."""
    while size > 1 and not 0 <= place <= size - 1:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place if size > 1 else 0.0


def deform_plain(
    window: Any, displacement: NDArray[np.float64], image: Tensor, target: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Resizes the whole image, then looks every pixel up by itself."""
    whole = window._replace(crop=window.scaled, corner=(0, 0), flip=False)
    image, target = apply(whole, image, target, pad_value=(0.0,) * len(image))
    size = window.scaled
    pixels = np.zeros((len(image), *window.crop))
    labels = np.zeros(window.crop, dtype=np.uint8)
    for y, x in itertools.product(range(window.crop[0]), range(window.crop[1])):
        start = (y + window.corner[0], x + window.corner[1])
        place = [mirrored(start[a] + displacement[a, y, x], size[a]) for a in range(2)]
        base = [min(math.floor(p), max(0, n - 2)) for p, n in zip(place, size, strict=True)]
        share = [p - b for p, b in zip(place, base, strict=True)]
        for i, j in itertools.product(range(2), range(2)):
            weight = (share[0] if i else 1 - share[0]) * (share[1] if j else 1 - share[1])
            row, column = min(base[0] + i, size[0] - 1), min(base[1] + j, size[1] - 1)
            pixels[:, y, x] += weight * image[:, row, column].numpy()
        labels[y, x] = target[math.floor(place[0] + 0.5), math.floor(place[1] + 0.5)]
    return (pixels[..., ::-1], labels[:, ::-1]) if window.flip else (pixels, labels)


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    crop=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    scale=st.sampled_from([0.5, 1.0, 1.5]),
    strength=st.sampled_from([0.0, 1.0, 20.0]),
    wide=st.booleans(),
    seed=st.integers(0, 10_000),
)
@QUICK
def test_deform_equals_looking_every_pixel_up(
    size: tuple[int, int], crop: tuple[int, int], scale: float, strength: float, wide: bool, seed: int
) -> None:
    augmentation = Augmentation(crop_size=crop, scales=(scale,), elastic=strength)
    rng = sample_rng(seed, 0, 0)
    window = draw(augmentation, size, rng)
    displacement = draw_displacement(augmentation, rng)
    image, target = sample(size, wide=wide, seed=seed)
    ours, labels = deform(window, displacement, image, target)
    expected, expected_labels = deform_plain(window, displacement, image, target)
    assert (ours.shape, ours.dtype) == ((2, *crop), image.dtype)
    rounding = 0.51 if scale == 1.0 else 1.51  # a resized window may differ from the resized image by one grey level
    assert np.abs(ours.numpy() - expected).max() <= rounding
    assert np.array_equal(labels.numpy(), expected_labels)
    assert ours.permute(1, 2, 0).is_contiguous()


def test_deform_without_displacement_is_the_plain_window() -> None:
    augmentation = Augmentation(crop_size=(20, 24), scale_range=(0.5, 2.0))
    image, target = sample((50, 60))
    window = draw(augmentation, (50, 60), sample_rng(4, 0, 0))
    ours = deform(window, np.zeros((2, 20, 24)), image, target)
    plain = apply(window, image, target, pad_value=(0.0, 0.0))
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1], plain[1])


def test_deform_mirrors_where_the_window_leaves_the_image() -> None:
    image, target = sample((6, 8), channels=1)
    window = draw(Augmentation(crop_size=(12, 14), flip=0.0), (6, 8), sample_rng(0, 0, 0))
    ours, labels = deform(window, np.zeros((2, 12, 14)), image, target)
    assert np.array_equal(ours[0].numpy(), np.pad(image[0].numpy(), ((3, 3), (3, 3)), mode="reflect"))
    assert np.array_equal(labels.numpy(), np.pad(target.numpy(), 3, mode="reflect"))


def test_displacement_passes_through_its_grid_and_is_cubic_between() -> None:
    augmentation = Augmentation(crop_size=(9, 5), elastic=2.0)
    field = draw_displacement(augmentation, sample_rng(0, 0, 0))
    grid = 2.0 * sample_rng(0, 0, 0).standard_normal((2, 3, 3))
    assert field[:, ::4, ::2] == pytest.approx(grid)
    # Half-way between two points, Keys' kernel with a = -1/2 weighs (-1, 9, 9, -1) / 16, the edge point repeated.
    weights = np.array([-1 + 9, 9, -1]) / 16
    assert field[:, 2, 0] == pytest.approx(np.einsum("g,cg->c", weights, grid[:, :, 0]))


def test_displacement_has_the_strength_that_was_asked_for() -> None:
    augmentation = Augmentation(crop_size=(3, 3), elastic=10.0)
    drawn = np.stack([draw_displacement(augmentation, sample_rng(0, 0, i)) for i in range(400)])
    assert drawn.std() == pytest.approx(10, rel=0.05)
    assert abs(drawn.mean()) < 0.5


def test_displacement_of_one_pixel_is_the_middle_of_the_grid() -> None:
    field = draw_displacement(Augmentation(crop_size=(1, 1), elastic=1.0), sample_rng(1, 0, 0))
    assert field[:, 0, 0] == pytest.approx(sample_rng(1, 0, 0).standard_normal((2, 3, 3))[:, 1, 1])


@pytest.mark.parametrize("border", [1, 5, 30])
def test_mirrored_border_repeats_no_edge_pixel(border: int) -> None:
    image, target = sample((6, 9))
    pixels, labels = with_mirrored_border(image, target, border)
    for y, x in itertools.product(range(6 + 2 * border), range(9 + 2 * border)):
        row, column = int(mirrored(y - border, 6)), int(mirrored(x - border, 9))
        assert torch.equal(pixels[:, y, x], image[:, row, column])
        assert labels[y, x] == target[row, column]


class Samples:
    """Five images of different sizes."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        image, target = sample((20 + index, 30 - index), channels=1, seed=index)
        return SimpleNamespace(image=image, target=target, name=f"image {index}")


def batches(augmentation: Augmentation, workers: int = 0) -> list[Any]:
    return list(TrainBatches(Samples(), augmentation, batch_size=2, steps=4, seed=3, workers=workers, pad_value=(0.0,)))


@pytest.mark.parametrize("workers", [1, 2])
def test_deformed_batches_are_the_same_for_any_number_of_workers(workers: int) -> None:
    augmentation = Augmentation(
        crop_size=(18, 22), scale_range=(0.5, 2.0), elastic=4.0, mirror=6, brightness=0.3, class_crop=0.5
    )
    for ours, alone in zip(batches(augmentation, workers), batches(augmentation), strict=True):
        assert ours.names == alone.names
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], alone[:3], strict=True))


def test_elastic_leaves_windows_and_colours_of_a_seed_as_they_were() -> None:
    with_field = Augmentation(crop_size=(8, 8), brightness=0.4, elastic=1e-9)
    without = Augmentation(crop_size=(8, 8), brightness=0.4)
    for deformed, plain in zip(batches(with_field), batches(without), strict=True):
        assert torch.equal(deformed.target, plain.target)
        assert torch.equal(deformed.images, plain.images)
        assert torch.equal(deformed.jitter, plain.jitter)
    rng = sample_rng(0, 0, 0)
    draw(without, (9, 9), rng)
    draw_jitter(without, rng)
    assert torch.isfinite(torch.from_numpy(draw_displacement(with_field, rng))).all()


def test_mirror_fills_windows_that_reach_beyond_the_image() -> None:
    large = Augmentation(crop_size=(40, 50), flip=0.0)
    assert all((batch.target == 255).any() for batch in batches(large))
    reaching = Augmentation(crop_size=(40, 50), flip=0.0, mirror=12)
    assert not any((batch.target == 255).any() for batch in batches(reaching))


def test_displacement_of_another_size_is_refused() -> None:
    image, target = sample((9, 9))
    window = draw(Augmentation(crop_size=(8, 8)), (9, 9), sample_rng(0, 0, 0))
    with pytest.raises(InvalidValue, match=r"displacement is \(2, \*\(8, 8\)\), got \(2, 8, 7\)"):
        deform(window, np.zeros((2, 8, 7)), image, target)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"elastic": -1.0}, "elastic is 0 or more pixels .* got -1.0"),
        ({"elastic": float("nan")}, "got nan"),
        ({"elastic_grid": 1}, "elastic_grid 2 or more points, got 0.0 and 1"),
        ({"mirror": -2}, "mirror is 0 or more pixels, got -2"),
    ],
)
def test_augmentation_wrong_elastic_field_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Augmentation(crop_size=(8, 8), **fields)

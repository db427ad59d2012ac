"""data.elastic against loops over pixels, and its place in the training batches."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from perpixel.data.batches import TrainBatches
from perpixel.data.elastic import deform, draw_displacement, rotation_displacement, with_mirrored_border
from perpixel.data.transforms import Augmentation, Window, apply, draw, draw_jitter, sample_rng
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
    window: Window, displacement: NDArray[np.float64], image: Tensor, target: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Looks every pixel up by itself: in the resized image where the window shrinks it, else in the image as it is.

    Labels (4, H, W) are those around a place that is half way between rows or columns, else the same four times.
    """
    (p, q), size = window.step, (image.shape[1], image.shape[2])
    if p > q:
        whole = window._replace(crop=window.scaled, corner=(0, 0), flip=False)
        image, target = apply(whole, image, target, pad_value=(0.0,) * len(image))
        p, q, size = 1, 1, window.scaled
    pixels = np.zeros((len(image), *window.crop))
    labels = np.zeros((4, *window.crop), dtype=np.uint8)
    for y, x in itertools.product(range(window.crop[0]), range(window.crop[1])):
        start = (y + window.corner[0], x + window.corner[1])
        moved = [start[a] + displacement[a, y, x] for a in range(2)]
        place = [mirrored(m if p == q else (m + 0.5) * (p / q) - 0.5, n) for m, n in zip(moved, size, strict=True)]
        base = [min(math.floor(p), max(0, n - 2)) for p, n in zip(place, size, strict=True)]
        share = [p - b for p, b in zip(place, base, strict=True)]
        for i, j in itertools.product(range(2), range(2)):
            weight = (share[0] if i else 1 - share[0]) * (share[1] if j else 1 - share[1])
            row, column = min(base[0] + i, size[0] - 1), min(base[1] + j, size[1] - 1)
            pixels[:, y, x] += weight * image[:, row, column].numpy()
        for side, halves in enumerate(itertools.product((0.5 - 1e-9, 0.5 + 1e-9), repeat=2)):
            row, column = (min(math.floor(p + h), n - 1) for p, h, n in zip(place, halves, size, strict=True))
            labels[side, y, x] = target[row, column]
    return (pixels[..., ::-1], labels[..., ::-1]) if window.flip else (pixels, labels)


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    crop=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    scale=st.sampled_from([0.5, 1.0, 1.5]),
    strength=st.sampled_from([0.0, 1.0, 20.0]),
    rotation=st.sampled_from([0.0, 30.0, 180.0]),
    wide=st.booleans(),
    seed=st.integers(0, 10_000),
)
@example(size=(3, 2), crop=(5, 1), scale=1.5, strength=0.0, rotation=0.0, wide=False, seed=0)  # half way, mirrored
@QUICK
def test_deform_equals_looking_every_pixel_up(
    size: tuple[int, int], crop: tuple[int, int], scale: float, strength: float, rotation: float, wide: bool, seed: int
) -> None:
    augmentation = Augmentation(crop_size=crop, scales=(scale,), elastic=strength, rotation=rotation)
    rng = sample_rng(seed, 0, 0)
    window = draw(augmentation, size, rng)
    displacement = draw_displacement(augmentation, rng)
    image, target = sample(size, wide=wide, seed=seed)
    ours, labels = deform(window, displacement, image, target)
    expected, expected_labels = deform_plain(window, displacement, image, target)
    assert (ours.shape, ours.dtype) == ((2, *crop), image.dtype)
    rounding = 1.51 if scale < 1 else 0.51  # a resized window may differ from the resized image by one grey level
    assert np.abs(ours.numpy() - expected).max() <= rounding
    assert (labels.numpy() == expected_labels).any(0).all()
    assert ours.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize(("seed", "enlarges"), [(5, False), (4, True)])
def test_deform_without_displacement_is_the_plain_window(seed: int, enlarges: bool) -> None:
    augmentation = Augmentation(crop_size=(20, 24), scale_range=(0.5, 2.0))
    image, target = sample((50, 60))
    window = draw(augmentation, (50, 60), sample_rng(seed, 0, 0))
    assert (window.step[0] < window.step[1]) == enlarges
    ours = deform(window, np.zeros((2, 20, 24)), image, target)
    plain = apply(window, image, target, pad_value=(0.0, 0.0))
    levels = abs(ours[0].numpy().astype(int) - plain[0].numpy())
    assert levels.max() <= int(enlarges)  # the kernel that enlarges rounds its weights
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


def test_rotation_by_90_degrees_by_hand_turns_image_and_mask_counter_clockwise() -> None:
    image = torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], dtype=torch.uint8)
    window = draw(Augmentation(crop_size=(3, 3), flip=0.0), (3, 3), sample_rng(0, 0, 0))
    turned, labels = deform(window, rotation_displacement(90, (3, 3)), image, image[0] + 100)
    assert turned[0].tolist() == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]
    assert labels.tolist() == [[103, 106, 109], [102, 105, 108], [101, 104, 107]]


@pytest.mark.parametrize("quarters", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("side", [8, 9])
def test_rotation_by_quarter_turns_is_exact(quarters: int, side: int) -> None:
    image, target = sample((side, side))
    window = draw(Augmentation(crop_size=(side, side), flip=0.0), (side, side), sample_rng(0, 0, 0))
    turned, labels = deform(window, rotation_displacement(90 * quarters, (side, side)), image, target)
    assert torch.equal(turned, torch.rot90(image, quarters, (1, 2)))
    assert torch.equal(labels, torch.rot90(target, quarters))


def test_rotation_of_a_wide_window_shows_the_mirrored_image_beyond_its_edges() -> None:
    """Turned by 90 degrees, rows read the image's column from the top down, two pixels beyond each edge of three."""
    image = torch.arange(1, 6, dtype=torch.uint8).expand(1, 1, 5).clone()
    window = draw(Augmentation(crop_size=(1, 5), flip=0.0), (1, 5), sample_rng(0, 0, 0))
    turned, _ = deform(window, rotation_displacement(90, (1, 5)), image, image[0])
    assert turned.tolist() == [[[3, 3, 3, 3, 3]]]
    column = torch.arange(1, 4, dtype=torch.uint8).view(1, 3, 1).expand(1, 3, 7).clone()
    window = draw(Augmentation(crop_size=(3, 7), flip=0.0), (3, 7), sample_rng(0, 0, 0))
    turned, labels = deform(window, rotation_displacement(90, (3, 7)), column, column[0])
    assert turned[0].tolist() == labels.tolist() == [[3, 2, 1, 2, 3, 2, 1]] * 3


def test_rotation_keeps_image_and_mask_together_at_any_angle() -> None:
    """A mask that is the image's own bright half stays that, up to the interpolated pixels of the edge."""
    target = torch.zeros(40, 40, dtype=torch.uint8)
    target[:, 20:] = 1
    window = draw(Augmentation(crop_size=(40, 40), flip=0.0), (40, 40), sample_rng(0, 0, 0))
    turned, labels = deform(window, rotation_displacement(33.0, (40, 40)), 200 * target[None], target)
    assert torch.equal((turned[0] > 100).to(torch.uint8), labels)
    assert labels[0, 0] == 0 and labels[5, 20] == 1 and labels[35, 20] == 0  # the right half has turned upwards


def test_rotation_angles_are_uniform_either_way_up_to_the_limit() -> None:
    augmentation = Augmentation(crop_size=(3, 3), rotation=60.0)
    drawn = np.stack([draw_displacement(augmentation, sample_rng(0, 0, i)) for i in range(400)])
    angles = np.degrees(np.arctan2(drawn[:, 0, 1, 2], drawn[:, 1, 1, 2] + 1))  # one pixel right of the centre
    assert np.abs(angles).max() <= 60
    assert np.histogram(angles, bins=4, range=(-60, 60))[0].min() > 70
    assert abs(drawn[:, :, 1, 1]).max() == 0  # the centre stays


def test_rotation_leaves_everything_else_of_a_seed_as_it_was() -> None:
    settings_of_both: dict[str, Any] = {"crop_size": (8, 8), "brightness": 0.4, "elastic": 3.0, "scale_range": (0.5, 2)}
    without, tiny = Augmentation(**settings_of_both), Augmentation(**settings_of_both, rotation=1e-9)
    for turned, plain in zip(batches(tiny), batches(without), strict=True):
        assert torch.equal(turned.target, plain.target)
        assert torch.equal(turned.images, plain.images)
        assert torch.equal(turned.jitter, plain.jitter)
    alone = draw_displacement(Augmentation(crop_size=(8, 8), rotation=90.0), sample_rng(0, 0, 0))
    both = draw_displacement(Augmentation(crop_size=(8, 8), rotation=90.0, elastic=3.0), sample_rng(0, 0, 0))
    grid = draw_displacement(Augmentation(crop_size=(8, 8), elastic=3.0), sample_rng(0, 0, 0))
    assert both == pytest.approx(grid + alone)


def test_rotation_without_elastic_turns_the_batches() -> None:
    plain = Augmentation(crop_size=(18, 18), flip=0.0)
    turned = Augmentation(crop_size=(18, 18), flip=0.0, rotation=180.0)
    pairs = list(zip(batches(turned), batches(plain), strict=True))
    assert all(not torch.equal(ours.images, theirs.images) for ours, theirs in pairs)
    assert not any((ours.target == 255).any() for ours, _ in pairs)


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
        crop_size=(18, 22), scale_range=(0.5, 2.0), elastic=4.0, rotation=180, mirror=6, brightness=0.3, class_crop=0.5
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
        ({"rotation": -1.0}, r"rotation .* in \[0, 180\] degrees, got -1.0"),
        ({"rotation": 181}, "got 181"),
        ({"rotation": float("nan")}, "degrees, got nan"),
        ({"mirror": -2}, "mirror is 0 or more pixels, got -2"),
    ],
)
def test_augmentation_wrong_elastic_field_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Augmentation(crop_size=(8, 8), **fields)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.int32)])
def test_deform_reads_bit_for_bit_as_scipy_does(channels: int, dtype: Any, halves: bool) -> None:
    rng = np.random.default_rng(channels)
    for height, width in ((1, 6), (2, 2), (17, 23)):
        pixels = rng.integers(0, 256 if dtype == np.uint8 else 65536, (height, width, channels)).astype(dtype)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        target = torch.from_numpy(rng.integers(0, 9, (height, width), np.uint8))
        window = Window((1, 1), (height, width), (11, 13), (-2, 3), False)
        places = rng.uniform(-4 * height, 4 * height, (2, 11, 13))
        if halves:
            places = np.round(places * 2) / 2
        corner = np.stack(np.meshgrid(np.arange(-2, 9), np.arange(3, 16), indexing="ij"))
        result, labels = deform(window, places - corner, image, target)
        for channel in range(channels):
            read = ndimage.map_coordinates(
                pixels[..., channel], list(places), output=np.float32, order=1, mode="mirror"
            )
            assert np.array_equal(result[channel].numpy(), np.rint(read).astype(dtype))
        read = ndimage.map_coordinates(target.numpy(), list(places), order=0, mode="mirror")
        assert np.array_equal(labels.numpy(), read)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("step", [(2, 3), (5, 8)])
def test_deform_of_an_enlarging_window_reads_the_image_once_bit_for_bit_as_scipy_does(
    step: tuple[int, int], flip: bool
) -> None:
    image, target = sample((17, 23), channels=3)
    p, q = step
    window = Window(step, (17 * q // p, 23 * q // p), (12, 15), (9, -3), flip)
    field = np.random.default_rng(p).normal(0, 5, (2, 12, 15))
    corner = np.stack(np.meshgrid(np.arange(9, 21), np.arange(-3, 12), indexing="ij"))
    places = list((field + corner + 0.5) * (p / q) - 0.5)
    result, labels = deform(window, field, image, target)
    read = [
        ndimage.map_coordinates(plane.numpy(), places, output=np.float32, order=1, mode="mirror") for plane in image
    ]
    expected = np.rint(np.stack(read)).astype(np.uint8)
    found = ndimage.map_coordinates(target.numpy(), places, order=0, mode="mirror")
    assert np.array_equal(result.numpy(), expected[..., ::-1] if flip else expected)
    assert np.array_equal(labels.numpy(), found[:, ::-1] if flip else found)


@pytest.mark.parametrize(("band", "many"), [(30, 1), (50, 1 << 15), (7, 400)])
def test_deform_in_several_bands_gives_the_same(band: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, target = sample((40, 60), channels=3)
    augmentation = Augmentation(crop_size=(21, 26), scale_range=(0.5, 2.0), elastic=6.0, rotation=30)
    for seed in range(6):
        rng = sample_rng(seed, 0, 0)
        window = draw(augmentation, (40, 60), rng)
        field = draw_displacement(augmentation, rng)
        with monkeypatch.context() as patch:
            whole = deform(window, field, image, target)
            patch.setattr("perpixel.data.augment.resample._BAND", band)
            patch.setattr("perpixel.data.elastic._MANY", many)
            pieces = deform(window, field, image, target)
        assert all(torch.equal(a, b) for a, b in zip(pieces, whole, strict=True))

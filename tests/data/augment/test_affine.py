"""data.augment.affine and resample against float64 loops over pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from perpixel.data.augment.affine import AffineMap, draw_affine, warp
from perpixel.data.augment.resample import Slope, bands, mirrored_span, read
from perpixel.data.augment.settings import Augment
from perpixel.data.transforms import Augmentation, Window, apply, draw
from perpixel.errors import InvalidValue

IDENTITY = AffineMap(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0))
PADS = (0.5, 0.25, 1.0)
LEVELS = (128, 64, 255)


def sample(height: int = 23, width: int = 31, channels: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(rng.integers(0, 5, (height, width), np.uint8))


def whole(image: torch.Tensor) -> Window:
    size = image.shape[1], image.shape[2]
    return Window((1, 1), size, size, (0, 0), False)


def plain_read(
    pixels: NDArray[Any], labels: NDArray[np.uint8], row: float, column: float, levels: tuple[int, ...] | None
) -> tuple[NDArray[np.float64], int]:
    """The twin: bilinear value and nearest label at one place, in float64."""
    height, width = labels.shape
    if levels is None:
        row, column = reflect(row, height), reflect(column, width)

    def at(y: int, x: int) -> tuple[NDArray[np.float64], int]:
        if levels is None:  # weight 0
            y, x = min(y, height - 1), min(x, width - 1)
        if not (0 <= y < height and 0 <= x < width):
            return np.array(levels, dtype=np.float64), 255
        return pixels[y, x].astype(np.float64), int(labels[y, x])

    top, left = math.floor(row), math.floor(column)
    down, right = row - top, column - left
    value = (1 - down) * ((1 - right) * at(top, left)[0] + right * at(top, left + 1)[0])
    value = value + down * ((1 - right) * at(top + 1, left)[0] + right * at(top + 1, left + 1)[0])
    return value, at(math.floor(row + 0.5), math.floor(column + 0.5))[1]


def reflect(place: float, size: int) -> float:
    period = 2 * (size - 1)
    place %= period
    return min(place, period - place)


def near_half(*places: float) -> bool:
    return any(abs(place % 1 - 0.5) < 1e-4 for place in places)


@pytest.mark.parametrize("levels", [LEVELS, None], ids=["fill", "mirror"])
@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (3, np.uint8), (4, np.uint8), (3, np.int32)]
)
def test_read_agrees_with_the_plain_twin(channels: int, dtype: Any, levels: tuple[int, ...] | None) -> None:
    rng = np.random.default_rng(channels)
    scale = 257 if dtype == np.int32 else 1
    pixels = rng.integers(0, 256, (9, 7, channels)).astype(dtype) * scale
    labels = rng.integers(0, 6, (9, 7), np.uint8)
    rows = (rng.integers(-9 * 64, 18 * 64, (13, 17)) / 64).astype(np.float32)
    columns = (rng.integers(-7 * 64, 14 * 64, (13, 17)) / 64).astype(np.float32)
    fill = None if levels is None else (*levels, 9)[:channels]
    image, found = read(torch.from_numpy(pixels).permute(2, 0, 1), labels, rows, columns, levels=fill)
    assert image.numpy().dtype == dtype
    assert image.shape == (channels, 13, 17)
    assert image.permute(1, 2, 0).is_contiguous()
    for i, j in np.ndindex(rows.shape):
        value, label = plain_read(pixels, labels, rows[i, j], columns[i, j], fill)
        assert abs(image[:, i, j].numpy() - value).max() <= 0.5 + 0.002 * scale
        assert found[i, j] == label


def test_read_source_of_one_pixel_is_mirrored_to_itself() -> None:
    image, labels = torch.full((3, 1, 1), 7, dtype=torch.uint8), np.full((1, 1), 2, np.uint8)
    rows = np.array([[-3.5, 0, 20]], np.float32)
    pixels, found = read(image, labels, rows, rows, levels=None)
    assert (pixels == 7).all()
    assert (found == 2).all()


def test_read_results_are_not_overwritten_by_the_next_call() -> None:
    image, target = sample()
    rows, columns = (np.ascontiguousarray(a, dtype=np.float32) for a in np.indices(target.shape))
    first = read(image, target.numpy(), rows, columns, levels=LEVELS)
    assert torch.equal(first[0], image)
    assert (first[1] == target.numpy()).all()
    read(255 - image, target.numpy() + 1, rows, columns, levels=LEVELS)
    assert torch.equal(first[0], image)
    assert (first[1] == target.numpy()).all()


@pytest.mark.parametrize(("low", "high", "span"), [(-3.2, 4.5, (0, 6)), (2.5, 11.5, (2, 10)), (-40.0, -30.0, (0, 10))])
def test_mirrored_span_holds_what_the_mirror_shows(low: float, high: float, span: tuple[int, int]) -> None:
    assert mirrored_span(low, high, 10) == span


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("border", ["fill", "mirror"])
def test_warp_identity_inside_the_image_is_apply(border: Any, flip: bool) -> None:
    image, target = sample()
    window = Window((1, 1), (23, 31), (11, 13), (4, 9), flip)
    expected = apply(window, image, target, pad_value=PADS)
    result = warp(window, IDENTITY, None, image, target, border=border, pad_value=PADS)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("step", [(1, 1), (2, 3), (3, 2)], ids=["same", "enlarges", "shrinks"])
@pytest.mark.parametrize("border", ["fill", "mirror"])
@pytest.mark.parametrize("bent", [False, True])
def test_warp_agrees_with_the_plain_twin(bent: bool, border: Any, step: tuple[int, int], flip: bool) -> None:
    image, target = sample(24, 30)
    p, q = step
    scaled = 24 * q // p, 30 * q // p
    window = Window(step, scaled, (15, 12), (3, -2), flip)
    settings_ = Augment(affine=1, rotate=40, shear=10, stretch=1.2, translate=0.1)
    affine = draw_affine(settings_, window.crop, np.random.default_rng(3))
    field = np.random.default_rng(4).normal(0, 1, (2, 15, 12)) * bent
    result, labels = warp(window, affine, field if bent else None, image, target, border=border, pad_value=PADS)
    if q < p:  # a shrinking window reads the antialiased image of its size
        everything = Window(step, scaled, scaled, (0, 0), False)
        image, target = apply(everything, image, target, pad_value=PADS)
        p = q = 1
    pixels = np.moveaxis(image.numpy(), 0, -1)
    for i in range(15):
        for j in range(12):
            seen = 11 - j if flip else j
            offset = np.array([i - 7, seen - 5.5]) - affine.shift
            place = np.array(window.corner) + (7, 5.5) + np.array(affine.matrix) @ offset + field[:, i, seen]
            y, x = (place + 0.5) * p / q - 0.5
            value, label = plain_read(pixels, target.numpy(), y, x, LEVELS if border == "fill" else None)
            assert abs(result[:, i, j].numpy() - value).max() <= 0.52
            assert labels[i, j] == label or near_half(y, x)


@pytest.mark.parametrize("degrees", [90, 180])
def test_draw_affine_quarter_turn_moves_whole_pixels(degrees: int) -> None:
    image, target = sample(17, 17)

    class Always:
        def random(self, count: int) -> NDArray[np.float64]:
            return np.array([1.0] + [0.5] * (count - 1))

    affine = draw_affine(Augment(affine=1, rotate=degrees), (17, 17), Always())  # type: ignore[arg-type]
    result, labels = warp(whole(image), affine, None, image, target, border="fill", pad_value=PADS)
    turns = degrees // 90
    assert torch.equal(labels, target.rot90(turns))
    assert torch.equal(result, image.rot90(turns, dims=(1, 2)))


def test_draw_affine_translation_moves_content_down_and_right_and_fills() -> None:
    image, target = sample(10, 10)
    affine = AffineMap(IDENTITY.matrix, (3.0, 2.0))
    result, labels = warp(whole(image), affine, None, image, target, border="fill", pad_value=PADS)
    assert torch.equal(labels[3:, 2:], target[:-3, :-2])
    assert (labels[:3] == 255).all()
    assert (labels[:, :2] == 255).all()
    assert (result[:, :3].permute(1, 2, 0).numpy() == LEVELS).all()


def test_draw_affine_keeps_area_but_for_nothing_and_stays_in_its_ranges() -> None:
    rng = np.random.default_rng(0)
    settings_ = Augment(affine=1, rotate=20, shear=15, stretch=1.5, translate=0.2)
    for _ in range(50):
        affine = draw_affine(settings_, (40, 20), rng)
        assert abs(np.linalg.det(np.array(affine.matrix)) - 1) < 1e-9
        assert abs(affine.shift[0]) <= 8
        assert abs(affine.shift[1]) <= 4


def test_warp_whole_window_outside_the_image_is_filled() -> None:
    image, target = sample(6, 6)
    affine = AffineMap(IDENTITY.matrix, (50.0, 0.0))
    result, labels = warp(whole(image), affine, None, image, target, border="fill", pad_value=PADS)
    assert (labels == 255).all()
    assert (result.permute(1, 2, 0).numpy() == LEVELS).all()


def test_warp_displacement_of_another_size_raises() -> None:
    image, target = sample()
    with pytest.raises(InvalidValue, match=r"the displacement is \(2, \*\(23, 31\)\)"):
        warp(whole(image), IDENTITY, np.zeros((2, 3, 3)), image, target, border="fill", pad_value=PADS)


def test_warp_place_that_overflows_raises() -> None:
    image, target = sample()
    field = np.full((2, 23, 31), 1e8)
    with pytest.raises(InvalidValue, match="use a smaller crop, or less shear, translate or elastic"):
        warp(whole(image), IDENTITY, field, image, target, border="fill", pad_value=PADS)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0]), mirrored=st.booleans())
def test_warp_image_and_labels_stay_aligned_and_no_id_is_new(seed: int, scale: float, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    ramp = np.arange(40) * 6  # a column's colour says which column it is, and so which label
    labels = np.tile((np.arange(40) // 8).astype(np.uint8), (32, 1))
    image = torch.from_numpy(np.tile(ramp[None, :, None], (32, 1, 3)).astype(np.uint8)).permute(2, 0, 1)
    window = draw(Augmentation(crop_size=(20, 24), scales=(scale,)), (32, 40), rng)
    affine = draw_affine(Augment(affine=1, rotate=180, shear=20, stretch=1.3, translate=0.3), (20, 24), rng)
    border: Any = "mirror" if mirrored else "fill"
    pixels, target = warp(
        window, affine, None, image, torch.from_numpy(labels), border=border, pad_value=(1.0, 1.0, 1.0)
    )
    found = target.numpy()
    assert set(np.unique(found).tolist()) <= {0, 1, 2, 3, 4, 255}
    assert not (mirrored and (found == 255).any())
    inside = ndimage.binary_erosion(found != 255, np.ones((3, 3)), 2)  # beside what is filled, colours are blended
    column = pixels[0].numpy() / 6
    low, high = np.floor((column - 1.5) / 8), np.floor((column + 1.5) / 8)
    assert ((low <= found) & (found <= high))[inside].all()


@pytest.mark.parametrize("band", [7, 60])
@pytest.mark.parametrize("border", ["fill", "mirror"])
def test_warp_in_several_bands_gives_the_same(border: Any, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, target = sample(40, 60)
    for seed, scale in enumerate((0.5, 1.0, 1.5)):
        rng = np.random.default_rng(seed)
        window = draw(Augmentation(crop_size=(21, 26), scales=(scale,)), (40, 60), rng)
        affine = draw_affine(Augment(affine=1, rotate=180, shear=20, translate=0.3), (21, 26), rng)
        with monkeypatch.context() as patch:
            whole = warp(window, affine, None, image, target, border=border, pad_value=PADS)
            patch.setattr("perpixel.data.augment.resample._BAND", band)
            pieces = warp(window, affine, None, image, target, border=border, pad_value=PADS)
        assert all(torch.equal(a, b) for a, b in zip(pieces, whole, strict=True))


@pytest.mark.parametrize("flip", [False, True])
def test_warp_of_a_large_window_agrees_with_scipy(flip: bool) -> None:
    """As large as training windows are, where places are rounded most and the bands are several."""
    image, target = sample(360, 480)
    window = Window((2, 3), (540, 720), (320, 320), (100, 150), flip)
    affine = draw_affine(Augment(affine=1, rotate=40, shear=10), (320, 320), np.random.default_rng(3))
    result, labels = warp(window, affine, None, image, target, border="fill", pad_value=PADS)
    seen = np.arange(320)[::-1] if flip else np.arange(320)
    offsets = np.stack(np.meshgrid(np.arange(320) - 159.5, seen - 159.5, indexing="ij"))
    middle = np.array(window.corner).reshape(2, 1, 1) + 159.5
    places = (np.tensordot(np.array(affine.matrix), offsets, 1) + middle + 0.5) * (2 / 3) - 0.5
    assert places.min() > 0 and places[0].max() < 359 and places[1].max() < 479
    for plane, found in zip(image.numpy(), result.numpy(), strict=True):
        read_there = ndimage.map_coordinates(plane, list(places), output=np.float64, order=1)
        assert abs(found - read_there).max() <= 0.52
    nearest = ndimage.map_coordinates(target.numpy(), list(places), order=0)
    halfway = (abs(places % 1 - 0.5) < 0.01).any(0)  # Pillow adds up steps in 1 / 65536 of a pixel
    assert ((labels.numpy() == nearest) | halfway).all()


@pytest.mark.parametrize("shape", [(1, 1), (320, 320), (3, 1 << 17), (1 << 17, 3), (1000, 333)])
def test_bands_cover_every_row_once_and_none_is_empty(shape: tuple[int, int]) -> None:
    found = list(bands(shape))
    assert [row for band in found for row in range(shape[0])[band]] == list(range(shape[0]))
    assert all(band.start < band.stop <= shape[0] for band in found)


def test_slope_extremes_and_sums_are_those_of_its_pixels() -> None:
    slope = Slope(3.0, -0.5, 0.25)
    places = [[3.0 - 0.5 * (i - 2) + 0.25 * (j - 1.5) for j in range(4)] for i in range(5)]
    assert slope.extremes((5, 4)) == (min(map(min, places)), max(map(max, places)))
    down, right = slope.sides((5, 4), 2.0, 1.0)
    assert (down + right == 2 * np.array(places, dtype=np.float32) + 1).all()


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_warp_window_of_another_image_raises(scale: float) -> None:
    window = draw(Augmentation(crop_size=(8, 8), scales=(scale,)), (20, 20), np.random.default_rng(0))
    with pytest.raises(InvalidValue, match="the window was drawn for another image"):
        warp(window, IDENTITY, None, *sample(20, 24), border="fill", pad_value=PADS)

"""Which pixels a polygon covers: worked by hand, against a plain twin, Pillow, OpenCV and the COCO API."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from perpixel.data.annotations.rasterise import ellipse_region, fill_polygon, fill_rings, ring_region
from perpixel.errors import InvalidValue

# The oracle calls NumPy in a way that NumPy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

coordinates = st.floats(-6, 18, allow_nan=False, width=32) | st.integers(-6, 18).map(float)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


def filled(points: list, size: tuple[int, int] = (12, 12), *, rule: str = "centres") -> np.ndarray:
    mask = np.zeros(size, dtype=np.uint8)
    fill_polygon(mask, points, 1, rule=rule)
    return mask


def inside_by_crossings(rings: list[list[tuple[float, float]]], size: tuple[int, int]) -> np.ndarray:
    """The plain twin: counts, pixel by pixel, the edges left of the centre or through it."""
    covered = np.zeros(size, dtype=np.uint8)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, odd = column + 0.5, row + 0.5, False
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
                    if y0 > y1:
                        (x0, y0), (x1, y1) = (x1, y1), (x0, y0)
                    if y0 <= y < y1 and x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) <= x:
                        odd = not odd
            covered[row, column] = odd
    return covered


def distance_to_outline(points: list, size: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel centre from the outline, pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    best = np.full(size, np.inf)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = ((columns - x0) * (x1 - x0) + (rows - y0) * (y1 - y0)) / length if length else np.zeros(size)
        along = np.clip(along, 0, 1)
        best = np.minimum(best, np.hypot(columns - x0 - along * (x1 - x0), rows - y0 - along * (y1 - y0)))
    return best


def test_fill_polygon_whole_corners_cover_what_lies_between_them() -> None:
    assert filled([(1, 1), (4, 1), (4, 3), (1, 3)], (5, 6)).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_fill_polygon_triangle_takes_the_centres_inside_and_on_its_left_edge() -> None:
    # The long side runs through the centres (3.5, 0.5), (2.5, 1.5)…, and they are on the right: left out.
    assert filled([(0, 0), (4, 0), (0, 4)], (4, 4)).tolist() == [
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    # The other half of the square has the same centres on its left edge: they are in.
    assert filled([(4, 0), (4, 4), (0, 4)], (4, 4)).tolist() == [
        [0, 0, 0, 1],
        [0, 0, 1, 1],
        [0, 1, 1, 1],
        [1, 1, 1, 1],
    ]


def test_fill_polygon_half_pixel_corners_take_the_upper_left_centre_and_not_the_lower_right() -> None:
    assert filled([(0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)], (3, 3)).tolist() == [
        [1, 1, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]


def test_fill_polygon_self_crossing_is_filled_by_the_even_odd_rule() -> None:
    star = [(6 + 6 * np.sin(a), 6 - 6 * np.cos(a)) for a in np.arange(5) * 4 * np.pi / 5]
    assert filled(star)[6, 6] == 0
    assert filled(star)[2, 6] == 1


def test_fill_polygon_outside_is_cut_off_and_the_rest_stays() -> None:
    mask = np.full((3, 3), 7, dtype=np.uint16)
    fill_polygon(mask, [(-5, 1), (2, 1), (2, 90), (-5, 90)], 300)
    assert mask.tolist() == [[7, 7, 7], [300, 300, 7], [300, 300, 7]]
    fill_polygon(mask, [(50, 50), (60, 50), (60, 60)], 1)
    assert 1 not in mask


def test_fill_rings_inner_outline_is_a_hole() -> None:
    mask = np.zeros((5, 5), dtype=np.uint8)
    outer, inner = [(0, 0), (5, 0), (5, 5), (0, 5)], [(1, 1), (1, 4), (4, 4), (4, 1)]
    fill_rings(mask, [outer, inner], 1)
    assert mask.sum() == 25 - 9
    assert mask[2, 2] == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(polygons, min_size=1, max_size=3))
def test_fill_rings_agrees_with_its_plain_twin(rings: list) -> None:
    mask = np.zeros((12, 13), dtype=np.uint8)
    fill_rings(mask, rings, 1)
    np.testing.assert_array_equal(mask, inside_by_crossings(rings, mask.shape))


def test_fill_polygon_many_edges_in_pieces_agree_with_its_plain_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.data.annotations.rasterise._CROSSINGS_AT_ONCE", 7)
    points = np.random.default_rng(0).uniform(-3, 15, (40, 2))
    np.testing.assert_array_equal(filled(points), inside_by_crossings([points.tolist()], (12, 12)))


@settings(max_examples=60, deadline=None)
@given(polygons, st.integers(0, 100))
def test_fill_polygon_polygons_that_share_an_edge_share_out_the_pixels(points: list, seed: int) -> None:
    """A fan of triangles around any point covers each pixel as often, modulo two, as the polygon does."""
    hub = tuple(np.random.default_rng(seed).uniform(-6, 18, 2).tolist())
    fan = sum(filled([hub, a, b]) for a, b in zip(points, [*points[1:], points[0]], strict=True))
    np.testing.assert_array_equal(fan % 2, filled(points))


@settings(max_examples=60, deadline=None)
@given(polygons)
def test_fill_polygon_direction_and_start_change_nothing(points: list) -> None:
    expected = filled(points)
    np.testing.assert_array_equal(filled(points[::-1]), expected)
    np.testing.assert_array_equal(filled([*points[2:], *points[:2]]), expected)


def convex(seed: int) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
    x, y = rng.uniform(8, 22, 2)
    radius = rng.uniform(3, 12)
    return [(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles]


@pytest.mark.parametrize("seed", range(25))
def test_fill_polygon_other_libraries_differ_within_a_pixel_of_the_outline(seed: int) -> None:
    points, size = convex(seed), (30, 30)
    ours, near = filled(points, size), distance_to_outline(points, size)
    # OpenCV counts coordinates from the centre of the first pixel, and takes sixteenths.
    fixed = np.round((np.array(points) - 0.5) * 16).astype(np.int32)
    opencv = cv2.fillPoly(np.zeros(size, np.uint8), [fixed], 1, shift=4)
    runs = coco_masks.frPyObjects([np.array(points).reshape(-1).tolist()], *size)[0]
    assert near[opencv != ours].max(initial=0) <= 1
    assert near[coco_masks.decode(runs) != ours].max(initial=0) <= 1
    # Pillow cuts coordinates to whole numbers, by up to a pixel in either direction, and paints the outline.
    assert near[filled(points, size, rule="pil") != ours].max(initial=0) <= 2.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=9))
def test_fill_polygon_pil_rule_is_what_pillow_paints(points: list) -> None:
    picture = Image.new("L", (13, 12))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in points], fill=1)
    np.testing.assert_array_equal(filled(points, (12, 13), rule="pil"), np.asarray(picture))


def test_fill_rings_pil_rule_cuts_holes() -> None:
    mask = np.zeros((9, 9), dtype=np.uint8)
    fill_rings(mask, [[(0, 0), (8, 0), (8, 8), (0, 8)], [(3, 3), (5, 3), (5, 5), (3, 5)]], 2, rule="pil")
    assert (mask == 2).sum() == 81 - 9


def test_ring_region_is_no_larger_than_the_polygon() -> None:
    row, column, covered = ring_region([[(3, 2), (6, 2), (6, 4), (3, 4)]], (1000, 1000))
    assert (row, column, covered.shape, covered.all()) == (2, 3, (2, 3), True)


def test_ellipse_region_covers_the_centres_inside() -> None:
    row, column, covered = ellipse_region((2.5, 2.5), (2.0, 1.0), 0.0, (5, 5))
    mask = np.zeros((5, 5), bool)
    mask[row : row + covered.shape[0], column : column + covered.shape[1]] = covered
    assert mask.astype(int).tolist() == [[0] * 5, [0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0] * 5]


@pytest.mark.parametrize("rotation", [0.0, 30.0, 90.0, -45.0])
def test_ellipse_region_is_the_polygon_with_many_corners(rotation: float) -> None:
    angle, turn = np.linspace(0, 2 * np.pi, 720, endpoint=False), np.deg2rad(rotation)
    x, y = 9.3 * np.cos(angle), 4.2 * np.sin(angle)
    points = np.stack([15 + x * np.cos(turn) - y * np.sin(turn), 14 + x * np.sin(turn) + y * np.cos(turn)], axis=1)
    row, column, covered = ellipse_region((15, 14), (9.3, 4.2), rotation, (30, 20))
    mask = np.zeros((30, 20), np.uint8)
    mask[row : row + covered.shape[0], column : column + covered.shape[1]] = covered
    assert (mask != filled(points, (30, 20))).sum() <= 1


@pytest.mark.parametrize(
    "points, message",
    [
        ([(0, 0), (1, 1)], "N >= 3"),
        ([0, 0, 4, 0, 4, 4], r"shape \(6,\)"),
        ([(0, 0), (float("nan"), 0), (4, 4)], r"finite .* got \[nan, 0.0\]"),
        ([(0, 0), (4, float("inf")), (4, 4)], "inf"),
        ([(0, 0), (1e8, 0), (4, 4)], "100000000"),
    ],
)
def test_fill_polygon_what_is_no_polygon_is_refused(points: list, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        filled(points)


def test_fill_polygon_unknown_rule_is_refused() -> None:
    with pytest.raises(InvalidValue, match="centres, pil, got 'corners'"):
        filled([(0, 0), (4, 0), (4, 4)], rule="corners")

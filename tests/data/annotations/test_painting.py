"""Shapes over shapes: which one is seen is the order's to say, and no id appears that was not given."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from drawn_fakes import box, box_shape, drawing, expected, put_image
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.data import Item, SegmentationDataset
from perpixel.data.annotations.painting import DrawnMask, paint, shape_region, turn_back
from perpixel.data.annotations.rle import counts_of, pack_counts
from perpixel.data.annotations.shapes import Ellipse, Polygon, Runs, Shape
from perpixel.data.decoding import turn_upright
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

IDS = {"car": 3, "person": 9, "tree": 4}


def test_paint_file_order_shows_the_later_shape_and_counts_the_overlap() -> None:
    drawn = drawing(box_shape("car", 0, 0, 4, 4), box_shape("person", 2, 2, 8, 8), box_shape("person", 3, 3, 5, 5))
    painted = paint(drawn, IDS, rest=0)
    np.testing.assert_array_equal(painted.ids, expected((3, 0, 0, 4, 4), (9, 2, 2, 8, 8)))
    assert painted.overlapped == 4  # of one class over itself, none
    assert painted.vanished == ()


def test_paint_area_order_shows_the_small_shape() -> None:
    drawn = drawing(box_shape("car", 0, 0, 4, 4), box_shape("person", 1, 1, 9, 8))
    painted = paint(drawn, IDS, rest=0, order="area")
    np.testing.assert_array_equal(painted.ids, expected((9, 1, 1, 9, 8), (3, 0, 0, 4, 4)))


def test_paint_area_order_counts_pixels_of_all_parts_once() -> None:
    both = box_shape("car", 0, 0, 4, 4)
    twice = replace(both, parts=both.parts * 3)  # 16 pixels, however often they are drawn
    drawn = drawing(twice, box_shape("person", 0, 0, 5, 4))
    assert (paint(drawn, IDS, rest=0, order="area").ids == 3).sum() == 16


def test_paint_z_order_goes_before_the_order_of_the_file() -> None:
    drawn = drawing(
        box_shape("car", 0, 0, 4, 4, z_order=2),
        box_shape("tree", 0, 0, 2, 2, z_order=2),
        box_shape("person", 0, 0, 9, 8, z_order=-1),
    )
    painted = paint(drawn, IDS, rest=0, order="z_order")
    np.testing.assert_array_equal(painted.ids, expected((9, 0, 0, 9, 8), (3, 0, 0, 4, 4), (4, 0, 0, 2, 2)))


def test_paint_z_order_without_one_is_refused() -> None:
    with pytest.raises(DataError, match=r"drawn.json: a.png: shapes have no z_order.*file or area"):
        paint(drawing(box_shape("car", 0, 0, 4, 4)), IDS, rest=0, order="z_order")


def test_paint_class_without_id_is_refused() -> None:
    with pytest.raises(DataError, match="no id for the classes dog"):
        paint(drawing(box_shape("dog", 0, 0, 4, 4)), IDS, rest=0)


def test_paint_large_ids_take_two_bytes() -> None:
    painted = paint(drawing(box_shape("car", 0, 0, 4, 4)), {"car": 300}, rest=0)
    assert (painted.ids.dtype, painted.ids.max()) == (np.uint16, 300)


def test_paint_shapes_without_a_pixel_are_named() -> None:
    thin = box_shape("car", 1.6, 0, 2.4, 8, place="annotation 4")
    assert paint(drawing(thin, box_shape("tree", 0, 0, 1, 1)), IDS, rest=0).vanished == ("annotation 4",)


def test_paint_polygon_with_a_hole_and_two_parts() -> None:
    shape = Shape(
        name="car",
        parts=(
            Polygon(rings=(tuple(box(0, 0, 5, 5)), tuple(box(1, 1, 4, 4)))),
            Polygon(rings=(tuple(box(7, 7, 9, 8)),)),
        ),
    )
    mask = expected((3, 0, 0, 5, 5), (0, 1, 1, 4, 4), (3, 7, 7, 9, 8))
    np.testing.assert_array_equal(paint(drawing(shape), IDS, rest=0).ids, mask)


def test_paint_rule_pil_paints_the_outline_too() -> None:
    shape = Shape(name="car", parts=(Polygon(rings=(tuple(box(1, 1, 4, 4)),)),))
    np.testing.assert_array_equal(paint(drawing(shape), IDS, rest=0, rule="pil").ids, expected((3, 1, 1, 5, 5)))


@pytest.mark.parametrize("corner", [(0, 0), (-2, 3), (6, -3), (-4, -4), (20, 20)])
def test_paint_runs_are_cut_off_at_the_edge(corner: tuple[int, int]) -> None:
    bitmap = np.random.default_rng(0).random((5, 6)) < 0.5
    runs = Runs(packed=pack_counts(counts_of(bitmap)), size=(5, 6), corner=corner)
    canvas = np.zeros((60, 60), bool)
    canvas[30 + corner[0] : 35 + corner[0], 30 + corner[1] : 36 + corner[1]] = bitmap
    painted = paint(drawing(Shape(name="car", parts=(runs,))), IDS, rest=0)
    np.testing.assert_array_equal(painted.ids == 3, canvas[30:38, 30:40])


def test_paint_runs_of_another_size_are_refused_with_their_place() -> None:
    shape = Shape(name="car", parts=(Runs(packed="52", size=(8, 10)),), place="annotation 5")
    with pytest.raises(DataError, match=r"drawn.json: a.png: annotation 5: run lengths add up to"):
        paint(drawing(shape), IDS, rest=0)


def test_paint_runs_larger_than_any_image_are_refused_undecoded() -> None:
    shape = Shape(name="car", parts=(Runs(packed="0", size=(900_000, 900_000)),))
    with pytest.raises(DataError, match="a bitmap of 900000 x 900000 is larger than any image"):
        paint(drawing(shape), IDS, rest=0)


def test_shape_region_is_the_union_of_the_parts() -> None:
    shape = Shape(name="car", parts=(*box_shape("", 0, 0, 3, 3).parts, Ellipse(center=(2, 2), radii=(1.0, 1.0))))
    assert shape_region(shape, (8, 10))[2].sum() == 9 + 0


coordinates = st.floats(-30, 30, allow_nan=False)
parts = st.one_of(
    st.lists(coordinates, min_size=6, max_size=12).map(lambda v: Polygon(rings=(tuple(v[: len(v) // 2 * 2]),))),
    st.builds(
        Ellipse,
        center=st.tuples(coordinates, coordinates),
        radii=st.tuples(st.floats(0.1, 20), st.floats(0.1, 20)),
        rotation=st.floats(-360, 360),
    ),
)
shapes = st.builds(Shape, name=st.sampled_from(sorted(IDS)), parts=st.tuples(parts), z_order=st.integers(-2, 2))


@settings(max_examples=80, deadline=None)
@given(st.lists(shapes, max_size=5), st.sampled_from(["file", "area", "z_order"]), st.sampled_from(["centres", "pil"]))
def test_paint_never_makes_an_id_that_was_not_there(drawn: list[Shape], order: str, rule: str) -> None:
    painted = paint(drawing(*drawn), IDS, rest=255, order=order, rule=rule)
    assert set(np.unique(painted.ids).tolist()) <= {255, *(IDS[shape.name] for shape in drawn)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_back_undoes_the_turn(orientation: int) -> None:
    pixels = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(turn_upright(turn_back(pixels, orientation), orientation), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 10), (9, 9)])
def test_drawn_mask_of_a_turned_photo_lies_on_what_was_drawn_on(tmp_path, orientation: int, size: tuple) -> None:
    """A square and a half turn fit both ways: nothing but the orientation tells how the photo was shown."""
    image = put_image(tmp_path / "a.jpg", size, orientation=orientation)
    upright = size[::-1] if orientation >= 5 else size
    drawn = replace(drawing(box_shape("car", 0, 0, 3, 1), size=upright), orientation=orientation)
    mask = DrawnMask(drawing=drawn, ids=(("car", 1),), rest=0)
    labels = LabelSpace.numbered(2)
    target = SegmentationDataset([Item(name="a", image=image, mask=mask)], labels)[0].target
    np.testing.assert_array_equal(target.numpy(), expected((1, 0, 0, 3, 1), size=upright))


def test_drawn_mask_is_small_comparable_and_sent_to_workers() -> None:
    mask = DrawnMask(drawing=drawing(box_shape("car", 0, 0, 3, 3)), ids=(("car", 3),), rest=0)
    assert pickle.loads(pickle.dumps(mask)) == mask
    assert (str(mask), mask.path.name, mask.size()) == ("drawn.json: a.png", "drawn.json", (8, 10))
    np.testing.assert_array_equal(mask.read(), expected((3, 0, 0, 3, 3)))

"""Classes of tools as label spaces: ids stay where they can, what cannot is said, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_fakes import box_shape, drawing, expected
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.data.annotations.collected import (
    Annotated,
    Annotations,
    Tally,
    drawn_source,
    labels_of_classes,
    numbered_classes,
    usable_ring,
)
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace


def annotations(*shapes: object, classes: dict[str, int] | None = None, **more: object) -> Annotations:
    picture = Annotated(image=Path("a.png"), drawing=drawing(*shapes))
    return Annotations(
        format="coco", root=Path("drawn"), splits={"all": (picture,)}, classes=classes or {"car": 3, "tree": 9}, **more
    )


def mask_of(given: Annotations, **options: object) -> np.ndarray:
    return drawn_source(given, **options).splits["all"][0].mask.read()


CAR, TREE = box_shape("car", 1, 1, 6, 5), box_shape("tree", 4, 3, 8, 7)
SPACE = LabelSpace(
    name="own", names=("tree", "car"), colors=((1, 1, 1), (2, 2, 2)), stored_to_train={40: 0, 7: 1, 5: 1, 200: 255}
)


def test_labels_of_classes_keeps_numbers_and_adds_the_background() -> None:
    space = labels_of_classes({"car": 3, "tree": 9})
    assert space.names == ("background", "car", "tree")
    assert (space.stored_to_train, space.train_to_stored) == ({0: 0, 3: 1, 9: 2, 255: 255}, (0, 3, 9))
    assert labels_of_classes({"car": 1, "tree": 2}).train_to_stored is None
    assert space.colors[0] == (0, 0, 0)
    assert len({*space.colors, space.ignore_color}) == 4


def test_labels_of_classes_ignored_rest_needs_no_background() -> None:
    space = labels_of_classes({"car": 3, "tree": 9}, rest="ignore")
    assert (space.names, space.stored_to_train) == (("car", "tree"), {3: 0, 9: 1, 255: 255})


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_labels_of_classes_named_background_is_the_background(name: str) -> None:
    space = labels_of_classes({"car": 1, name: 2, "tree": 3})
    assert (space.names, space.stored_to_train) == ((name, "car", "tree"), {0: 0, 1: 1, 3: 2, 255: 255})


@pytest.mark.parametrize("numbers", [(0, 1), (4, 4), (3, 255), (3, 70_000)])
def test_labels_of_classes_numbers_that_do_not_fit_are_replaced(numbers: tuple[int, int]) -> None:
    given = dict(zip(("car", "tree"), numbers, strict=True))
    assert labels_of_classes(given).stored_to_train == {0: 0, 1: 1, 2: 2, 255: 255}
    notes = drawn_source(annotations(CAR, classes=given)).notes
    assert "classes could not keep the tool's numbers" in notes[-1]


def test_labels_of_classes_none_or_too_many_are_refused() -> None:
    with pytest.raises(DataError, match="the annotations have no classes"):
        labels_of_classes({})
    with pytest.raises(DataError, match="255 classes are more than the 254"):
        labels_of_classes({str(number): number for number in range(255)})
    assert labels_of_classes({str(number): number for number in range(254)}).num_classes == 255


def test_numbered_classes_count_from_one_past_the_background() -> None:
    assert numbered_classes(["car", "Background", "tree"]) == {"car": 1, "Background": 0, "tree": 2}
    assert numbered_classes(["background", "_background_"]) == {"background": 0, "_background_": 1}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("ab_", min_size=1, max_size=4), st.integers(0, 400), min_size=1, max_size=12))
def test_labels_of_classes_never_gives_two_classes_one_id(classes: dict[str, int]) -> None:
    space = labels_of_classes(classes)
    assert set(classes) <= set(space.names)
    assert len(space.stored_to_train) == space.num_classes + 1


def test_drawn_source_rest_is_background_or_ignored() -> None:
    np.testing.assert_array_equal(mask_of(annotations(CAR)), expected((3, 1, 1, 6, 5)))
    np.testing.assert_array_equal(mask_of(annotations(CAR), rest="ignore"), expected((3, 1, 1, 6, 5), rest=255))


def test_drawn_source_images_without_shapes_are_named() -> None:
    assert drawn_source(annotations()).notes == ("1 images have no shapes, so all their pixels are background: a.png",)
    assert "are ignored: a.png" in drawn_source(annotations(), rest="ignore").notes[0]


def test_drawn_source_given_labels_decide_ids_and_the_rest() -> None:
    for found in (annotations(CAR, TREE, labels=SPACE), annotations(CAR, TREE, labels=LabelSpace.numbered(1))):
        source = drawn_source(found, labels=SPACE)
        assert source.labels is SPACE
        mask = source.splits["all"][0].mask.read()
        np.testing.assert_array_equal(mask, expected((5, 1, 1, 6, 5), (40, 4, 3, 8, 7), rest=200))


def test_drawn_source_ignored_shapes_take_the_ignored_id() -> None:
    mask = mask_of(annotations(CAR, box_shape("__ignore__", 0, 0, 3, 3)))
    np.testing.assert_array_equal(mask, expected((3, 1, 1, 6, 5), (255, 0, 0, 3, 3)))


def test_drawn_source_order_of_the_tool_is_kept_unless_told() -> None:
    over, under = box_shape("car", 1, 1, 6, 5, z_order=2), box_shape("tree", 4, 3, 8, 7, z_order=1)
    given = annotations(over, under, order="z_order")
    np.testing.assert_array_equal(mask_of(given), expected((9, 4, 3, 8, 7), (3, 1, 1, 6, 5)))
    np.testing.assert_array_equal(mask_of(given, order="file"), expected((3, 1, 1, 6, 5), (9, 4, 3, 8, 7)))


def without(**changes: object) -> LabelSpace:
    values = {"names": ("car", "tree"), "colors": ((1, 1, 1), (2, 2, 2)), "stored_to_train": {0: 0, 1: 1}}
    return LabelSpace(**values | changes)


@pytest.mark.parametrize(
    "labels, options, message",
    [
        (
            without(names=("cat", "tree")),
            {},
            r"1 drawn classes are not in label space 'custom': 'car'; did you mean 'cat'",
        ),
        (without(), {}, "ignores no stored id, so pixels that no shape covers cannot be written; add 'ignore"),
        (without(), {"rest": "background"}, "has no class 'background' for the pixels that no shape covers"),
        (without(stored_to_train={0: 0, 255: 255}), {}, "has no stored id for class 'tree'"),
        (None, {"rest": "black"}, "rest is one of auto, background, ignore, got 'black'"),
    ],
)
def test_drawn_source_label_space_that_does_not_fit_is_refused(
    labels: LabelSpace | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises((DataError, InvalidValue), match=message):
        drawn_source(annotations(CAR, TREE), labels=labels, **options)


def test_tally_names_the_first_places_and_counts_the_rest() -> None:
    tally = Tally()
    for number in range(12):
        tally.add("things were left out", f"place {number}")
    places = ", ".join(f"place {number}" for number in range(10))
    assert tally.notes() == (f"12 things were left out: {places} and 2 more",)
    assert (tally.count("things were left out"), tally.count("others")) == (12, 0)


def test_usable_ring_on_the_edge_is_not_over_it() -> None:
    tally = Tally()
    assert usable_ring((0, 0, 10, 0, 10, 8), (8, 10), tally, "here") == (0, 0, 10, 0, 10, 8)
    assert tally.notes() == ()
    for ring in ((-0.1, 0, 10, 0, 10, 8), (0, 0, 10.1, 0, 10, 8), (0, 0, 10, 0, 10, 8.1), (0, -0.1, 1, 0, 1, 1)):
        usable_ring(ring, (8, 10), tally, "here")
    assert tally.count("shapes reach over the edge of the image and are cut off there") == 4

"""COCO's JSON: what is read, what is counted, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_fakes import annotation, box, coco_content, expected, put_image, put_json
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from perpixel.data.annotations.coco import read_coco
from perpixel.data.annotations.collected import drawn_source
from perpixel.data.annotations.rle import counts_of
from perpixel.errors import DataError


def put(folder: Path, content: Any = None, name: str = "a.json") -> Path:
    put_image(folder / "a.png")
    return put_json(folder / name, coco_content() if content is None else content)


def mask_of(file: Path, **options: Any) -> np.ndarray:
    (item,) = drawn_source(read_coco(file), **options).splits["all"]
    return item.mask.read()


def test_read_coco_polygons_keep_the_category_ids(tmp_path: Path) -> None:
    source = drawn_source(read_coco(put(tmp_path)))
    (item,) = source.splits["all"]
    assert (item.name, item.image, source.format) == ("a", tmp_path / "a.png", "coco")
    np.testing.assert_array_equal(item.mask.read(), expected((3, 1, 1, 6, 5), (9, 4, 3, 8, 7)))
    assert source.labels.names == ("background", "car", "person")
    assert source.labels.stored_to_train == {0: 0, 3: 1, 9: 2, 255: 255}


def test_read_coco_area_order_shows_the_smaller_object(tmp_path: Path) -> None:
    mask = mask_of(put(tmp_path), order="area")
    np.testing.assert_array_equal(mask, expected((3, 1, 1, 6, 5), (9, 4, 3, 8, 7)))
    content = coco_content()
    content["annotations"][1]["segmentation"] = [box(0, 0, 10, 8)]
    mask = mask_of(put(tmp_path, content), order="area")
    np.testing.assert_array_equal(mask, expected((9, 0, 0, 10, 8), (3, 1, 1, 6, 5)))


@pytest.mark.parametrize("packed", [True, False])
def test_read_coco_runs_as_the_api_writes_them(tmp_path: Path, packed: bool) -> None:
    bitmap = (np.random.default_rng(3).random((8, 10)) < 0.4).astype(np.uint8)
    counts: Any = counts_of(bitmap).tolist()
    if packed:
        counts = coco_masks.encode(np.asfortranarray(bitmap))["counts"].decode()
    drawn = [annotation({"size": [8, 10], "counts": counts}, iscrowd=int(not packed))]
    annotations = read_coco(put(tmp_path, coco_content(annotations=drawn)))
    (picture,) = annotations.splits["all"]
    assert picture.drawing.shapes[0].crowd is not packed
    np.testing.assert_array_equal(drawn_source(annotations).splits["all"][0].mask.read(), bitmap * 3)


def test_read_coco_two_polygons_of_one_object_are_their_union(tmp_path: Path) -> None:
    drawn = [annotation([box(0, 0, 3, 3), box(2, 2, 5, 5)])]
    mask = mask_of(put(tmp_path, coco_content(annotations=drawn)))
    np.testing.assert_array_equal(mask, expected((3, 0, 0, 3, 3), (3, 2, 2, 5, 5)))


def test_read_coco_what_covers_nothing_or_is_cut_off_is_counted(tmp_path: Path) -> None:
    drawn = [
        annotation([[1, 1, 5, 5], box(0, 0, 2, 2)]),
        annotation([[1, 1]], id=2),
        annotation([box(-3, 2, 4, 4)], id=3),
        annotation([], id=4, bbox=[1, 1, 2, 2]),
        annotation(None, id=5),
    ]
    annotations = read_coco(put(tmp_path, coco_content(annotations=drawn)))
    notes = " | ".join(annotations.notes)
    assert "2 polygons with fewer than 3 points, which cover no pixel, were left out: annotation 1 on a.png" in notes
    assert "1 shapes reach over the edge of the image and are cut off there: annotation 3 on a.png" in notes
    assert "2 objects with a box and no segmentation were left out: annotation 4 on a.png, annotation 5" in notes
    assert len(annotations.splits["all"][0].drawing.shapes) == 2


def test_read_coco_ignore_category_is_no_class(tmp_path: Path) -> None:
    content = coco_content(categories=[{"id": 3, "name": "car"}, {"id": 9, "name": "__ignore__"}])
    source = drawn_source(read_coco(put(tmp_path, content)))
    assert source.labels.names == ("background", "car")
    mask = source.splits["all"][0].mask.read()
    np.testing.assert_array_equal(mask, expected((3, 1, 1, 6, 5), (255, 4, 3, 8, 7)))


def test_read_coco_category_that_stands_for_all_others_is_no_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "all", "supercategory": "none"}]
    categories += [one | {"supercategory": "all"} for one in coco_content()["categories"]]
    annotations = read_coco(put(tmp_path, coco_content(categories=categories)))
    assert annotations.classes == {"car": 3, "person": 9}
    assert "category 0, 'all', is the group of all others" in annotations.notes[0]
    drawn = [annotation([box(0, 0, 3, 3)], category_id=0)]
    assert read_coco(put(tmp_path, coco_content(categories=categories, annotations=drawn))).classes["all"] == 0
    categories[1]["supercategory"] = "other"
    assert read_coco(put(tmp_path, coco_content(categories=categories))).classes["all"] == 0


@pytest.mark.parametrize(
    "image", ["a.png", "train2017/a.png", "train/a.png", "images/train2017/a.png", "images/train/a.png", "images/a.png"]
)
def test_read_coco_finds_the_images_where_they_usually_lie(tmp_path: Path, image: str) -> None:
    put_image(tmp_path / image)
    put_image(tmp_path / "val2017" / "b.png")
    put_json(tmp_path / "annotations" / "instances_train2017.json", coco_content())
    images = [{"id": 7, "file_name": "b.png", "height": 8, "width": 10}]
    put_json(tmp_path / "annotations" / "instances_val2017.json", coco_content(images=images))
    put_json(tmp_path / "annotations" / "captions_val2017.json", {})
    annotations = read_coco(tmp_path)
    assert annotations.splits["train"][0].image == tmp_path / image
    assert annotations.splits["val"][0].image == tmp_path / "val2017" / "b.png"


def test_read_coco_roboflow_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        put(tmp_path / split, name="_annotations.coco.json")
    assert set(read_coco(tmp_path).splits) == {"train", "val", "test"}


def test_read_coco_images_folder_is_taken(tmp_path: Path) -> None:
    image = put_image(tmp_path / "elsewhere" / "deep" / "a.png")
    images = [{"id": 7, "file_name": "deep/a.png", "height": 8, "width": 10}]
    file = put_json(tmp_path / "a.json", coco_content(images=images))
    assert read_coco(file, images=tmp_path / "elsewhere").splits["all"][0].image == image


def test_read_coco_labels_file_of_the_folder_decides(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("names: [person, car]\nignore: [255]\n")
    put(tmp_path)
    file = put(tmp_path, name="annotations/instances_train.json")
    for path in (tmp_path / "a.json", file, tmp_path):
        source = drawn_source(read_coco(path))
        assert source.labels.names == ("person", "car")
        mask = next(iter(source.splits.values()))[0].mask.read()
        np.testing.assert_array_equal(mask, expected((1, 1, 1, 6, 5), (0, 4, 3, 8, 7), rest=255))


IMAGE = {"id": 7, "file_name": "a.png", "height": 8, "width": 10}
RUNS = {"size": [8, 10], "counts": [80]}


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1, 2", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"images": [NaN]}', "NaN is no JSON number"),
        ([], "holds a list, such as detections"),
        (3, "must be an object, got int: 3"),
        ({"images": []}, "the field 'annotations' is missing; it has 'images'"),
        (coco_content(images={}), "'images': must be a list, got dict"),
        (coco_content(images=[]), "'images' is empty"),
        (coco_content(images=[5]), "image 0: must be an object"),
        (coco_content(images=[IMAGE, IMAGE]), "image id 7 is given twice"),
        (coco_content(images=[IMAGE | {"width": 0}]), "'width' must be a whole number from 1 to 1000000, got 0"),
        (coco_content(images=[IMAGE | {"height": 1e300}]), "'height' must be a whole number"),
        (coco_content(images=[IMAGE | {"height": "8"}]), "'height' must be a whole number"),
        (coco_content(images=[IMAGE | {"height": True}]), "'height' must be a whole number"),
        (coco_content(images=[IMAGE | {"id": [1]}]), "'id' must be a whole number or a text"),
        (coco_content(images=[IMAGE | {"file_name": ""}]), "'file_name' is empty"),
        (coco_content(images=[IMAGE | {"file_name": 4}]), "'file_name': must be a text, got int"),
        (coco_content(images=[IMAGE | {"file_name": "../a.png"}]), r"'../a.png' leads out of .*--images"),
        (coco_content(images=[IMAGE | {"file_name": "/etc/passwd"}]), "'/etc/passwd' leads out of"),
        (coco_content(images=[IMAGE | {"file_name": "..\\a.png"}]), "leads out of"),
        (coco_content(images=[IMAGE | {"file_name": "C:\\a.png"}]), "leads out of"),
        (coco_content(images=[IMAGE | {"file_name": "a\0.png"}]), "leads out of"),
        (coco_content(images=[IMAGE | {"file_name": "./"}]), "'./' leads out of .*or nowhere"),
        (coco_content(images=[IMAGE, IMAGE | {"id": 8, "file_name": "b.png"}]), "1 of its 2 images are not in .*b.png"),
        (coco_content(images=[IMAGE | {"file_name": "b.png"}]), "'b.png' is in none of the folders .*--images"),
        (coco_content(categories=[{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]), "category id 3 is given twice"),
        (coco_content(categories=[{"id": 3, "name": "a"}, {"id": 9, "name": "a"}]), "several categories .* name a"),
        (coco_content(annotations=[7]), "annotation 0: must be an object"),
        (coco_content(annotations=[annotation([], image_id=8)]), "annotation 1: image_id 8 is the id of no image"),
        (
            coco_content(annotations=[annotation([], category_id=4)]),
            "category_id 4 is the id of no category; they are 3, 9",
        ),
        (coco_content(annotations=[annotation("x")]), "'segmentation': must be a list"),
        (coco_content(annotations=[annotation([4])]), "segmentation: must be a list, got int"),
        (coco_content(annotations=[annotation([[1, 2, 3]])]), "an x and a y for each point, got 3 coordinates"),
        (coco_content(annotations=[annotation([[1, 2, 3, None]])]), "a coordinate must be a number, got None"),
        (coco_content(annotations=[annotation([[1, 2, 3, 1e8]])]), "finite and within"),
        (coco_content(annotations=[annotation([[1, 2, 3, 10**400]])]), "finite and within"),
        (coco_content(annotations=[annotation({"counts": []})]), "'size' is missing"),
        (
            coco_content(annotations=[annotation(RUNS | {"size": [10, 8]})]),
            r"'size' is \[10, 8\] and the image is \[8, 10\]",
        ),
        (coco_content(annotations=[annotation(RUNS | {"counts": 3})]), "'counts': must be a list"),
        (coco_content(annotations=[annotation(RUNS | {"counts": [-80]})]), "'counts' must hold whole numbers"),
        (coco_content(annotations=[annotation(RUNS | {"counts": [1.5]})]), "'counts' must hold whole numbers"),
        (coco_content(annotations=[annotation([])]), "all 1 annotations are boxes"),
    ],
)
def test_read_coco_wrong_content_is_refused_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_coco(put(tmp_path, content))


def test_read_coco_coordinate_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    text = put(tmp_path).read_text().replace("[1.0, 1.0,", "[1e999, 1.0,")
    with pytest.raises(DataError, match=r"annotation 1: segmentation: a coordinate must be finite .*got inf"):
        read_coco(put(tmp_path, text))


def test_read_coco_runs_that_do_not_fit_are_refused_when_painted(tmp_path: Path) -> None:
    file = put(tmp_path, coco_content(annotations=[annotation(RUNS | {"counts": "1z1"})]))
    with pytest.raises(DataError, match=r"a.json: a.png: annotation 1: packed runs hold 'z'"):
        mask_of(file)


def test_read_coco_folders_without_a_clear_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no JSON file here"):
        read_coco(tmp_path)
    put(tmp_path, name="one.json")
    put(tmp_path, name="two.json")
    with pytest.raises(DataError, match=r"which split is open: one.json, two.json; give one JSON file"):
        read_coco(tmp_path)


def test_read_coco_splits_with_other_categories_are_refused(tmp_path: Path) -> None:
    put(tmp_path, name="train.json")
    put(tmp_path, coco_content(categories=[{"id": 3, "name": "car"}, {"id": 9, "name": "dog"}]), name="val.json")
    with pytest.raises(DataError, match=r"val.json: its categories differ"):
        read_coco(tmp_path)


def test_read_coco_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: there is no such file"):
        read_coco(tmp_path / "none.json")


drawn_things = st.lists(
    st.tuples(st.sampled_from([3, 9]), st.lists(st.floats(-9, 19).map(float), min_size=0, max_size=12)), max_size=5
)


@settings(max_examples=25, deadline=None)
@given(drawn_things, st.sampled_from(["file", "area"]), st.sampled_from(["auto", "ignore"]))
def test_read_coco_makes_no_id_that_was_not_there(
    tmp_path_factory: pytest.TempPathFactory, things: list[tuple[int, list[float]]], order: str, rest: str
) -> None:
    drawn = [
        annotation([ring[: len(ring) // 2 * 2]], id=number, category_id=category)
        for number, (category, ring) in enumerate(things)
    ]
    mask = mask_of(put(tmp_path_factory.mktemp("any"), coco_content(annotations=drawn)), order=order, rest=rest)
    assert set(np.unique(mask).tolist()) <= {0 if rest == "auto" else 255, *(category for category, _ in things)}


def test_read_coco_pipe_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.json: is no plain file"):
        read_coco(tmp_path / "a.json")


def test_read_coco_hidden_files_of_a_mac_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, name="train.json")
    (tmp_path / "._train.json").write_bytes(b"\0")
    assert list(read_coco(tmp_path).splits) == ["all"]

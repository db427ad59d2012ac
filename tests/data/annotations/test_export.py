"""Masks as drawn labels: read again they are the same to the pixel, by run lengths and by polygons."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_fakes import put_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools.coco import COCO

from perpixel.data import Item, SegmentationDataset, open_data, read_mask
from perpixel.data.annotations.coco import read_coco
from perpixel.data.annotations.collected import drawn_source
from perpixel.data.annotations.export import write_coco, write_labelme
from perpixel.data.annotations.labelme import read_labelme
from perpixel.data.formats.item import DataSource
from perpixel.errors import InvalidValue
from perpixel.labels import LabelSpace

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[4] / "shared" / "data"))
PLAIN = LabelSpace(
    name="plain",
    names=("road", "car"),
    colors=((9, 9, 9), (8, 8, 8)),
    stored_to_train={7: 0, 0: 1, 200: 255},
    train_to_stored=(7, 0),
)
WITH_BACKGROUND = LabelSpace(
    name="vocal",
    names=("background", "cat"),
    colors=((0, 0, 0), (8, 8, 8)),
    stored_to_train={0: 0, 1: 1, 255: 255},
)


def source_of(
    folder: Path, stored: np.ndarray, labels: LabelSpace, *, split: str = "all", orientation: int = 1
) -> DataSource:
    image = put_image(folder / "pictures" / "a.jpg", stored.shape, orientation=orientation)
    Image.fromarray(stored).save(folder / "m.png")
    return DataSource(
        format="list", root=folder, splits={split: (Item(name="a", image=image, mask=folder / "m.png"),)}, labels=labels
    )


def target(source: DataSource, labels: LabelSpace) -> np.ndarray:
    ((one,),) = source.splits.values()
    return SegmentationDataset([one], labels)[0].target.numpy()


def random_mask(labels: LabelSpace, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    return np.random.default_rng(2).choice(np.array(sorted(labels.stored_to_train), np.uint8), size)


@pytest.mark.parametrize("labels", [PLAIN, WITH_BACKGROUND], ids=["plain", "background"])
@pytest.mark.parametrize("options", [{}, {"shapes": "polygons"}, {"crowd": True}, {"images": "link"}])
@pytest.mark.parametrize("split", ["all", "val"])
def test_write_coco_is_read_again_to_the_pixel(tmp_path: Path, split: str, options: dict, labels: LabelSpace) -> None:
    source = source_of(tmp_path, random_mask(labels), labels, split=split)
    write_coco(source, labels, tmp_path / "out", **options)
    again = drawn_source(read_coco(tmp_path / "out"))
    assert again.labels.names == labels.names
    np.testing.assert_array_equal(target(again, again.labels), target(source, labels))


@pytest.mark.parametrize("labels", [PLAIN, WITH_BACKGROUND], ids=["plain", "background"])
@pytest.mark.parametrize("shapes", ["rle", "polygons"])
@pytest.mark.parametrize("split", ["all", "val"])
def test_write_labelme_is_read_again_to_the_pixel(tmp_path: Path, split: str, shapes: Any, labels: LabelSpace) -> None:
    source = source_of(tmp_path, random_mask(labels), labels, split=split)
    write_labelme(source, labels, tmp_path / "out", shapes=shapes)
    again = drawn_source(read_labelme(tmp_path / "out"))
    assert again.labels.names == labels.names
    np.testing.assert_array_equal(target(again, again.labels), target(source, labels))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 255])),
    shapes=st.sampled_from(["rle", "polygons"]),
)
def test_exports_of_any_mask_come_back(
    tmp_path_factory: pytest.TempPathFactory, stored: np.ndarray, shapes: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = source_of(folder, stored, WITH_BACKGROUND)
    write_coco(source, WITH_BACKGROUND, folder / "coco", shapes=shapes)
    write_labelme(source, WITH_BACKGROUND, folder / "labelme", shapes=shapes)
    for again in (read_coco(folder / "coco"), read_labelme(folder / "labelme")):
        ((one,),) = drawn_source(again).splits.values()
        np.testing.assert_array_equal(one.mask.read(), stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 10), (9, 9)])
def test_exports_of_turned_photos_lie_upright_in_labelme_and_as_stored_in_coco(
    tmp_path: Path, size: tuple, orientation: int
) -> None:
    source = source_of(tmp_path, random_mask(PLAIN, size), PLAIN, orientation=orientation)
    write_labelme(source, PLAIN, tmp_path / "out")
    again = drawn_source(read_labelme(tmp_path / "out"))
    np.testing.assert_array_equal(target(again, again.labels), target(source, PLAIN))
    height, width = (json.loads((tmp_path / "out/a.json").read_text())[key] for key in ("imageHeight", "imageWidth"))
    assert (height, width) == (size[::-1] if orientation >= 5 else size)
    write_coco(source, PLAIN, tmp_path / "coco")
    again = drawn_source(read_coco(tmp_path / "coco"))
    np.testing.assert_array_equal(target(again, again.labels), target(source, PLAIN))
    (image,) = json.loads((tmp_path / "coco/annotations/instances_all.json").read_text())["images"]
    assert (image["height"], image["width"]) == size


@pytest.mark.parametrize("options", [{}, {"shapes": "polygons"}, {"crowd": True}])
def test_write_coco_is_what_the_coco_api_reads(
    tmp_path: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stored = random_mask(WITH_BACKGROUND, (30, 40))
    write_coco(source_of(tmp_path, stored, WITH_BACKGROUND), WITH_BACKGROUND, tmp_path / "out", **options)
    api = COCO(str(tmp_path / "out/annotations/instances_all.json"))
    capsys.readouterr()
    assert [(one["id"], one["name"]) for one in api.loadCats(api.getCatIds())] == [(1, "cat"), (255, "__ignore__")]
    (image,) = api.loadImgs(api.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("a.jpg", 30, 40)
    seen = {one["category_id"]: one for one in api.loadAnns(api.getAnnIds())}
    for number, one in seen.items():
        area = stored == number
        np.testing.assert_array_equal(api.annToMask(one), area)
        rows, columns = np.nonzero(area)
        left, top, width, height = one["bbox"]
        assert (left, top, left + width, top + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (one["area"], one["iscrowd"]) == (area.sum(), int(number == 255 or bool(options.get("crowd"))))


def test_write_coco_without_labels_file_keeps_ids_of_classes(tmp_path: Path) -> None:
    stored = np.where(random_mask(WITH_BACKGROUND) == 1, 1, 0).astype(np.uint8)
    write_coco(source_of(tmp_path, stored, WITH_BACKGROUND), WITH_BACKGROUND, tmp_path / "out")
    (tmp_path / "out" / "labels.yaml").unlink()
    again = drawn_source(read_coco(tmp_path / "out"))
    assert again.labels.names == ("background", "cat")
    np.testing.assert_array_equal(again.splits["all"][0].mask.read(), stored)


def test_write_coco_list_leaves_the_images_and_says_where(tmp_path: Path) -> None:
    source = source_of(tmp_path, random_mask(PLAIN), PLAIN)
    done = write_coco(source, PLAIN, tmp_path / "out", images="list")
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["annotations"]
    pictures = (tmp_path / "pictures").resolve()
    assert f"images stay in {pictures}; read with --images {pictures}" in done.notes[-1]
    again = drawn_source(read_coco(tmp_path / "out", images=pictures))
    np.testing.assert_array_equal(target(again, again.labels), target(source, PLAIN))


def test_write_labelme_lists_its_labels_as_labelme_does(tmp_path: Path) -> None:
    write_labelme(source_of(tmp_path, random_mask(PLAIN), PLAIN), PLAIN, tmp_path / "out")
    assert (tmp_path / "out/labels.txt").read_text() == "__ignore__\nroad\ncar\n"
    content = json.loads((tmp_path / "out/a.json").read_text())
    assert (content["imagePath"], content["imageData"], content["version"]) == ("a.jpg", None, "5.5.0")
    assert {shape["shape_type"] for shape in content["shapes"]} == {"polygon"}


@pytest.mark.parametrize("write", [write_coco, write_labelme])
def test_exports_of_a_class_with_the_name_of_ignored_pixels_are_refused(tmp_path: Path, write: Any) -> None:
    labels = replace(PLAIN, names=("__ignore__", "car"))
    with pytest.raises(InvalidValue, match="would be read again as ignored pixels"):
        write(source_of(tmp_path, random_mask(PLAIN), labels), labels, tmp_path / "out")


@pytest.mark.parametrize(
    "write, options, message",
    [
        (write_coco, {"shapes": "boxes"}, "one of rle, polygons, got 'boxes'"),
        (write_labelme, {"shapes": "boxes"}, "one of rle, polygons, got 'boxes'"),
        (write_coco, {"shapes": "polygons", "crowd": True}, "iscrowd are run lengths"),
        (write_labelme, {"images": "list"}, "labelme's files lie beside their images"),
        (write_coco, {"images": "move"}, "copy, link, list, got 'move'"),
    ],
)
def test_exports_with_wrong_options_are_refused(tmp_path: Path, write: Any, options: dict, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        write(source_of(tmp_path, random_mask(PLAIN), PLAIN), PLAIN, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason=f"no CamVid under {DATA}")
def test_exports_of_real_masks_come_back(tmp_path: Path) -> None:
    full = open_data(f"camvid:{DATA / 'camvid'}")
    source = replace(full, splits={"val": full.splits["val"][:1]})
    assert source.labels is not None
    write_coco(source, source.labels, tmp_path / "coco", shapes="polygons", images="link")
    write_labelme(source, source.labels, tmp_path / "labelme", images="link")
    for again in (drawn_source(read_coco(tmp_path / "coco")), drawn_source(read_labelme(tmp_path / "labelme"))):
        (items,) = again.splits.values()
        for ours, theirs in zip(items, source.splits["val"], strict=True):
            expected = source.labels.encode(read_mask(theirs.mask))
            np.testing.assert_array_equal(again.labels.encode(ours.mask.read()), expected)

"""labelme's JSON: what is read, what is counted, and what is refused."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_fakes import expected, labelme_content, labelme_shape, put_image, put_json
from PIL import Image

from perpixel.data.annotations.collected import drawn_source
from perpixel.data.annotations.labelme import EmbeddedImage, _Inside, read_labelme
from perpixel.data.decoding import image_size, read_pixels
from perpixel.errors import DataError

CAR = labelme_shape("car", [[1, 1], [6, 1], [6, 5], [1, 5]])
TREE = labelme_shape("tree", [[4, 3], [8, 7]], "rectangle")


def put(folder: Path, content: Any = None, name: str = "a.json") -> Path:
    put_image(folder / "a.png")
    return put_json(folder / name, labelme_content(CAR, TREE) if content is None else content)


def mask_of(path: Path, **options: Any) -> np.ndarray:
    (item,) = drawn_source(read_labelme(path, **options)).splits["all"]
    return item.mask.read()


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_read_labelme_shapes_lie_over_one_another_in_the_order_of_the_file(tmp_path: Path) -> None:
    put(tmp_path)
    source = drawn_source(read_labelme(tmp_path))
    assert source.labels.names == ("background", "car", "tree")
    (item,) = source.splits["all"]
    assert (item.name, item.image) == ("a", tmp_path / "a.png")
    np.testing.assert_array_equal(item.mask.read(), expected((1, 1, 1, 6, 5), (2, 4, 3, 8, 7)))


@pytest.mark.parametrize("kind", ["polygon", None])
def test_read_labelme_old_files_without_a_type_are_polygons(tmp_path: Path, kind: str | None) -> None:
    put(tmp_path, labelme_content(CAR | {"shape_type": kind}))
    np.testing.assert_array_equal(mask_of(tmp_path), expected((1, 1, 1, 6, 5)))


def test_read_labelme_rectangle_may_be_drawn_from_any_corner(tmp_path: Path) -> None:
    put(tmp_path, labelme_content(labelme_shape("tree", [[8, 3], [4, 7]], "rectangle")))
    np.testing.assert_array_equal(mask_of(tmp_path), expected((1, 4, 3, 8, 7)))


def test_read_labelme_circle_has_its_radius_by_the_second_point(tmp_path: Path) -> None:
    put(tmp_path, labelme_content(labelme_shape("ball", [[4.5, 4.5], [4.5, 6.5]], "circle")))
    assert mask_of(tmp_path).sum() == 13  # centres within 2 of a centre
    assert mask_of(tmp_path)[4].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_read_labelme_mask_lies_from_its_first_to_its_last_pixel(tmp_path: Path) -> None:
    bits = np.array([[0, 255, 255], [255, 0, 0]], dtype=np.uint8)
    put(tmp_path, labelme_content(labelme_shape("blob", [[2, 3], [4, 4]], "mask", mask=png(bits))))
    mask = expected()
    mask[3:5, 2:5] = bits > 0
    np.testing.assert_array_equal(mask_of(tmp_path), mask)


def test_read_labelme_own_words_are_background_and_ignored(tmp_path: Path) -> None:
    shapes = [
        CAR | {"label": "car"},
        TREE | {"label": "__ignore__"},
        labelme_shape("_background_", [[1, 1], [3, 2]], "rectangle"),
    ]
    put(tmp_path, labelme_content(*shapes))
    source = drawn_source(read_labelme(tmp_path))
    assert source.labels.names == ("_background_", "car")
    mask = expected((1, 1, 1, 6, 5), (255, 4, 3, 8, 7), (0, 1, 1, 3, 2))
    np.testing.assert_array_equal(source.splits["all"][0].mask.read(), mask)


def test_read_labelme_labels_txt_gives_the_order(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ntree\nbike\ncar\n")
    source = drawn_source(read_labelme(tmp_path))
    assert source.labels.names == ("_background_", "tree", "bike", "car")


def test_read_labelme_labels_txt_that_lacks_a_label_or_repeats_one_is_refused(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "labels.txt").write_text("car\n")
    with pytest.raises(DataError, match=r"labels.txt: the labels tree are drawn and not listed"):
        read_labelme(tmp_path)
    (tmp_path / "labels.txt").write_text("car\ncar\n")
    with pytest.raises(DataError, match=r"labels.txt: a label is listed twice"):
        read_labelme(tmp_path)
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot be read as a list of labels"):
        read_labelme(tmp_path)


def test_read_labelme_what_has_no_area_is_counted(tmp_path: Path) -> None:
    shapes = [
        CAR,
        labelme_shape("a", [[1, 1]], "point"),
        labelme_shape("b", [[1, 1], [2, 2]], "line"),
        labelme_shape("c", [[1, 1], [2, 2]], "polygon"),
        labelme_shape("d", [[1, 1], [1, 1]], "circle"),
        labelme_shape("car", [[-1, 1], [2, 2]], "rectangle"),
    ]
    put(tmp_path, labelme_content(*shapes))
    annotations = read_labelme(tmp_path)
    notes = " | ".join(annotations.notes)
    assert "2 points and lines, which have no area, were left out: shape 1 of a.json, shape 2 of a.json" in notes
    assert "1 polygons with fewer than 3 points, which cover no pixel, were left out: shape 3 of a.json" in notes
    assert "1 circles without a radius were left out: shape 4" in notes
    assert "1 shapes reach over the edge of the image and are cut off there: shape 5" in notes
    assert list(annotations.classes) == ["car"]


def test_read_labelme_splits_and_single_files(tmp_path: Path) -> None:
    file = put(tmp_path / "train")
    put(tmp_path / "val")
    assert set(read_labelme(tmp_path).splits) == {"train", "val"}
    assert set(read_labelme(file).splits) == {"all"}


def test_read_labelme_image_inside_the_file_is_read_and_sent_to_workers(tmp_path: Path) -> None:
    pixels = np.arange(240, dtype=np.uint8).reshape(8, 10, 3)
    put_json(tmp_path / "a.json", labelme_content(CAR, imageData=png(pixels)))
    (item,) = drawn_source(read_labelme(tmp_path)).splits["all"]
    assert isinstance(item.image, EmbeddedImage)
    assert (item.image.name, item.image.path, str(item.image)) == (
        "a.png",
        tmp_path / "a.json",
        f"{item.image.path}: imageData",
    )
    np.testing.assert_array_equal(read_pixels(item.image), pixels)
    assert image_size(item.image) == (8, 10)
    with pytest.raises(OSError, match="can be read alone"):
        item.image.open("wb")
    put_json(tmp_path / "a.json", labelme_content(CAR))
    with pytest.raises(OSError, match="the image is gone"):
        item.image.open()


def test_read_labelme_images_folder_is_searched_by_file_name(tmp_path: Path) -> None:
    image = put_image(tmp_path / "pictures" / "a.png")
    put_json(tmp_path / "json" / "a.json", labelme_content(CAR, imagePath="..\\pictures\\a.png"))
    annotations = read_labelme(tmp_path / "json", images=tmp_path / "pictures")
    assert annotations.splits["all"][0].image == image
    with pytest.raises(DataError, match=r"leads out of .*--images"):
        read_labelme(tmp_path / "json")


def test_read_labelme_turned_photo_is_drawn_on_upright(tmp_path: Path) -> None:
    put_image(tmp_path / "a.jpg", (10, 8), orientation=6)
    put_json(tmp_path / "a.json", labelme_content(CAR, imagePath="a.jpg"))
    (picture,) = read_labelme(tmp_path).splits["all"]
    assert (picture.drawing.size, picture.drawing.orientation) == ((8, 10), 6)
    assert replace(picture.drawing, orientation=1).size == (8, 10)


SHAPE = labelme_shape("car", [[0, 0], [4, 0], [4, 4]])


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot be read as JSON"),
        ([], "must be an object, got list"),
        ({"shapes": []}, "the field 'imagePath' is missing"),
        (labelme_content(CAR, shapes={}), "'shapes': must be a list"),
        (labelme_content(CAR, imagePath="/a.png"), "'/a.png' leads out of"),
        (labelme_content(CAR, imagePath="b.png"), r"there is no image .*b.png, nor one inside .* --images"),
        (labelme_content(CAR, imagePath="b.png", imageData="@@"), "imageData: is not base64"),
        (labelme_content(CAR, imageHeight=9), "'imageHeight' is 9 and .*a.png has 8"),
        (labelme_content(CAR, imageWidth="10"), "'imageWidth' is '10' and .*a.png has 10"),
        (labelme_content(4), "shape 0: must be an object"),
        (labelme_content(SHAPE | {"shape_type": "cube"}), "shape 0: 'shape_type' 'cube' is none"),
        (labelme_content(SHAPE | {"shape_type": ["polygon"]}), "is none that labelme draws"),
        (labelme_content(SHAPE | {"label": None}), "shape 0: 'label': must be a text"),
        (labelme_content(SHAPE | {"points": None}), "'points': must be a list"),
        (labelme_content(SHAPE | {"points": [[1, 2, 3]]}), "a point is two coordinates"),
        (labelme_content(SHAPE | {"points": [[1, 2], 3]}), "a point is two coordinates"),
        (labelme_content(SHAPE | {"points": [[1, "2"]]}), "a coordinate must be a number, got '2'"),
        (labelme_content(SHAPE | {"shape_type": "rectangle"}), "a rectangle has 2 points, got 3"),
        (labelme_content(labelme_shape("a", [[0, 0], [1, 1]], "mask")), "the field 'mask' is missing"),
        (labelme_content(labelme_shape("a", [[0, 0], [1, 1]], "mask", mask="AAAA")), "shape 0: mask: not a JPEG, PNG"),
        (
            labelme_content(labelme_shape("a", [[0, 0], [1, 1]], "mask", mask=png(np.zeros((3, 2), np.uint8)))),
            "shape 0: the mask is 3 x 2 and its points say 2 x 2",
        ),
        (labelme_content(), "no shape with an area is drawn in 1 files"),
    ],
)
def test_read_labelme_wrong_content_is_refused_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    put(tmp_path, content)
    with pytest.raises(DataError, match=message):
        read_labelme(tmp_path)


def test_read_labelme_image_data_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.data.annotations.labelme._MOST_INSIDE", 100)
    put_json(tmp_path / "a.json", labelme_content(CAR, imageData="A" * 101))
    with pytest.raises(DataError, match="101 characters are more than any image"):
        read_labelme(tmp_path)


def test_mask_inside_a_shape_is_named_by_its_place() -> None:
    inside = _Inside(place="a.json: shape 3: mask", content=b"png")
    assert (str(inside), inside.name, inside.open().read()) == (
        "a.json: shape 3: mask",
        "a.json: shape 3: mask",
        b"png",
    )
    assert inside.path == Path("a.json: shape 3: mask")
    with pytest.raises(OSError, match="can be read alone, not opened with mode 'wb'"):
        inside.open("wb")


def test_read_labelme_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no JSON files here"):
        read_labelme(tmp_path)


def test_read_labelme_image_inside_stands_for_one_outside_of_the_folder(tmp_path: Path) -> None:
    pixels = np.zeros((8, 10, 3), np.uint8)
    name = "..\\images\\a.png"
    put_json(tmp_path / "a.json", labelme_content(CAR, imagePath=name, imageData=png(pixels)))
    (picture,) = read_labelme(tmp_path).splits["all"]
    assert picture.image == EmbeddedImage(file=tmp_path / "a.json", image="a.png")
    put_json(tmp_path / "a.json", labelme_content(CAR, imagePath=name))
    with pytest.raises(DataError, match=r"a\.json: the file name .* leads out of"):
        read_labelme(tmp_path)

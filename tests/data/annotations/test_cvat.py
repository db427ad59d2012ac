"""CVAT's XML: what is read, what is counted, and what is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_fakes import expected, put_image

from perpixel.data.annotations.collected import drawn_source
from perpixel.data.annotations.cvat import read_cvat
from perpixel.data.annotations.rle import counts_of
from perpixel.errors import DataError, MissingExtra

CAR = '<polygon label="car" source="manual" occluded="0" points="1.00,1.00;6.00,1.00;6.00,5.00;1.00,5.00" z_order="0"/>'
TREE = '<box label="tree" occluded="0" xtl="4.00" ytl="3.00" xbr="8.00" ybr="7.00" z_order="0"/>'


def document(*shapes: str, image: str = 'id="0" name="a.png" width="10" height="8"', head: str = "") -> str:
    labels = "".join(f"<label><name>{name}</name><color>#ff0000</color></label>" for name in ("tree", "car", "bike"))
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations><version>1.1</version><meta><job><labels>{labels}'
        f"</labels></job></meta><image {image}>{''.join(shapes)}</image></annotations>"
    )


def put(folder: Path, text: str | None = None) -> Path:
    put_image(folder / "images" / "a.png")
    (folder / "annotations.xml").write_text(document(CAR, TREE) if text is None else text, encoding="utf-8")
    return folder


def mask_of(folder: Path, **options: Any) -> np.ndarray:
    (item,) = drawn_source(read_cvat(folder), **options).splits["all"]
    return item.mask.read()


def test_read_cvat_labels_of_the_task_are_the_classes_in_their_order(tmp_path: Path) -> None:
    source = drawn_source(read_cvat(put(tmp_path)))
    assert source.labels.names == ("background", "tree", "car", "bike")
    (item,) = source.splits["all"]
    assert item.image == tmp_path / "images" / "a.png"
    np.testing.assert_array_equal(item.mask.read(), expected((2, 1, 1, 6, 5), (1, 4, 3, 8, 7)))


def test_read_cvat_z_order_is_what_is_seen_unless_told(tmp_path: Path) -> None:
    put(tmp_path, document(CAR.replace('z_order="0"', 'z_order="3"'), TREE))
    np.testing.assert_array_equal(mask_of(tmp_path), expected((1, 4, 3, 8, 7), (2, 1, 1, 6, 5)))
    np.testing.assert_array_equal(mask_of(tmp_path, order="file"), expected((2, 1, 1, 6, 5), (1, 4, 3, 8, 7)))


def test_read_cvat_mask_runs_go_along_the_rows(tmp_path: Path) -> None:
    bitmap = np.random.default_rng(5).random((3, 4)) < 0.5
    runs = ", ".join(map(str, counts_of(bitmap, by_columns=False).tolist()))
    put(tmp_path, document(f'<mask label="car" rle="{runs}" left="5" top="2" width="4" height="3" z_order="0"/>'))
    mask = expected()
    mask[2:5, 5:9] = bitmap * 2
    np.testing.assert_array_equal(mask_of(tmp_path), mask)


def test_read_cvat_ellipse_and_turned_box(tmp_path: Path) -> None:
    put(tmp_path, document('<ellipse label="car" cx="4.5" cy="4.5" rx="2" ry="1" rotation="90" z_order="0"/>'))
    assert (mask_of(tmp_path) == 2).astype(int)[2:7, 3:6].tolist() == [
        [0, 1, 0],
        [0, 1, 0],
        [1, 1, 1],
        [0, 1, 0],
        [0, 1, 0],
    ]
    put(tmp_path, document('<box label="car" xtl="1" ytl="3" xbr="7" ybr="5" rotation="90.0" z_order="0"/>'))
    np.testing.assert_array_equal(mask_of(tmp_path), expected((2, 3, 1, 5, 7)))


def test_read_cvat_what_has_no_area_is_counted(tmp_path: Path) -> None:
    shapes = [
        CAR,
        '<points label="car" points="1,1" z_order="0"/>',
        '<polyline label="car" points="1,1;2,2" z_order="0"/>',
        '<tag label="good"/>',
        '<polygon label="car" points="1,1;2,2"/>',
        '<polygon label="car" points="1,1;20,1;1,5"/>',
    ]
    notes = " | ".join(read_cvat(put(tmp_path, document(*shapes))).notes)
    assert "3 points, lines, cuboids, skeletons and tags, which have no area, were left out: points 1 on a.png" in notes
    assert "1 polygons with fewer than 3 points, which cover no pixel, were left out: polygon 4 on a.png" in notes
    assert "1 shapes reach over the edge of the image and are cut off there: polygon 5 on a.png" in notes


def test_read_cvat_without_labels_of_a_task_takes_the_drawn_ones(tmp_path: Path) -> None:
    text = document(TREE, CAR).replace("<label>", "<other>").replace("</label>", "</other>")
    assert list(read_cvat(put(tmp_path, text)).classes) == ["car", "tree"]


def test_read_cvat_labels_that_no_area_can_have_are_no_classes(tmp_path: Path) -> None:
    others = (
        "<label><name>good</name><type>tag</type></label><label><name>1</name><type>points</type><parent>s</parent></label>"
        "<label><name>s</name><type>skeleton</type></label><label><name>bus</name><type>polygon</type></label></labels>"
    )
    annotations = read_cvat(put(tmp_path, document(CAR).replace("</labels>", others)))
    assert list(annotations.classes) == ["tree", "car", "bike", "bus"]


@pytest.mark.parametrize("stated, orientation", [('width="10" height="8"', 6), ('width="8" height="10"', 1)])
def test_read_cvat_size_tells_whether_a_photo_was_turned(tmp_path: Path, stated: str, orientation: int) -> None:
    put_image(tmp_path / "a.jpg", (10, 8), orientation=6)
    put(tmp_path, document(TREE, image=f'id="0" name="a.jpg" {stated}'))
    assert read_cvat(tmp_path).splits["all"][0].drawing.orientation == orientation


def test_read_cvat_images_folder_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "task")
    image = put_image(tmp_path / "elsewhere" / "a.png")
    annotations = read_cvat(tmp_path / "task" / "annotations.xml", images=tmp_path / "elsewhere")
    assert annotations.splits["all"][0].image == image


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [BOMB, OUTSIDE, "<!DOCTYPE a>"])
def test_read_cvat_entities_and_dtds_are_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(DataError, match="XML with a DTD or entities is refused"):
        read_cvat(put(tmp_path, document(CAR, head=head)))


@pytest.mark.parametrize(
    "text, message",
    [
        ("<annotations>", "cannot be read as XML"),
        ("", "cannot be read as XML"),
        ("<other/>", "begins with <annotations>, this file with <other>"),
        ("<annotations><track/></annotations>", "tracks of a video; export the task as 'CVAT for images 1.1'"),
        ("<annotations/>", "has no <image>"),
        (document(image='id="0" width="10" height="8"'), "image 0: the attribute 'name' is missing"),
        (document(image='id="0" name="a.png" width="10" height="0"'), "'height' must be from 1 to 1000000, got 0"),
        (document(image='id="0" name="a.png" width="x" height="8"'), "'width' must be a whole number, got 'x'"),
        (document(image='id="0" name="../a.png" width="10" height="8"'), "'../a.png' leads out of"),
        (document(image='id="0" name="b.png" width="10" height="8"'), "1 images are not in .*b.png. .*--images"),
        (document('<blob label="car"/>'), "a.png: <blob> is no shape of CVAT 1.1"),
        (document(CAR.replace('label="car"', "")), "polygon 0 on a.png: the attribute 'label' is missing"),
        (document(CAR.replace('label="car"', 'label="dog"')), "labels dog are drawn and not among those of the task"),
        (document(CAR.replace("1.00,1.00;6", "1.00;6")), "a point is 'x,y', got '1.00'"),
        (document(CAR.replace("6.00,1.00", "six,1.00")), "a coordinate must be a number, got 'six'"),
        (document(CAR.replace("6.00,1.00", "nan,1.00")), "must be finite .* got nan"),
        (document(CAR.replace("6.00,1.00", "1e9,1.00")), "within"),
        (document(CAR.replace('z_order="0"', 'z_order="top"')), "'z_order' must be a whole number"),
        (document(TREE.replace('xtl="4.00"', 'xtl="9.00"')), "ends before it begins"),
        (document('<ellipse label="car" cx="4" cy="4" rx="0" ry="1"/>'), "radii of an ellipse are positive, got 0.0"),
        (
            document('<mask label="car" rle="1,2" left="0" top="0" width="2" height="2"/>'),
            "add up to the 2 x 2 .* got 3",
        ),
        (document('<mask label="car" rle="5,-1" left="0" top="0" width="2" height="2"/>'), "add up to the 2 x 2"),
        (document('<mask label="car" rle="1;2" left="0" top="0" width="2" height="2"/>'), "must list whole numbers"),
    ],
)
def test_read_cvat_wrong_content_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cvat(put(tmp_path, text))


def test_read_cvat_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotations.xml: there is no such file"):
        read_cvat(tmp_path)


def test_read_cvat_without_defusedxml_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    with pytest.raises(MissingExtra, match=r"pip install 'perpixel\[formats\]'"):
        read_cvat(put(tmp_path))


def test_read_cvat_pipe_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "annotations.xml")
    with pytest.raises(DataError, match=r"annotations\.xml: is no plain file"):
        read_cvat(tmp_path)

"""What is converted is opened by its prefix, by --from, or as any data set; options that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_fakes import coco_content, expected, labelme_content, labelme_shape, put_image, put_json
from PIL import Image

from perpixel.data import open_data
from perpixel.data.annotations.opening import open_any
from perpixel.data.annotations.tools import TOOLS, open_drawn
from perpixel.errors import DataError, InvalidValue

CAR = labelme_shape("car", [[1, 1], [6, 1], [6, 5], [1, 5]])


def put_coco(folder: Path) -> Path:
    put_image(folder / "a.png")
    return put_json(folder / "a.json", coco_content())


def put_folder(folder: Path) -> Path:
    for name in ("images", "masks"):
        put_image(folder / name / "a.png")
    Image.fromarray(expected((1, 0, 0, 3, 3))).save(folder / "masks" / "a.png")
    return folder


@pytest.mark.parametrize("prefixed", [True, False])
def test_open_any_drawn_labels_by_prefix_or_by_name(tmp_path: Path, prefixed: bool) -> None:
    file = put_coco(tmp_path)
    opened = open_any(f"coco:{file}") if prefixed else open_any(str(file), "coco")
    assert opened.labels.names == ("background", "car", "person")
    assert opened.source.notes[-1] == (
        "where shapes overlap: as in the file, later shapes over earlier ones; polygons cover pixels by rule 'centres'"
        "; pixels that no shape covers are background (id 0)"
    )


def test_open_any_options_reach_the_masks(tmp_path: Path) -> None:
    file = put_coco(tmp_path)
    (tmp_path / "own.yaml").write_text("names: [person, car]\nignore: [255]\n")
    opened = open_any(f"coco:{file}", labels=str(tmp_path / "own.yaml"), rest="ignore", order="area", rule="pil")
    mask = opened.source.splits["all"][0].mask
    assert (mask.rest, mask.order, mask.rule) == (255, "area", "pil")
    assert opened.labels.names == ("person", "car")
    assert "small shapes over large ones" in opened.source.notes[-1]
    assert opened.source.notes[-1].endswith("'pil'; pixels that no shape covers are ignored (id 255)")


def test_open_any_data_sets_keep_or_infer_their_classes(tmp_path: Path) -> None:
    opened = open_any(str(put_folder(tmp_path)))
    assert (opened.source.format, opened.labels.num_classes) == ("folder", 2)
    assert "2 numbered classes" in opened.notes[0]
    assert open_any(str(tmp_path), "folder", labels="5").labels.num_classes == 5
    assert open_any(f"folder:{tmp_path}").labels.num_classes == 2


def test_open_any_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_folder(tmp_path / "coco:x")
    monkeypatch.chdir(tmp_path)
    assert open_any("coco:x").source.format == "folder"


@pytest.mark.parametrize("options", [{"images": Path()}, {"order": "file"}, {"rest": "ignore"}, {"rule": "pil"}])
def test_open_any_options_of_drawn_labels_are_refused_for_masks(tmp_path: Path, options: dict) -> None:
    with pytest.raises(InvalidValue, match=r"this data set has masks. .*--from coco\|cvat\|labelme\|yolo"):
        open_any(str(put_folder(tmp_path)), **options)


def test_open_any_what_is_not_there_or_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: there is no such file or folder"):
        open_any(f"coco:{tmp_path / 'none.json'}")
    with pytest.raises(DataError, match=r"there is no format 'labelmee'; did you mean 'labelme'"):
        open_any(str(tmp_path), "labelmee")
    with pytest.raises(DataError, match=r"'coco:' names a format and no path; write coco:PATH"):
        open_any("coco:")
    with pytest.raises(DataError, match=r"--images .*nowhere: there is no such folder"):
        open_any(f"coco:{put_coco(tmp_path)}", images=tmp_path / "nowhere")
    with pytest.raises(InvalidValue, match="drawn labels have names, not colours"):
        open_any(f"coco:{put_coco(tmp_path)}", colors=True)
    with pytest.raises(InvalidValue, match=r"no reader for the tool 'voc'.* Known: coco, cvat, labelme, yolo"):
        open_drawn("voc", tmp_path)


def test_tools_give_the_same_mask_for_the_same_drawing(tmp_path: Path) -> None:
    """One car, drawn alike in each tool."""
    put_image(tmp_path / "images" / "a.png")
    content = coco_content()
    content["annotations"].pop()
    content["categories"] = [{"id": 1, "name": "car"}]
    content["annotations"][0]["category_id"] = 1
    paths = {
        "coco": put_json(tmp_path / "coco.json", content),
        "labelme": put_json(tmp_path / "drawn" / "a.json", labelme_content(CAR)),
        "cvat": put_json(
            tmp_path / "annotations.xml",
            '<annotations><image id="0" name="a.png" width="10" height="8"><polygon label="car" '
            'points="1,1;6,1;6,5;1,5"/></image></annotations>',
        ),
        "yolo": tmp_path,
    }
    put_json(tmp_path / "labels" / "a.txt", "0 0.1 0.125 0.6 0.125 0.6 0.625 0.1 0.625")
    put_json(tmp_path / "classes.txt", "car")
    assert set(paths) == set(TOOLS)
    for tool, path in paths.items():
        images = tmp_path / "images" if tool != "yolo" else None
        ((one,),) = open_drawn(tool, path, images=images).splits.values()
        np.testing.assert_array_equal(one.mask.read(), expected((1, 1, 1, 6, 5)), err_msg=tool)


def test_open_data_takes_drawn_labels_wherever_it_takes_data(tmp_path: Path) -> None:
    file = put_coco(tmp_path)
    for spec in (f"coco:{file}", f"coco:{tmp_path}"):
        ((one,),) = open_data(spec).splits.values()
        np.testing.assert_array_equal(one.mask.read(), expected((3, 1, 1, 6, 5), (9, 4, 3, 8, 7)))

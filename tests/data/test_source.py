"""What ``[format:]path`` opens, what is recognised unasked, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.source import FORMATS, open_data, open_folders
from perpixel.errors import ConfigError, DataError

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_camvid = pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no camvid/ under PERPIXEL_DATA")
needs_isbi = pytest.mark.skipif(not (DATA / "isbi2012").is_dir(), reason="no isbi2012/ under PERPIXEL_DATA")


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def test_open_data_plain_folder_is_undivided(tmp_path: Path) -> None:
    put(tmp_path / "images/b.jpg", tmp_path / "images/a.png", tmp_path / "masks/a.png", tmp_path / "masks/b.png")
    source = open_data(str(tmp_path))
    assert (source.format, source.root, source.labels) == ("folder", tmp_path, None)
    assert [item.name for item in source.splits["all"]] == ["a", "b"]
    assert source.splits["all"][1].mask == tmp_path / "masks/b.png"
    assert open_data(f"folder:{tmp_path}").splits == source.splits
    assert open_data(tmp_path).splits == source.splits


def test_open_data_list_file_is_recognised(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", tmp_path / "m.png")
    (tmp_path / "pairs.txt").write_text("a.jpg m.png\n")
    source = open_data(str(tmp_path / "pairs.txt"))
    assert (source.format, len(source.splits["all"])) == ("list", 1)
    assert open_data(f"list:{tmp_path / 'pairs.txt'}").splits == source.splits


def test_open_data_camvid_layout_is_recognised_and_said(tmp_path: Path) -> None:
    put(tmp_path / "train/a.png", tmp_path / "trainannot/a.png")
    source = open_data(str(tmp_path))
    assert source.format == "camvid"
    assert source.labels is not None
    assert source.labels.name == "camvid11"
    assert "layout of CamVid" in source.notes[0]
    assert "layout" not in " ".join(open_data(f"camvid:{tmp_path}").notes)


def test_open_data_voc_layout_is_recognised_and_said(tmp_path: Path) -> None:
    base = tmp_path / "VOCdevkit/VOC2012"
    put(base / "JPEGImages/1.jpg", base / "SegmentationClass/1.png")
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/train.txt").write_text("1\n")
    source = open_data(tmp_path)
    assert (source.format, source.root) == ("voc", base)
    assert "layout of PASCAL VOC" in source.notes[0]


def test_open_data_label_file_of_the_folder_is_used(tmp_path: Path) -> None:
    put(tmp_path / "images/a.png", tmp_path / "masks/a.png")
    (tmp_path / "labels.yaml").write_text("names: [sky, road]\n")
    source = open_data(tmp_path)
    assert source.labels is not None
    assert source.labels.names == ("sky", "road")
    assert "labels.yaml: 2 classes" in source.notes[0]
    assert open_folders(tmp_path / "images", tmp_path / "masks").labels == source.labels
    (tmp_path / "labels.yaml").write_text("classes: [sky]\n")
    with pytest.raises(ConfigError, match="unknown key 'classes'"):
        open_data(tmp_path)


def test_open_data_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no data format 'camvd' in 'camvd:/d'; did you mean 'camvid'\?\. Known: ade20k, .*yolo\."
    ):
        open_data("camvd:/d")


def test_open_data_format_without_path_raises() -> None:
    with pytest.raises(DataError, match="names a format and no path; write voc:PATH"):
        open_data("voc:")


def test_open_data_missing_path_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: there is no such data folder.*images/ and masks/.*train/, val/"):
        open_data(tmp_path / "gone")
    with pytest.raises(DataError, match="gone: there is no such data folder"):
        open_data(f"camvid:{tmp_path / 'gone'}")


def test_open_data_path_with_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "run:1/images/a.png", tmp_path / "run:1/masks/a.png")
    monkeypatch.chdir(tmp_path)
    assert open_data("run:1").format == "folder"


def test_open_data_file_of_the_wrong_kind_raises(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: data is a folder or a list file"):
        open_data(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"format 'voc' is read from a folder, this is a file; try list:"):
        open_data(f"voc:{tmp_path / 'a.png'}")


def test_open_folders_missing_folder_raises(tmp_path: Path) -> None:
    put(tmp_path / "images/a.png")
    with pytest.raises(DataError, match="masks: there is no such folder of masks"):
        open_folders(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(DataError, match="pictures: there is no such folder of images"):
        open_folders(tmp_path / "pictures", tmp_path / "masks")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_empty_folder_raises_with_the_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        open_data(f"{name}:{tmp_path}")


@pytest.mark.data
@needs_camvid
def test_open_data_real_camvid_has_the_published_splits() -> None:
    source = open_data(DATA / "camvid")
    assert source.format == "camvid"
    assert (len(source.splits["train"]), len(source.splits["val"])) == (367, 101)
    assert source.splits["train"][0].name == "0001TP_006690"


@pytest.mark.data
@needs_isbi
def test_open_data_real_isbi_pairs_all_slices() -> None:
    source = open_data(DATA / "isbi2012")
    assert source.format == "folder"
    assert len(source.splits["all"]) == 24
    assert all(item.mask is not None and item.mask.name == item.image.name for item in source.splits["all"])


def test_open_data_other_formats_that_fit_are_named(tmp_path: Path) -> None:
    put(tmp_path / "images/train/a.png", tmp_path / "masks/train/a.png")
    (tmp_path / "train.txt").write_text("images/train/a.png masks/train/a.png\n")
    source = open_data(tmp_path)
    assert source.format == "folder"
    assert source.notes == (f"other formats fit as well, which are read only when asked for: list:{tmp_path}",)


def test_open_data_lists_of_a_published_layout_are_no_other_format(tmp_path: Path) -> None:
    put(tmp_path / "train/a.png", tmp_path / "trainannot/a.png")
    (tmp_path / "train.txt").write_text("/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n")
    assert [note for note in open_data(tmp_path).notes if "other formats" in note] == []


def test_open_data_published_layout_goes_before_the_folders_that_it_resembles(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        put(*(tmp_path / split / kind / "a.png" for kind in ("labels", "instances")), tmp_path / split / "images/a.jpg")
    source = open_data(tmp_path)
    assert source.format == "mapillary"
    assert "has the layout of Mapillary Vistas" in source.notes[0]
    assert source.notes[1].endswith(f"folder:{tmp_path}")
    assert open_data(f"folder:{tmp_path}").labels is None


def test_open_data_names_that_no_file_system_takes_are_refused() -> None:
    with pytest.raises(DataError, match=r"cannot be read: .*Check the name"):
        open_data("x" * 5000)
    with pytest.raises(DataError, match=r"cannot be read: .*Check the name"):
        open_data("voc:" + "x" * 5000)


def test_open_data_link_to_itself_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match="loop: there is no such data folder"):
        open_data(tmp_path / "loop")


def test_open_data_links_that_lead_nowhere_are_said(tmp_path: Path) -> None:
    put(tmp_path / "images/a.png", tmp_path / "masks/a.png")
    (tmp_path / "extra").symlink_to("extra")
    assert open_data(tmp_path).notes == (
        f"1 symbolic links lead nowhere or to themselves and were passed over: {tmp_path / 'extra'}",
    )


def test_open_data_home_of_nobody_is_refused() -> None:
    with pytest.raises(DataError, match=r"~nobody-has-this-name/data: cannot be read"):
        open_data("~nobody-has-this-name/data")


@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_open_data_unpacked_one_level_deeper_names_the_folder(tmp_path: Path, prefix: str) -> None:
    inner = tmp_path / "archive"
    for folder, name in (("images", "a.jpg"), ("masks", "a.png")):
        (inner / folder).mkdir(parents=True)
        (inner / folder / name).touch()
    with pytest.raises(DataError, match=rf"did you mean folder:{inner}\?"):
        open_data(f"{prefix}{tmp_path}")
    with pytest.raises(DataError, match=r"no leftImg8bit/ here(?!.*did you mean)"):
        open_data(f"cityscapes:{tmp_path}")

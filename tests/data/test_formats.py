"""Layouts on disk: pairing by name, list files, CamVid, VOC; what is left out is said, what is missing is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.formats.camvid import read_camvid
from perpixel.data.formats.folders import match_folders, read_folder
from perpixel.data.formats.item import distinct_names, listed
from perpixel.data.formats.list_file import read_list, split_line
from perpixel.data.formats.voc import read_voc
from perpixel.errors import DataError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".txt", ".csv", ".db", ".json"):
            path.write_text("")
        else:
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    return folder


def pairs(items: tuple) -> list[tuple[str, str, str]]:
    return [(item.name, item.image.name, item.mask.name) for item in items]


def test_listed_cuts_after_the_limit() -> None:
    assert listed([1, 2, 3], 2) == "1, 2 and 1 more"
    assert listed(["a"]) == "a"


def test_match_folders_mixed_extensions_pair_by_stem(tmp_path: Path) -> None:
    images = put(tmp_path / "i", "b.JPG", "a.jpeg", "c.tif", "d.webp")
    masks = put(tmp_path / "m", "a.PNG", "b.png", "c.bmp", "d.tiff")
    items, notes = match_folders(images, masks)
    assert pairs(items) == [
        ("a", "a.jpeg", "a.PNG"),
        ("b", "b.JPG", "b.png"),
        ("c", "c.tif", "c.bmp"),
        ("d", "d.webp", "d.tiff"),
    ]
    assert notes == ()


@pytest.mark.parametrize("ending", ["_mask", "_L", "_gt", "_label", "_labelIds", "_Mask"])
def test_match_folders_usual_endings_are_tried_and_said(tmp_path: Path, ending: str) -> None:
    images = put(tmp_path / "i", "a.jpg", "b.jpg")
    masks = put(tmp_path / "m", f"a{ending}.png", f"b{ending}.png")
    items, notes = match_folders(images, masks)
    assert [item.mask.name for item in items] == [f"a{ending}.png", f"b{ending}.png"]
    assert f"image 'x' has mask 'x{ending}'".lower() in notes[0].lower()


def test_match_folders_cityscapes_names_pair_with_label_ids(tmp_path: Path) -> None:
    images = put(tmp_path / "i", "aachen_1_leftImg8bit.png")
    masks = put(tmp_path / "m", "aachen_1_gtFine_color.png", "aachen_1_gtFine_labelIds.png")
    items, notes = match_folders(images, masks)
    assert pairs(items) == [("aachen_1", "aachen_1_leftImg8bit.png", "aachen_1_gtFine_labelIds.png")]
    assert "1 masks" in notes[-1]
    assert "aachen_1_gtFine_color.png" in notes[-1]


def test_match_folders_masks_without_image_and_other_files_are_noted(tmp_path: Path) -> None:
    images = put(tmp_path / "i", "a.jpg", "Thumbs.db", ".hidden.png")
    masks = put(tmp_path / "m", "a.png", "spare.png")
    items, notes = match_folders(images, masks)
    assert pairs(items) == [("a", "a.jpg", "a.png")]
    assert "1 files in" in notes[0]
    assert "Thumbs.db" in notes[0]
    assert "1 masks in" in notes[1]
    assert "spare.png" in notes[1]


def test_match_folders_missing_masks_raise_naming_ten(tmp_path: Path) -> None:
    images = put(tmp_path / "i", *(f"{i:02}.jpg" for i in range(13)))
    masks = put(tmp_path / "m", "00.png")
    with pytest.raises(
        DataError, match=r"12 of 13 images .*: 01\.jpg, .*10\.jpg and 2 more\. Add the masks.*list file"
    ):
        match_folders(images, masks)


def test_match_folders_no_name_in_common_shows_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 1 images.*which holds other\.png\): a\.jpg"):
        match_folders(put(tmp_path / "i", "a.jpg"), put(tmp_path / "m", "other.png"))


@pytest.mark.parametrize("twice", ["i", "m"])
def test_match_folders_two_files_of_one_stem_raise(tmp_path: Path, twice: str) -> None:
    put(tmp_path / "i", "a.jpg")
    put(tmp_path / "m", "a.png")
    put(tmp_path / twice, "a.bmp")
    with pytest.raises(DataError, match=r"a\.bmp and a\.(jpg|png) share the name 'a'"):
        match_folders(tmp_path / "i", tmp_path / "m")


def test_match_folders_no_images_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"i: no image files here \(\.png"):
        match_folders(put(tmp_path / "i", "a.txt"), put(tmp_path / "m", "a.png"))


@pytest.mark.parametrize(("image", "mask"), [("images", "masks"), ("image", "label"), ("Images", "labels")])
def test_read_folder_known_names_are_taken(tmp_path: Path, image: str, mask: str) -> None:
    put(tmp_path, f"{image}/a.png", f"{mask}/a.png")
    assert pairs(read_folder(tmp_path).splits["all"]) == [("a", "a.png", "a.png")]


def test_read_folder_splits_may_lack_masks_in_test_only(tmp_path: Path) -> None:
    put(tmp_path, "train/images/a.png", "train/masks/a.png", "validation/images/b.png", "validation/masks/b.png")
    put(tmp_path, "test/images/c.png")
    source = read_folder(tmp_path)
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }
    assert source.splits["test"][0].mask is None
    assert "1 images can be predicted, not scored" in source.notes[0]
    (tmp_path / "validation/masks/b.png").unlink()
    (tmp_path / "validation/masks").rmdir()
    with pytest.raises(
        DataError, match=r"validation: there is no folder masks/ in it for split 'val'\. A data folder holds"
    ):
        read_folder(tmp_path)


def test_read_folder_split_without_images_raises(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png")
    with pytest.raises(DataError, match="train: there is no folder images/ in it"):
        read_folder(tmp_path)


def test_read_folder_foreign_layout_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, "pictures/a.png")
    with pytest.raises(DataError, match=r"it holds pictures\. A data folder holds images/ and masks/"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a.jpg b.png", ["a.jpg", "b.png"]),
        ("a.jpg\tb.png", ["a.jpg", "b.png"]),
        ("my dir/a b.jpg\tb c.png", ["my dir/a b.jpg", "b c.png"]),
        ("a b.jpg, b c.png", ["a b.jpg", "b c.png"]),
        ('"a, b.jpg",b.png', ["a, b.jpg", "b.png"]),
        ("a.jpg", ["a.jpg"]),
    ],
)
def test_split_line_separators_keep_names_with_blanks(line: str, fields: list[str]) -> None:
    assert split_line(line) == fields


def test_read_list_comments_headings_and_absolute_paths(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "m/a.png", "m/b.png")
    lines = ["# pairs", "image,mask", "", "a.jpg,m/a.png", f"{tmp_path / 'b.jpg'},{tmp_path / 'm/b.png'}"]
    (tmp_path / "l.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    source = read_list(tmp_path / "l.csv")
    assert pairs(source.splits["all"]) == [("a", "a.jpg", "a.png"), ("b", "b.jpg", "b.png")]


def test_read_list_paths_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "data/a.jpg", "data/a.png", "lists/l.txt")
    (tmp_path / "lists/l.txt").write_text("data/a.jpg\tdata/a.png")
    monkeypatch.chdir(tmp_path)
    assert pairs(read_list(tmp_path / "lists/l.txt").splits["all"]) == [("a", "a.jpg", "a.png")]


def test_read_list_single_paths_have_no_masks(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "m.png")
    (tmp_path / "l.txt").write_text("a.jpg\nb.jpg\n")
    assert [item.mask for item in read_list(tmp_path / "l.txt").splits["all"]] == [None, None]
    (tmp_path / "l.txt").write_text("a.jpg m.png\nb.jpg\n")
    with pytest.raises(DataError, match=r"l\.txt, line 2: some lines have a mask and some have none"):
        read_list(tmp_path / "l.txt")


def test_read_list_folder_of_lists_gives_splits(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "a.png", "b.jpg", "b.png")
    (tmp_path / "train.txt").write_text("a.jpg a.png")
    (tmp_path / "val.lst").write_text("b.jpg\tb.png")
    (tmp_path / "labels.yaml").write_text("names: [x]")
    source = read_list(tmp_path)
    assert {split: len(items) for split, items in source.splits.items()} == {"train": 1, "val": 1}
    assert source.labels is not None
    assert source.labels.names == ("x",)


def test_read_list_equal_stems_get_their_folders(tmp_path: Path) -> None:
    put(tmp_path, "s1/0.jpg", "s2/0.jpg", "m.png")
    (tmp_path / "l.txt").write_text("s1/0.jpg m.png\ns2/0.jpg m.png\n")
    assert [item.name for item in read_list(tmp_path / "l.txt").splits["all"]] == ["s1__0", "s2__0"]


def test_distinct_names_repeated_or_alike_raise() -> None:
    with pytest.raises(DataError, match=r"listed more than once: a\.jpg"):
        distinct_names([Path("a.jpg"), Path("a.jpg")])
    with pytest.raises(DataError, match="differ only in their extension"):
        distinct_names([Path("a.jpg"), Path("a.png")])


def test_read_list_bad_lines_raise_with_their_number(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    file.write_text("# x\nmy image.jpg mask.png\n")
    with pytest.raises(
        DataError, match=r"l\.txt, line 2: expected an image and its mask, got 3 fields.*by a tab or a comma"
    ):
        read_list(file)
    file.write_text("a.jpg,\n")
    with pytest.raises(DataError, match="line 1: expected an image and its mask"):
        read_list(file)
    file.write_text("a.jpg a.png\nb.jpg b.png\n")
    with pytest.raises(DataError, match=r"lists 4 files that are neither in .*: a\.jpg \(line 1\), a\.png \(line 1\)"):
        read_list(file)
    file.write_text("# nothing\n")
    with pytest.raises(DataError, match="the list is empty"):
        read_list(file)
    file.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="cannot be read as a list of files"):
        read_list(file)


def camvid(root: Path) -> Path:
    put(root, "train/b.png", "train/a.png", "train/spare.png", "trainannot/a.png", "trainannot/b.png")
    put(root, "val/c.png", "valannot/c.png")
    (root / "train.txt").write_text(
        "/SegNet/CamVid/train/b.png /SegNet/CamVid/trainannot/b.png\n"
        "/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n"
    )
    return root


def test_read_camvid_lists_with_foreign_prefix_are_followed(tmp_path: Path) -> None:
    source = read_camvid(camvid(tmp_path))
    assert pairs(source.splits["train"]) == [("b", "b.png", "b.png"), ("a", "a.png", "a.png")]
    assert source.splits["train"][0].mask == tmp_path / "trainannot/b.png"
    assert pairs(source.splits["val"]) == [("c", "c.png", "c.png")]
    assert source.notes == (
        "val.txt is missing, so split 'val' is the whole folder: 1",
        "other numbers of images than in the published data set: train 2 (published: 367), val 1 (published: 101)",
    )
    assert source.labels is not None
    assert source.labels.ignored_ids == (11,)


def test_read_camvid_bad_lists_raise(tmp_path: Path) -> None:
    camvid(tmp_path)
    (tmp_path / "val.txt").write_text("val/gone.png valannot/gone.png")
    with pytest.raises(DataError, match=r"split 'val' lists 2 files that are not there: .*gone\.png.*Correct"):
        read_camvid(tmp_path)
    (tmp_path / "val.txt").write_text("val/c.png")
    with pytest.raises(DataError, match=r"val\.txt, line 1: expected an image and its mask, got 'val/c\.png'"):
        read_camvid(tmp_path)
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: the list is empty"):
        read_camvid(tmp_path)


def voc(root: Path) -> Path:
    base = root / "VOC2012"
    put(base, *(f"JPEGImages/{i}.jpg" for i in "abcd"), *(f"SegmentationClass/{i}.png" for i in "ab"))
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    return root


def test_read_voc_splits_follow_the_id_lists(tmp_path: Path) -> None:
    source = read_voc(voc(tmp_path))
    assert source.root == tmp_path / "VOC2012"
    assert {split: pairs(items) for split, items in source.splits.items()} == {
        "train": [("a", "a.jpg", "a.png")],
        "val": [("b", "b.jpg", "b.png")],
    }
    assert source.labels is not None
    assert source.labels.num_classes == 21


@pytest.mark.parametrize("line", ["{0}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
def test_read_voc_augmented_training_set_is_found(tmp_path: Path, line: str) -> None:
    base = voc(tmp_path) / "VOC2012"
    put(base, "SegmentationClassAug/a.png", "SegmentationClassAug/c.png")
    (base / "ImageSets/Segmentation/train_aug.txt").write_text("\n".join(line.format(i) for i in "ac"))
    source = read_voc(tmp_path)
    assert [item.name for item in source.splits["train_aug"]] == ["a", "c"]
    assert source.splits["train_aug"][0].mask == base / "SegmentationClassAug/a.png"


def test_read_voc_augmented_set_with_validation_images_raises(tmp_path: Path) -> None:
    base = voc(tmp_path) / "VOC2012"
    put(base, "SegmentationClassAug/a.png", "SegmentationClassAug/b.png")
    (base / "ImageSets/Segmentation/train_aug.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"train_aug\.txt holds 1 images of the validation split.*: b\."):
        read_voc(tmp_path)


def test_read_voc_test_has_no_masks(tmp_path: Path) -> None:
    lists = voc(tmp_path) / "VOC2012/ImageSets/Segmentation"
    (lists / "test.txt").write_text("c\nd\n")
    assert [item.mask for item in read_voc(tmp_path).splits["test"]] == [None, None]
    (lists / "test.txt").write_text("c\nx\n")
    with pytest.raises(DataError, match=r"split 'test' lists 1 files that are not there: .*x\.jpg"):
        read_voc(tmp_path)
    (lists / "test.txt").write_text("x\ny\n")
    source = read_voc(tmp_path)
    assert "test" not in source.splits
    assert "test.txt lists images that are not here" in source.notes[0]


def test_read_voc_incomplete_data_raises(tmp_path: Path) -> None:
    lists = voc(tmp_path) / "VOC2012/ImageSets/Segmentation"
    (lists / "val.txt").write_text("c\n")
    with pytest.raises(DataError, match=r"split 'val' lists 1 files that are not there: .*SegmentationClass.c\.png"):
        read_voc(tmp_path)
    (lists / "val.txt").write_text("")
    with pytest.raises(DataError, match=r"val\.txt: the list is empty"):
        read_voc(tmp_path)
    (lists / "val.txt").unlink()
    (lists / "train.txt").unlink()
    with pytest.raises(DataError, match=r"no train\.txt or val\.txt here"):
        read_voc(tmp_path)


def test_read_camvid_list_never_leads_out_or_pairs_two_names(tmp_path: Path) -> None:
    root = camvid(tmp_path)
    for line in ("/a.png /b.png", "train/.. trainannot/..", "a.png b.png"):
        (root / "train.txt").write_text(line)
        with pytest.raises(DataError, match=r"train\.txt, line 1: expected an image and its mask"):
            read_camvid(root)
    (root / "train.txt").write_text("train/a.png trainannot/b.png\n")
    with pytest.raises(DataError, match=r"line 1: the image a\.png stands beside the mask of another, b\.png"):
        read_camvid(root)


def test_read_camvid_image_listed_twice_is_named(tmp_path: Path) -> None:
    root = camvid(tmp_path)
    lines = (root / "train.txt").read_text()
    (root / "train.txt").write_text(lines + lines)
    with pytest.raises(DataError, match=r"train\.txt: \d+ images are listed more than once: "):
        read_camvid(root)


@pytest.mark.parametrize(("folder", "twin"), [("train", "training"), ("val", "valid")])
def test_read_folder_two_folders_of_one_split_are_refused(tmp_path: Path, folder: str, twin: str) -> None:
    for name in (folder, twin):
        put(tmp_path / name / "images", "a.jpg")
        put(tmp_path / name / "masks", "a.png")
    with pytest.raises(DataError, match=f"{folder}, {twin} are both split '{folder}'; join them"):
        read_folder(tmp_path)


def test_read_folder_names_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "images", "a.jpg")
    put(tmp_path / "masks", "a.png")
    put(tmp_path / "Masks", "a.png")
    with pytest.raises(DataError, match="Masks, masks are one name; join or rename"):
        read_folder(tmp_path)


def test_match_folders_endings_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "i", "a.jpg")
    put(tmp_path / "m", "a_mask.png", "a_Mask.png")
    with pytest.raises(DataError, match=r"a_.ask\.png: another file has the same name but for the case"):
        match_folders(tmp_path / "i", tmp_path / "m")


def test_read_folder_hidden_pictures_do_not_hide_the_splits(tmp_path: Path) -> None:
    put(tmp_path / "images/train", "a.jpg")
    put(tmp_path / "masks/train", "a.png")
    put(tmp_path / "images", "._a.jpg")
    assert pairs(read_folder(tmp_path).splits["train"]) == [("a", "a.jpg", "a.png")]

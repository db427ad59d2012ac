"""Mapping files: what they change, what they refuse, and that no id appears that was not meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.fixes import Fixes, MendedMask, apply_fixes, load_fixes, open_with_fixes
from perpixel.data.source import open_data
from perpixel.errors import ConfigError, DataError

IDS = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) // 500  # 0 to 3


def write_data(root: Path, count: int = 4) -> Path:
    for index in range(count):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 48, 3), 10 * index, np.uint8)).save(root / "images" / f"a{index}.png")
        Image.fromarray(IDS.astype(np.uint8)).save(root / "masks" / f"a{index}.png")
    return root


def fixes(tmp_path: Path, text: str) -> Fixes:
    file = tmp_path / "fixes.yaml"
    file.write_text(text, encoding="utf-8")
    return load_fixes(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "a mapping file holds the keys labels, mask_encoding, exclude, masks, got list"),
        ("exclud: []", "unknown key 'exclud'; did you mean 'exclude'"),
        ("labels: 3", "'labels' holds the keys of a label file, got int"),
        ("labels: {names: 3}", "'names' must list"),
        ("mask_encoding: rgb", "mask_encoding is ids or colors, got 'rgb'"),
        ("mask_encoding: colors", "mask_encoding: colors needs 'labels'"),
        ("exclude: a", "'exclude' lists image files or names"),
        ("exclude: [1]", "'exclude' lists image files or names"),
        ("masks: []", "'masks' maps mask files to how they are read, got list"),
        ("masks: {a.png: {}}", "'a.png' needs one of the keys ids, divide, as"),
        ("masks: {a.png: {turn: 1}}", "'a.png' needs one of the keys ids, divide, as"),
        ("masks: {a.png: {ids: [1]}}", "'ids' maps whole numbers"),
        ("masks: {a.png: {ids: {1: 70000}}}", "'ids' maps whole numbers"),
        ("masks: {a.png: {ids: {1: true}}}", "'ids' maps whole numbers"),
        ("masks: {a.png: {divide: 1}}", "'divide' is a whole number of 2 or more, got 1"),
        ("masks: {a.png: {as: grey}}", "'as' is colors, alpha or stored, got 'grey'"),
        ("a: &a [x, x]\nexclude: [*a, *a]", r"aliases \(\*a\) are not read"),
        ("{", "not a YAML file"),
        ("!!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_load_fixes_what_is_no_mapping_file_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fixes(tmp_path, text)


def test_load_fixes_missing_and_huge_file_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the mapping file cannot be read"):
        load_fixes(tmp_path / "none.yaml")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(ConfigError, match="a mapping file of more than"):
        load_fixes(tmp_path / "huge.yaml")


def test_apply_fixes_leaves_out_by_file_and_by_name_and_says_so(tmp_path: Path) -> None:
    source = open_data(write_data(tmp_path / "d"))
    mended = apply_fixes(source, fixes(tmp_path, "exclude: [images/a0.png, a2, gone]"))
    assert [item.name for item in mended.splits["all"]] == ["a1", "a3"]
    assert any("2 images are left out and 0 masks" in note for note in mended.notes)
    assert any("1 entries are of no image or mask here: gone" in note for note in mended.notes)


def test_apply_fixes_leaving_nothing_refused(tmp_path: Path) -> None:
    source = open_data(write_data(tmp_path / "d", 2))
    with pytest.raises(DataError, match="leaves out all 2 images of split 'all'"):
        apply_fixes(source, fixes(tmp_path, "exclude: [a0, a1]"))


def test_apply_fixes_labels_replace_those_of_the_data(tmp_path: Path) -> None:
    source = open_data(write_data(tmp_path / "d"))
    mended = apply_fixes(source, fixes(tmp_path, "labels: {names: [a, b, c, d], stored: [0, 1, 2, 3]}"))
    assert mended.labels is not None
    assert mended.labels.names == ("a", "b", "c", "d")


def test_apply_fixes_colors_without_classes_or_with_equal_colors_refused(tmp_path: Path) -> None:
    source = open_data(write_data(tmp_path / "d"))
    with pytest.raises(DataError, match="no label space says which class they are"):
        apply_fixes(source, fixes(tmp_path, "masks: {masks/a0.png: {as: colors}}"))
    text = "mask_encoding: colors\nlabels: {names: [a, b], colors: [[1, 1, 1], [1, 1, 1]]}"
    with pytest.raises(DataError, match="cannot be read from colours"):
        apply_fixes(source, fixes(tmp_path, text))


def test_open_with_fixes_data_that_is_refused_needs_its_fault_left_out(tmp_path: Path) -> None:
    root = write_data(tmp_path / "d")
    (root / "masks" / "a1.png").unlink()
    with pytest.raises(DataError, match="have no mask"):
        open_with_fixes(root, fixes(tmp_path, "exclude: [a0]"))
    source = open_with_fixes(root, fixes(tmp_path, "exclude: [images/a1.png]"))
    assert [item.name for item in source.splits["all"]] == ["a0", "a2", "a3"]
    pair = open_with_fixes(root / "images", fixes(tmp_path, "exclude: [a1]"), masks=root / "masks")
    assert len(pair.splits["all"]) == 3


def test_mended_mask_ids_are_replaced_and_others_refused(tmp_path: Path) -> None:
    file = write_data(tmp_path / "d") / "masks" / "a0.png"
    mended = MendedMask(file, ((0, 3), (1, 2), (2, 1), (3, 300))).read()
    assert np.array_equal(mended, np.array([3, 2, 1, 300])[IDS])
    with pytest.raises(DataError, match="ids 2, 3 are not in the mapping file"):
        MendedMask(file, ((0, 3), (1, 2))).read()


def test_mended_mask_instances_divided_and_small_ids_kept(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 7001, 8000, 11]], dtype=np.uint16)).save(tmp_path / "m.png")
    assert MendedMask(tmp_path / "m.png", divide=1000).read().tolist() == [[7, 7, 8, 11]]


def test_mended_mask_alpha_and_stored_are_read_as_said(tmp_path: Path) -> None:
    ids = IDS.astype(np.uint8)
    Image.fromarray(np.dstack([np.zeros((*ids.shape, 3), np.uint8), ids])).save(tmp_path / "alpha.png")
    assert np.array_equal(MendedMask(tmp_path / "alpha.png", reading="alpha").read(), ids)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ids).save(tmp_path / "turned.png", exif=exif)
    mask = MendedMask(tmp_path / "turned.png", reading="stored")
    assert mask.size() == ids.shape
    assert np.array_equal(mask.read(), ids)
    assert MendedMask(tmp_path / "turned.png").size() == ids.shape[::-1]
    with pytest.raises(DataError, match="says as: alpha, and the file has another form"):
        MendedMask(tmp_path / "turned.png", reading="alpha").read()
    (tmp_path / "cut.png").write_bytes((tmp_path / "alpha.png").read_bytes()[:120])
    with pytest.raises(DataError, match="cannot be read"):
        MendedMask(tmp_path / "cut.png", reading="alpha").read()

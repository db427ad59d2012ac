"""Colours as ids: the table decides, every other colour is refused or becomes the stated id."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from perpixel.data.decoding import image_size, read_mask
from perpixel.data.formats.color_masks import ColorIds, color_table, ids_of_colors
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

TABLE = (((128, 0, 0), 4), ((0, 128, 0), 7), ((0, 0, 0), 30))
RGB = np.array([[[128, 0, 0], [0, 128, 0]], [[0, 0, 0], [128, 0, 0]], [[0, 128, 0], [0, 0, 0]]], np.uint8)
IDS = [[4, 7], [30, 4], [7, 30]]


def save(path: Path, rgb: np.ndarray = RGB, **options: object) -> Path:
    Image.fromarray(rgb).save(path, **options)
    return path


def test_color_ids_read_as_stored_ids(tmp_path: Path) -> None:
    mask = ColorIds(save(tmp_path / "a.png"), TABLE)
    assert read_mask(mask).tolist() == IDS
    assert (read_mask(mask).dtype, image_size(mask), mask.path) == (np.uint8, (3, 2), tmp_path / "a.png")
    assert pickle.loads(pickle.dumps(mask)) == mask
    assert str(mask) == str(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_color_ids_alpha_and_palettes_give_the_same_ids(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RGB)
    (picture.quantize(3) if mode == "P" else picture.convert(mode)).save(tmp_path / "a.png")
    assert ColorIds(tmp_path / "a.png", TABLE).read().tolist() == IDS


def test_color_ids_above_255_take_16_bits(tmp_path: Path) -> None:
    ids = ColorIds(save(tmp_path / "a.png"), (*TABLE[:2], ((0, 0, 0), 300))).read()
    assert (ids.dtype, ids[1, 0]) == (np.uint16, 300)


def test_color_ids_unknown_colours_are_refused_with_place_and_count(tmp_path: Path) -> None:
    rgb = RGB.copy()
    rgb[2, 0] = (1, 2, 3)
    rgb[2, 1] = (1, 2, 3)
    file = save(tmp_path / "a.png", rgb)
    with pytest.raises(
        DataError, match=r"a\.png: 1 colours are none of the 3.*\(1, 2, 3\) on 2 pixels.*row 2, column 0"
    ):
        ColorIds(file, TABLE).read()
    assert ColorIds(file, TABLE, unknown=30).read().tolist() == [[4, 7], [30, 4], [30, 30]]
    assert ColorIds(file, TABLE, unknown=999).read().max() == 999


def test_color_ids_jpeg_and_exif_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: a JPEG file cannot be a mask"):
        ColorIds(save(tmp_path / "a.jpg"), TABLE).read()
    exif = Image.Exif()
    exif[0x0112] = 3
    with pytest.raises(DataError, match=r"b\.png: the mask carries EXIF orientation 3; save it upright"):
        ColorIds(save(tmp_path / "b.png", exif=exif), TABLE).size()


def test_color_ids_bad_tables_are_refused() -> None:
    with pytest.raises(InvalidValue, match="needs at least one colour"):
        ColorIds(Path("a.png"), ())
    with pytest.raises(InvalidValue, match=r"colour \(0, 0, 0\) stands for the ids 1 and 2"):
        ColorIds(Path("a.png"), (((0, 0, 0), 1), ((0, 0, 0), 2)))
    with pytest.raises(InvalidValue, match=r"three whole numbers in \[0, 255\], got \(0, 0, 256\)"):
        ColorIds(Path("a.png"), (((0, 0, 256), 1),))
    with pytest.raises(InvalidValue, match="the id 65536 of colour"):
        ColorIds(Path("a.png"), (((0, 0, 0), 65536),))
    with pytest.raises(InvalidValue, match=r"unknown colours must lie in \[0, 65535\], got -1"):
        ColorIds(Path("a.png"), TABLE, unknown=-1)


def test_color_table_encodes_back_to_the_label_spaces_classes() -> None:
    for name in ("camvid11", "camvid32", "voc", "mapillary_v1.2"):
        labels = LabelSpace.load(name)
        rgb = np.array([[*labels.colors, labels.ignore_color]], np.uint8)
        ids = ids_of_colors(rgb, color_table(labels))
        assert labels.encode(ids).tolist() == [[*range(labels.num_classes), 255]]


def test_color_table_extra_colours_and_repeated_ones() -> None:
    labels = LabelSpace.load("camvid32")
    assert ids_of_colors(np.full((1, 1, 3), 9, np.uint8), color_table(labels, {(9, 9, 9): 3})).tolist() == [[3]]
    with pytest.raises(InvalidValue, match="stands for the ids"):
        color_table(LabelSpace.load("ade20k150"))


@given(st.lists(st.sampled_from([c for c, _ in TABLE] + [(1, 1, 1), (255, 255, 255)]), min_size=1, max_size=24))
def test_ids_of_colors_agree_with_a_lookup_pixel_by_pixel(colors: list[tuple[int, int, int]]) -> None:
    rgb = np.array([colors], np.uint8)
    plain = [[dict(TABLE).get(color, 2) for color in colors]]
    assert ids_of_colors(rgb, TABLE, unknown=2).tolist() == plain
    assert set(np.unique(plain)) <= {2, 4, 7, 30}

"""CamVid as Cambridge released it: colours of 32 classes, grouped to SegNet's eleven or kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.formats.camvid import is_camvid, read_camvid, read_camvid32
from perpixel.data.source import DataSource, open_data
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

SPACE = LabelSpace.load("camvid32")
VOID = (0, 0, 0)
# Name, colour and SegNet's class, by hand from the data set's description.
SAMPLES = [
    ("Sky", (128, 128, 128), "Sky"),
    ("Bridge", (0, 128, 64), "Building"),
    ("TrafficCone", (0, 0, 64), "Pole"),
    ("LaneMkgsDriv", (128, 0, 192), "Road"),
    ("Sidewalk", (0, 0, 192), "Pavement"),
    ("VegetationMisc", (192, 192, 0), "Tree"),
    ("TrafficLight", (0, 64, 64), "SignSymbol"),
    ("Fence", (64, 64, 128), "Fence"),
    ("Truck_Bus", (192, 128, 192), "Car"),
    ("Child", (192, 128, 64), "Pedestrian"),
    ("MotorcycleScooter", (192, 0, 192), "Bicyclist"),
]


def put(root: Path, stem: str, colors: list[tuple[int, int, int]]) -> None:
    for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
        (root / folder).mkdir(exist_ok=True)
    rgb = np.array([colors, colors], np.uint8)
    Image.fromarray(np.zeros_like(rgb)).save(root / "701_StillsRaw_full" / f"{stem}.png")
    Image.fromarray(rgb).save(root / "LabeledApproved_full" / f"{stem}_L.png")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    put(tmp_path, "0001TP_006690", [color for _, color, _ in SAMPLES] + [VOID])
    put(tmp_path, "0016E5_00390", [VOID] * 12)
    lines = [f"{r} {g} {b}\t\t{name}" for name, (r, g, b), _ in SAMPLES]
    (tmp_path / "label_colors.txt").write_text("\r\n".join(lines) + "\r\n0 0 0\tVoid\r\n")
    return tmp_path


def row(source: DataSource, name: str) -> list[int]:
    assert source.labels is not None
    items = [item for items in source.splits.values() for item in items if item.name == name]
    pixels = SegmentationDataset(items, source.labels).read_target(0).pixels
    assert pixels is not None
    return pixels[0].tolist()


def test_read_camvid_original_is_grouped_to_eleven_and_said(original: Path) -> None:
    source = read_camvid(original)
    assert source.labels is not None
    assert source.labels.names == LabelSpace.load("camvid11").names
    expected = [source.labels.names.index(group) for _, _, group in SAMPLES]
    assert row(source, "0001TP_006690") == [*expected, 255]
    assert row(source, "0016E5_00390") == [255] * 12
    assert f"camvid32:{original} keeps all 32" in source.notes[0]
    assert "its 2 images are one split" in source.notes[1]
    assert open_data(original).splits == source.splits


def test_read_camvid32_keeps_every_class(original: Path) -> None:
    source = open_data(f"camvid32:{original}")
    assert (source.format, source.labels) == ("camvid32", SPACE)
    assert row(source, "0001TP_006690") == [*(SPACE.names.index(name) for name, _, _ in SAMPLES), 255]


def test_read_camvid_original_off_palette_colours_are_void_in_the_one_known_file(original: Path) -> None:
    put(original, "Seq05VD_f02610", [(1, 2, 3), (128, 0, 0)])
    source = read_camvid(original)
    assert row(source, "Seq05VD_f02610") == [255, 1]
    assert any("Seq05VD_f02610_L.png holds colours of no class" in note for note in source.notes)
    put(original, "0016E5_00390", [(1, 2, 3)] * 12)
    with pytest.raises(DataError, match=r"0016E5_00390_L\.png: 1 colours are none of the 32.*\(1, 2, 3\) on 24 pixels"):
        row(read_camvid(original), "0016E5_00390")


def test_read_camvid_original_segnets_lists_divide_it(original: Path) -> None:
    put(original, "spare", [VOID])
    (original / "train.txt").write_text("/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP.png\n")
    (original / "val.txt").write_text("0016E5_00390\n")
    source = read_camvid(original)
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["0001TP_006690"],
        "val": ["0016E5_00390"],
    }
    assert source.notes[-2] == "1 images are in no list and were left out"
    (original / "val.txt").write_text("0001TP_006690\n")
    with pytest.raises(DataError, match=r"val\.txt: of 1 names 0 .* and 1 are given before \(0001TP_006690\)"):
        read_camvid(original)
    (original / "val.txt").write_text("gone\n")
    with pytest.raises(DataError, match=r"val\.txt: of 1 names 1 are not in 701_StillsRaw_full/ \(gone\)"):
        read_camvid(original)


def test_read_camvid_original_other_colour_lists_are_refused(original: Path) -> None:
    (original / "label_colors.txt").write_text("1 2 3 Sky\n")
    with pytest.raises(DataError, match=r"label_colors\.txt, line 1: Sky has the colour \(1, 2, 3\), in CamVid it is"):
        read_camvid(original)


def test_read_camvid_missing_parts_are_said(original: Path, tmp_path: Path) -> None:
    (original / "LabeledApproved_full/0016E5_00390_L.png").unlink()
    with pytest.raises(DataError, match=r"lacks the masks of 1 of 2 .*0016E5_00390_L\.png.*University of Cambridge"):
        read_camvid(original)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_camvid(empty)
    with pytest.raises(DataError, match=r"no split of CamVid here\. SegNet's CamVid \(in the SegNet tutorial\)"):
        read_camvid(empty)
    for folder in ("train", "trainannot"):
        (empty / folder).mkdir()
    with pytest.raises(DataError, match=r"no 701_StillsRaw_full/ .* reads the 11 classes that are here"):
        read_camvid32(empty)


def test_read_camvid_lists_that_climb_out_are_refused(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    (tmp_path / "train.txt").write_text("train/../x.png trainannot/x.png\n")
    with pytest.raises(DataError, match=r"train\.txt, line 1: expected an image and its mask"):
        read_camvid(tmp_path)

"""What the detective makes of whole folders of masks: their encoding, its evidence, and the label file it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from broken_data import CAMVID_COLORS, photo, street
from PIL import Image

from perpixel.data.fixes import load_fixes, open_with_fixes, write_fixes
from perpixel.data.inspection.inspect import Inspection, inspect_data
from perpixel.errors import InvalidValue

QUIET = {"class_imbalance", "thin_objects", "encoding"}
COLORS = np.array(CAMVID_COLORS, np.uint8)
COUNT = 22


def write_folder(
    root: Path, change: Callable[[np.ndarray, int], np.ndarray | Image.Image], suffix: str = ".png"
) -> Path:
    for index in range(COUNT):
        mask = street(np.random.default_rng(index))
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(mask, index)[:, :, :]).save(root / "images" / f"a{index:02}.png")
        changed = change(mask, index)
        picture = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
        picture.save(root / "masks" / f"a{index:02}{suffix}")
    return root


def kinds(found: Inspection) -> dict[str, int]:
    return {one.kind: one.count for one in found.findings if one.kind not in QUIET}


def evidence(found: Inspection) -> str:
    return next(one.message for one in found.findings if one.kind == "encoding")


def painted(mask: np.ndarray, _: int) -> Image.Image:
    picture = Image.fromarray(mask)
    picture.putpalette(COLORS.ravel().tolist())
    return picture


def repainted(mask: np.ndarray, index: int) -> Image.Image:
    picture = Image.fromarray(mask)
    picture.putpalette((COLORS[::-1] if index == 3 else COLORS).ravel().tolist())
    return picture


def instances(mask: np.ndarray, _: int) -> np.ndarray:
    return (mask.astype(np.uint16) * 1000 + np.arange(mask.shape[1], dtype=np.uint16) // 40).astype(np.uint16)


def smeared(mask: np.ndarray, _: int) -> Image.Image:
    picture = Image.fromarray(mask)
    return picture.resize((48, 36), 0).resize(picture.size, 2)


@pytest.mark.parametrize(
    ("change", "labels", "expected", "said"),
    [
        (lambda m, _: m, None, {}, "masks hold ids 0 to 11: 12 classes"),
        (lambda m, _: m, "camvid11", {}, "label space 'camvid11': 11 classes"),
        (lambda m, _: np.where(m == 3, 255, 0).astype(np.uint8), None, {}, "masks hold only 0 and 255: two classes"),
        (lambda m, _: np.where(m == 11, 255, m).astype(np.uint8), None, {}, "0 to 10 and 255, taken as ignored"),
        (painted, None, {}, "22 8-bit palette"),
        (repainted, None, {"palette_differs": 1}, "22 8-bit palette"),
        (lambda m, _: m.astype(np.uint16), None, {}, "22 16-bit"),
        (lambda m, _: m + np.uint8(1), None, {"ids_from_one": 1}, "ids 1 to 12 and never 0"),
        (lambda m, i: np.where((m == 11) & (i == 3), 37, m).astype(np.uint8), None, {"unknown_ids": 1}, "0 to 11"),
        (lambda m, _: m * np.uint8(20), None, {"many_ids": 1}, "no consecutive classes"),
        (instances, None, {"instance_mask": COUNT}, None),
        (smeared, None, {"smeared_mask": COUNT}, None),
        (lambda m, _: np.where(m == 3, 255, 0).astype(np.uint8), "2", {"foreground_ignored": COUNT}, None),
        (lambda m, _: m, "5", {"unknown_ids": COUNT}, None),
        (lambda m, _: COLORS[m], None, {"color_mask": COUNT}, "they are those of 'camvid11'"),
    ],
)  # fmt: skip
def test_inspect_data_whole_folder_encoding_is_named(tmp_path: Path, change, labels, expected, said) -> None:
    found = inspect_data(write_folder(tmp_path / "data", change), labels=labels, workers=1)
    assert kinds(found) == expected
    assert said is None or said in evidence(found)


def test_inspect_data_unknown_colors_become_classes_that_the_fixes_read(tmp_path: Path) -> None:
    palette = np.random.default_rng(5).integers(0, 255, (12, 3), dtype=np.uint8)
    root = write_folder(tmp_path / "data", lambda mask, _: palette[mask])
    found = inspect_data(root, workers=1)
    assert kinds(found) == {"color_mask": COUNT}
    write_fixes(tmp_path / "fixes.yaml", found.mending, root=root)
    source = open_with_fixes(root, load_fixes(tmp_path / "fixes.yaml"))
    assert source.labels is not None
    mask = source.splits["all"][0].mask
    ids = mask.read()  # type: ignore[union-attr]
    assert np.array_equal(source.labels.colorize(ids), palette[street(np.random.default_rng(0))])


def test_inspect_data_colors_that_are_asked_for_are_no_fault(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", lambda mask, i: mask if i == 4 else COLORS[mask])
    found = inspect_data(root, labels="camvid11", mask_encoding="colors", workers=1)
    assert kinds(found) == {"mixed_encoding": 1}


def test_inspect_data_scattered_ids_get_a_label_file(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", lambda mask, _: mask * np.uint8(20))
    labels = inspect_data(root, workers=1).mending.labels
    assert labels is not None
    assert labels["stored"][220] == "id 220"


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"size": (0, 4)}, {"workers": 0}])
def test_inspect_data_options_out_of_range_refused(tmp_path: Path, wrong) -> None:
    with pytest.raises(InvalidValue, match="stride, size and workers are positive"):
        inspect_data(tmp_path, **wrong)


def test_inspect_data_masks_of_chance_are_no_errors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    root = write_folder(tmp_path, lambda mask, _: random.integers(0, 8, mask.shape, dtype=np.uint8))
    assert not inspect_data(root).count("error")

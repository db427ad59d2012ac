"""The checker of kind "metrics": a changed value fails its own row alone, and damaged files are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from perpixel.errors import CheckpointError
from perpixel.weights import verify

STORED = Path(__file__).parents[1] / "reference" / "scores"


@pytest.fixture
def vector(tmp_path):
    return shutil.copytree(STORED, tmp_path / "scores")


def change(vector, name, keys, value):
    content = json.loads((vector / name).read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (vector / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "keys", "value", "row"),
    [
        ("expected.json", ("A_absent_classes", "dataset", "iou", 4), 0.0, "A_absent_classes dataset iou"),
        ("expected.json", ("A_absent_classes", "shape"), [2, 16], "A_absent_classes shape"),
        (
            "expected.json",
            ("B_per_image_vs_dataset", "per_image", 1, "fwiou"),
            0.5,
            "B_per_image_vs_dataset image 1 fwiou",
        ),
        ("expected.json", ("C_all_ignored_image", "per_image", 0, "pixel_accuracy"), 0.0, "image 0 pixel_accuracy"),
        ("expected.json", ("D_odd_predictions_under_ignore", "torchmetrics", "accuracy_macro"), 0.3, "accuracy_macro"),
        (
            "expected.json",
            ("A_absent_classes", "agreement", "accuracy_macro_equals_mean_accuracy_present"),
            True,
            "present",
        ),
        ("expected.json", ("E_shifted_shapes", "bf", "theta_2px", "per_image", 0), 0.8272, "bf theta_2px per_image"),
        ("expected.json", ("F_voronoi_with_ignore", "boundary_iou_0.02", "union", 3), 369, "boundary_iou_0.02 union"),
        ("expected.json", ("F_voronoi_with_ignore", "trimap", 1, "pixels"), 1474, "trimap 3 pixels"),
        ("cityscapes_expected.json", ("iiou", "rider"), 0.6225449, "cityscapes iiou"),
        ("cityscapes_expected.json", ("category_iiou", "flat"), 0.1, "cityscapes category_iiou"),
        ("cityscapes_expected.json", ("instance_stats", "classes", "car", "tp"), 85.0, "cityscapes instance_stats car"),
        ("conventions_expected.json", ("values", "TorchSeg", "E"), 72.86, "conventions E torchseg"),
        ("conventions_expected.json", ("values", "torchvision ref", "C"), 72.68, "conventions C torchvision"),
        ("conventions_expected.json", ("values", "SMP micro", "A"), "error", "conventions A smp-micro"),
    ],
)
def test_metrics_vector_changed_value_fails_its_row_alone(vector, name, keys, value, row):
    change(vector, name, keys, value)
    wrong = [checked.name for checked in verify(vector).rows if not checked.passed]
    assert len(wrong) == 1
    assert wrong[0].endswith(row)


@pytest.mark.parametrize("name", ["cases.npz", "expected.json", "cityscapes.npz", "conventions_expected.json"])
def test_metrics_vector_missing_or_damaged_file_is_named(vector, name):
    (vector / name).write_bytes(b"PK\x03")
    assert f"{name}: missing or damaged" in verify(vector).summary()
    (vector / name).unlink()
    result = verify(vector)
    assert result.failed
    assert f"{name}: missing or damaged" in result.summary()


def test_metrics_vector_without_a_case_is_incomplete(vector):
    change(vector, "expected.json", ("Z",), {"classes": 2, "ignore": 255})
    with pytest.raises(CheckpointError, match="lacks 'Z_gt'"):
        verify(vector)

"""data.augment of a configuration: checked where it is read, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from small_runs import small_config

from perpixel.build.datasets import augmentation, check_stage_data
from perpixel.config import DataChoice, variant
from perpixel.data.augment.plugged import PluggedByName
from perpixel.data.augment.settings import Augment
from perpixel.errors import InvalidValue


def test_augmentation_without_the_section_has_none() -> None:
    assert augmentation(DataChoice()).augment is None


def test_augmentation_takes_every_key_of_the_section() -> None:
    given = {"affine": 0.5, "shear": 5, "blur_sigma": [0.5, 1], "copy_paste": 0.1, "copy_paste_classes": [3, 4]}
    choice = DataChoice.model_validate({"augment": given})
    expected = Augment(affine=0.5, shear=5, blur_sigma=(0.5, 1), copy_paste=0.1, copy_paste_classes=(3, 4))
    assert augmentation(choice).augment == expected


def test_augmentation_finds_the_transform_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def same(image, mask):\n    return image, mask\n")
    built = augmentation(DataChoice.model_validate({"augment": {"plugged": f"{tmp_path}/mine.py:same"}})).augment
    assert built is not None
    assert isinstance(built.plugged, PluggedByName)
    pair = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    assert built.plugged(*pair)[0] is pair[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augment": {"blur": 2}}, "less than or equal to 1"),
        ({"augment": {"blurr": 1}}, "Extra inputs"),
        ({"augment": {"gamma_range": [2, 1]}}, "the smaller number comes first"),
        ({"augment": {"copy_paste": 0.5}}, "needs copy_paste_classes beside it"),
        ({"augment": {"affine": 0.5}, "rotation": 10}, "set it to mirror"),
    ],
)
def test_data_choice_augment_that_cannot_be_raises(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataChoice.model_validate(values)


def test_check_stage_data_transform_that_is_not_there_raises() -> None:
    given = variant(small_config(Path("nowhere")), data={"augment": {"plugged": "math:nothing"}})
    with pytest.raises(InvalidValue, match="math has no callable 'nothing'"):
        check_stage_data(given)

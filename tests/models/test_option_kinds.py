"""Options of another kind than the configuration's field are refused before anything is built."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.models import MODELS, create_model
from perpixel.models.option_kinds import wrong_kinds


@pytest.mark.parametrize("name", MODELS)
def test_own_values_of_every_network_are_of_the_right_kind(name: str) -> None:
    config = MODELS[name].config
    for values in (config(), config.small()):
        assert list(wrong_kinds(config, asdict(values))) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pspnet", {"align_corners": "maybe"}, "option 'align_corners' of pspnet must be true or false, got 'maybe'"),
        ("pspnet", {"auxiliary": 1}, "'auxiliary' of pspnet must be true or false, got 1"),
        ("pspnet", {"width": 2.5}, "'width' of pspnet must be a whole number, got 2.5"),
        ("pspnet", {"width": True}, "'width' of pspnet must be a whole number, got True"),
        ("pspnet", {"dropout": "0.1"}, "'dropout' of pspnet must be a number, got '0.1'"),
        ("pspnet", {"pooling": 3}, "'pooling' of pspnet must be one of 'adaptive', 'fixed', got 3"),
        ("pspnet", {"bins": 3}, "'bins' of pspnet must be a list of whole numbers, got 3"),
        ("pspnet", {"bins": [1, "2"]}, r"'bins' of pspnet must be a list of whole numbers, got \[1, '2'\]"),
        ("hrnet", {"num_modules": 3}, r"must be a list of whole numbers or nothing \(null\), got 3"),
        ("refinenet_lw", {"mobilenet_stages": [[1, 2.5]]}, "must be a list of lists of whole numbers"),
        ("deeplab_v3", {"norm_momentum": "small"}, r"must be a number or nothing \(null\), got 'small'"),
    ],
)
def test_option_of_another_kind_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_model(name, options, num_classes=2)


def test_whole_numbers_stand_for_numbers_and_lists_for_tuples() -> None:
    options = {"dropout": 0, "width": np.int64(4), "bins": [1, 2], "bin_width": 2, "auxiliary_width": 2}
    with torch.device("meta"):
        network = create_model("pspnet", options, num_classes=2, backbone="resnet18")
    assert network.config.bins == (1, 2)


@pytest.mark.parametrize("classes", [0, -1, 2.0, "3", True, None])
def test_number_of_classes_that_is_no_positive_whole_number_is_refused(classes: Any) -> None:
    with torch.device("meta"), pytest.raises(InvalidValue, match="num_classes must be a whole number >= 1, got "):
        create_model("fcn", {"width": 2}, num_classes=classes, backbone="resnet18")

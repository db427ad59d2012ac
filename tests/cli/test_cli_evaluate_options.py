"""The options of ``perpixel evaluate`` that say how boundaries are compared."""

from __future__ import annotations

from typing import Any

import pytest

from perpixel.build import choose_measures
from perpixel.cli.evaluate_options import MeasureOptions, parse_bf
from perpixel.errors import InvalidValue
from perpixel.evaluation.measures import BoundaryOptions


def test_parse_bf_every_option_is_read() -> None:
    text = "tolerance_px=2, strict,connectivity=8,border_is_contour,void=dropped,matching=one_to_one"
    assert parse_bf(text) == {
        "tolerance_px": 2.0,
        "strict": True,
        "connectivity": 8,
        "border_is_contour": True,
        "void": "dropped",
        "matching": "one_to_one",
    }
    assert parse_bf("tolerance_diagonal=0.01") == {"tolerance_diagonal": 0.01}
    assert parse_bf(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tolerance=2", r"--bf has no option 'tolerance'; did you mean 'tolerance_px'\?.*matching"),
        ("", "--bf has no option ''"),
        ("strict=no", "--bf: strict stands alone, got 'strict=no'"),
        ("connectivity", "--bf: connectivity needs a value after =, got 'connectivity'"),
        ("connectivity=four", "--bf: connectivity is a number, got 'four'"),
    ],
)
def test_parse_bf_other_words_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        parse_bf(text)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"bf": "strict"}, BoundaryOptions(strict=True)),
        ({"dilation_ratio": 0.005}, BoundaryOptions(dilation_ratio=0.005)),
        ({"boundary": True}, BoundaryOptions()),
    ],
)
def test_measure_options_of_boundaries_ask_for_boundaries(options: dict[str, Any], chosen: BoundaryOptions) -> None:
    measures = choose_measures(**MeasureOptions(**options).chosen())
    assert measures.boundary
    assert measures.boundary_options == chosen


def test_measure_options_without_boundaries_measure_none() -> None:
    assert not choose_measures(**MeasureOptions().chosen()).boundary

"""Scores as text."""

from __future__ import annotations

import io
import math

import pytest
from cli_fakes import SCORES
from rich.console import Console

from perpixel.cli.score_table import named_scores, per_cent, print_scores


def printed(scores: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False, markup=False)
    print_scores(console, scores)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    "value, text", [(None, "–"), (math.nan, "–"), (0.0, "0.00"), (1.0, "100.00"), (0.12345, "12.35")]
)
def test_per_cent_undefined_is_a_dash(value: float | None, text: str) -> None:
    assert per_cent(value) == text


def test_print_scores_shows_every_class_and_the_number_averaged() -> None:
    lines = printed(SCORES).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["[road]"] == ["50.00", "80.00", "60.00", "66.00", "1,000"]
    assert rows["sky"] == ["–", "–", "–", "–", "0"]
    assert "mean IoU 50.00 % over 2 of 3 classes" in lines
    assert "mean Dice – %" in lines
    assert "3 images, 1,200 pixels" in lines


def test_print_scores_error_split_is_summed_over_classes() -> None:
    rows = [
        {"name": "a", "border_wrong": 3, "border_pixels": 4, "interior_wrong": 1, "interior_pixels": 50},
        {"name": "b", "border_wrong": 0, "border_pixels": 2, "interior_wrong": 1, "interior_pixels": 50},
    ]
    text = printed({**SCORES, "error_split": {"width_px": 5, "per_class": rows}})
    assert "wrong pixels: 50.00 % within 5 px of a true border, 2.00 % inside regions" in text


def test_print_scores_unpredicted_pixels_are_said() -> None:
    assert "1,234 pixels without a predicted class count as wrong" in printed({**SCORES, "unpredicted": [1000, 234]})


def test_print_scores_test_split_and_baseline_follow() -> None:
    other = {**SCORES, "mean_iou": 0.25}
    text = printed({**SCORES, "split": "val", "test": {**other, "split": "test"}, "baseline": {"name": "fcn", **other}})
    assert text.index("scores on val") < text.index("baseline fcn: mean IoU 25.00 %") < text.index("scores on test")


def test_named_scores_leaves_other_keys_out() -> None:
    assert named_scores({"mean_iou": 0.5, "pixels": 3, "loss": 2.0}) == "mean IoU 50.00 %"

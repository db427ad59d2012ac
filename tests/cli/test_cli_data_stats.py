"""`perpixel data stats` on a terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.cli.data_stats import data_stats
from perpixel.errors import InvalidValue


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for k in range(5):
        mask = np.zeros((64, 64), np.uint8)
        mask[:8, : 8 + k] = 1
        Image.fromarray(np.stack([mask * 90] * 3, axis=2)).save(tmp_path / f"images/{k}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{k}.png")
    return tmp_path


def test_data_stats_prints_counts_weights_and_advice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_stats(str(folder))
    printed = capsys.readouterr().out
    for part in (
        "split all: 5 images",
        "64 x 64 (5)",
        "class 0  20,080   98.047",
        "class 1 100 %",
        "sqrt_median_frequency",
        "for perpixel train: ",
    ):
        assert part in printed


def test_data_stats_json_holds_what_was_counted(folder: Path, tmp_path: Path) -> None:
    data_stats(str(folder / "images"), folder / "masks", json=str(tmp_path / "stats.json"))
    found = json.loads((tmp_path / "stats.json").read_text())
    assert found["classes"][1]["pixels"] == 8 * (8 + 9 + 10 + 11 + 12)
    assert found["co_occurrence"] == [[5, 5], [5, 5]]


def test_data_stats_crop_limit_below_the_unit_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidValue, match="--crop-limit is at least 32 pixels, got 16"):
        data_stats(str(folder), crop_limit=16)

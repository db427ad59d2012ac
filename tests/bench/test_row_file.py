"""Rows that are whole after every one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perpixel.bench import RowFile
from perpixel.errors import RunError

KEY = {"network": "fcn", "seed": 0, "sizes": (1, 2)}


def test_row_file_finds_what_an_earlier_one_put(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rows.json"
    assert RowFile(path).find(KEY) is None
    assert not path.exists()
    RowFile(path).put({"key": KEY, "failed": None, "mean_iou": 0.5, "worst": float("nan")})
    again = RowFile(path)
    assert again.find(KEY) == {"key": {**KEY, "sizes": [1, 2]}, "failed": None, "mean_iou": 0.5, "worst": None}
    assert again.find({**KEY, "seed": 1}) is None


def test_row_file_keeps_rows_of_other_keys_and_replaces_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = RowFile(path)
    for seed, value in ((0, 1), (1, 2), (0, 3)):
        rows.put({"key": {**KEY, "seed": seed}, "failed": None, "value": value})
    stored = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(row["key"]["seed"], row["value"]) for row in stored] == [(1, 2), (0, 3)]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds no rows of a benchmark and is not overwritten"),
        ('{"rows": [{"seed": 1}]}', "holds no rows of a benchmark"),
    ],
)
def test_row_file_refuses_another_file_and_leaves_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        RowFile(path)
    assert path.read_text(encoding="utf-8") == text


def test_row_file_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a folder; name a JSON file"):
        RowFile(tmp_path)


def test_row_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    rows = RowFile(tmp_path / "file" / "rows.json")
    with pytest.raises(RunError, match="cannot be written"):
        rows.put({"key": KEY, "failed": None})

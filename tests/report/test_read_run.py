"""What is read from a run folder, whole, damaged or with several stages."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from perpixel.report.read_run import number, read_run


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), (True, None), (None, None), ("1", None)])
def test_number_only_of_numbers(value: object, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_number_not_finite_is_none(value: float) -> None:
    assert number(value) is None


def test_read_run_line_cut_short_keeps_the_lines_before(own_run: Path) -> None:
    file = own_run / "metrics.jsonl"
    whole = len(read_run(own_run).events)
    file.write_text(file.read_text()[:-10])
    record = read_run(own_run)
    assert len(record.events) == whole - 1
    assert f"line {whole}" in record.missing["metrics.jsonl"]


@pytest.mark.parametrize(
    "name", ["environment.json", "data.json", "metrics.jsonl", "metrics.json", "predictions/images.json"]
)
def test_read_run_damaged_file_is_named(own_run: Path, name: str) -> None:
    text = (own_run / name).read_text()
    (own_run / name).write_text(text[: len(text) // 2 + 1])
    missing = read_run(own_run).missing
    assert list(missing) == [name]
    assert "damaged" in missing[name]


def test_read_run_damaged_configuration_is_shown_as_it_stands(own_run: Path) -> None:
    (own_run / "config.yaml").write_text("name: [1")
    record = read_run(own_run)
    assert record.config_text == "name: [1"
    assert "config.yaml is damaged" in record.missing["config.yaml"]


def test_read_run_file_of_another_kind_is_reported(own_run: Path) -> None:
    (own_run / "metrics.json").write_text("[1]")
    record = read_run(own_run)
    assert record.metrics == {}
    assert record.missing["metrics.json"] == "metrics.json holds a list where a dict belongs."


def test_read_run_labels_that_are_none_are_reported(own_run: Path) -> None:
    (own_run / "data.json").write_text('{"labels": {"names": []}, "splits": {}}')
    record = read_run(own_run)
    assert record.labels is None
    assert "describes no label space" in record.missing["data.json"]


def test_read_run_stages_follow_one_another_on_the_step_axis(tmp_path: Path) -> None:
    events = [
        {"event": "train", "stage": stage, "step": step, "lr": 0.1, "values": {"total": step}}
        for stage in ("first", "second")
        for step in (10, 20)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
    record = read_run(tmp_path)
    assert record.curve("train", "total") == ([10, 20, 30, 40], [10, 20, 10, 20])
    assert record.stage_offsets() == {"first": 0, "second": 20}
    assert record.steps() == 40


def test_read_run_events_of_stage_folders_are_read_in_number_order(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: two\n")
    for name in ("10-last", "2-first"):
        (tmp_path / "stages" / name).mkdir(parents=True)
        event = {"event": "train", "step": 5, "values": {"total": 1}}
        (tmp_path / "stages" / name / "metrics.jsonl").write_text(json.dumps(event))
    record = read_run(tmp_path)
    assert [event["stage"] for event in record.events] == ["2-first", "10-last"]
    assert "metrics.jsonl" not in record.missing
    assert record.curve("train", "total")[0] == [5, 10]


def test_read_run_undefined_values_leave_gaps(tmp_path: Path) -> None:
    lines = [{"event": "train", "step": s, "values": {"total": v}} for s, v in ((1, 2.0), (2, None), (3, 1.0))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_run(tmp_path).curve("train", "total") == ([1, 3], [2.0, 1.0])


def test_read_run_name_is_the_configured_one_or_the_folder(own_run: Path, tmp_path: Path) -> None:
    (own_run / "config.yaml").write_text("name: mine\n")
    assert read_run(own_run).name == "mine"
    (own_run / "config.yaml").write_text("name: run\n")
    assert read_run(own_run).name == "small"


def test_read_run_wall_seconds_need_both_times(own_run: Path) -> None:
    assert read_run(own_run).wall_seconds() == 1300
    (own_run / "environment.json").write_text('{"start": "2026-11-21T09:00:00+00:00", "end": null}')
    assert read_run(own_run).wall_seconds() is None

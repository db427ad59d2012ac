"""Files of results: whole after every row, kept where settings agree, and nothing else overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perpixel.bench.request import Request, line_of
from perpixel.bench.results import Report, limit, measured_row, read_report, row_of
from perpixel.errors import InvalidValue, RunError

ENVIRONMENT = {"commit": "a", "device": "cpu", "threads": 1, "python": "3", "versions": {"torch": "2"}}
TIMES = {"median_s": 0.5, "fastest_s": 0.4, "quartiles_s": [0.4, 0.6], "rounds_s": [0.4, 0.6]}


def report(path: Path | None, **changes: Any) -> Report:
    options: dict[str, Any] = {"environment": ENVIRONMENT, "settings": {"side": 8}, "rounds": 2, **changes}
    return Report(path, "metrics", **options)


def test_report_writes_every_row_and_collects_the_limits(tmp_path: Path) -> None:
    file = tmp_path / "new" / "metrics.json"
    found = report(file)
    found.put(row_of("one", {"ours": TIMES}, reference="ours", limits=[limit("speed", 2.0, 1.5, sense="at least")]))
    content = json.loads(file.read_text(encoding="utf-8"))
    assert list(content) == ["benchmark", "environment", "settings", "rounds", "rows", "limits"]
    assert content["limits"] == [
        {"row": "one", "what": "speed", "value": 2.0, "limit": 1.5, "sense": "at least", "unit": "", "reached": True}
    ]
    assert read_report(file) == content


def test_report_replaces_a_row_of_the_same_name_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    first = report(file)
    for name in ("one", "two"):
        first.put(row_of(name, {}, values={"n": 1}))
    again = report(file, environment={**ENVIRONMENT, "commit": "b", "date": "later"})
    again.put(row_of("one", {}, values={"n": 2}))
    assert [(row["name"], row["values"]["n"]) for row in read_report(file)["rows"]] == [("one", 2), ("two", 1)]
    assert again.left_out == []


@pytest.mark.parametrize(
    "changes",
    [{"rounds": 3}, {"settings": {"side": 16}}, {"environment": {**ENVIRONMENT, "versions": {"torch": "3"}}}],
)
def test_rows_of_other_settings_are_left_out_and_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "metrics.json"
    report(file).put(row_of("old", {}))
    found = report(file, **changes)
    assert (found.rows, found.left_out) == ([], ["old"])


def test_file_of_another_benchmark_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    report(file).put(row_of("old", {}))
    with pytest.raises(RunError, match="holds results of 'metrics', not of 'crf'; name another file"):
        Report(file, "crf", environment=ENVIRONMENT, rounds=1)


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}'])
def test_file_that_is_no_report_is_not_overwritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"metrics\.json: (cannot be read as JSON|is not a file of benchmark results)"):
        report(file)
    assert file.read_text(encoding="utf-8") == text


def test_report_that_the_disk_refuses_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match=r"cannot be written: .*free space or name another file"):
        report(tmp_path / "file" / "metrics.json").put(row_of("one", {}))


def test_row_that_fails_says_why_and_leaves_its_targets_open() -> None:
    def broken() -> Any:
        raise RuntimeError("out of\n memory")

    row = measured_row("one", broken, targets=[limit("speed", None, 2.0, sense="at least")])
    assert row["failed"] == "RuntimeError: out of memory"
    assert row["limits"][0]["reached"] is None
    found = report(None)
    found.put(row)
    assert found.failed == ["one: RuntimeError: out of memory"]
    assert line_of(row) == ["one: FAILED, RuntimeError: out of memory", "  speed: not measured (limit at least 2) open"]


@pytest.mark.parametrize(
    "value, sense, reached", [(1.0, "at least", False), (1.0, "at most", True), (2.0, "at most", True)]
)
def test_limit_says_whether_it_is_reached(value: float, sense: Any, reached: bool) -> None:
    assert limit("x", value, 2.0, sense=sense)["reached"] is reached


def test_request_chooses_rows_in_the_benchmarks_order() -> None:
    assert Request(only=("c", "a")).chosen(["a", "b", "c"]) == ["a", "c"]
    assert Request().chosen(["a", "b"]) == ["a", "b"]
    with pytest.raises(InvalidValue, match="no row 'nise'; did you mean 'noise'"):
        Request(only=("nise",)).chosen(["noise"])


@pytest.mark.parametrize("name", ["rounds", "threads"])
def test_request_refuses_numbers_below_one(name: str) -> None:
    changes: dict[str, Any] = {name: 0}
    with pytest.raises(InvalidValue, match=f"{name} must be at least 1, got 0"):
        Request(**changes)

"""The further measures of metrics.json: what is read of each, and what is left out where it says nothing usable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perpixel.report.boundary import boundary
from perpixel.report.calibration import calibration
from perpixel.report.intervals import Span, intervals, span
from perpixel.report.measure_content import add_command
from perpixel.report.read_run import RunRecord, read_run
from perpixel.report.size_classes import size_classes


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    folder = tmp_path_factory.mktemp("bare")
    (folder / "config.yaml").write_text("name: bare\n")
    return read_run(folder)


def with_metrics(bare: RunRecord, **metrics: Any) -> RunRecord:
    return replace(bare, metrics=metrics)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([0.2, 0.4], Span(low=0.2, high=0.4)),
        ({"low": 0.2, "high": 0.4, "value": 0.3}, Span(low=0.2, high=0.4)),
        ([None, None], None),
        ([0.2], None),
        (0.2, None),
        (None, None),
    ],
)
def test_span_of_two_ends_only(value: object, expected: Span | None) -> None:
    assert span(value) == expected


def test_intervals_by_score_and_class_leave_out_undefined_ones(bare: RunRecord) -> None:
    stated = {"level": 0.9, "samples": 200, "mean_iou": [0.1, 0.3], "mean_dice": [None, None],
              "per_class_iou": [[0.5, 0.6], [None, None]]}  # fmt: skip
    found = intervals(with_metrics(bare, intervals=stated, per_class=[{"name": "road"}, {"name": "sky"}]))
    assert found is not None
    assert (found.level, found.samples) == (0.9, 200)
    assert found.summary == {"mean_iou": Span(low=0.1, high=0.3)}
    assert found.iou == {"road": Span(low=0.5, high=0.6)}


def test_boundary_curve_is_sorted_by_number_not_by_text(bare: RunRecord) -> None:
    stated = {"bf_score": 0.5, "trimap_iou": {"10": 0.6, "3": 0.4, "40": None, "wide": 0.9, "1": 0.2}}
    found = boundary(with_metrics(bare, boundary=stated))
    assert found is not None
    assert found.trimap == ((1, 0.2), (3, 0.4), (10, 0.6))
    assert (found.bf_score, found.boundary_iou) == (0.5, None)


def test_boundary_rows_without_any_score_are_left_out(bare: RunRecord) -> None:
    rows = [{"name": "road", "bf_score": 0.3, "boundary_iou": None}, {"name": "sky", "bf_score": None}]
    found = boundary(with_metrics(bare, boundary={"boundary_iou": 0.1, "per_class": rows}))
    assert found is not None
    assert [row.name for row in found.rows] == ["road"]
    assert found.row("road") == found.rows[0]
    assert found.row("sky") is None


def test_size_classes_say_their_range(bare: RunRecord) -> None:
    bins = [
        {"name": "small", "from_pixels": 1, "to_pixels": 1024, "regions": 2, "pixels": 50, "recall": 0.5},
        {"name": "medium", "from_pixels": 1024, "to_pixels": 9216, "regions": 0, "pixels": 0, "recall": None},
        {"name": "large", "from_pixels": 9216, "to_pixels": None, "regions": 1, "pixels": 9999, "recall": 1.0},
    ]
    per_class = [{"name": "road", "bins": bins}, {"name": "sky", "bins": bins[:1]}]
    found = size_classes(with_metrics(bare, region_sizes={"bins": bins, "per_class": per_class}))
    assert found is not None
    assert [part.span for part in found.bins] == ["under 1,024", "1,024 to 9,215", "9,216 and more"]
    assert [part.recall for part in found.bins] == [0.5, None, 1.0]
    assert list(found.per_class) == ["road"]


def test_calibration_gap_weighs_bins_by_pixels_and_passes_over_empty_ones(bare: RunRecord) -> None:
    bins = [
        {"low": 0.5, "high": 1.0, "confidence": 0.9, "accuracy": 0.8, "pixels": 300},
        {"low": 0.0, "high": 0.5, "confidence": 0.4, "accuracy": 0.6, "pixels": 100},
        {"low": 0.5, "high": 0.6, "confidence": None, "accuracy": None, "pixels": 0},
    ]
    found = calibration(with_metrics(bare, calibration={"ece": 0.125, "bins": bins}))
    assert found is not None
    assert [part.low for part in found.bins] == [0.0, 0.5]
    assert found.gap == pytest.approx((300 * 0.1 - 100 * 0.2) / 400)


def test_measures_that_are_absent_or_damaged_are_none(bare: RunRecord) -> None:
    for record in (bare, with_metrics(bare, boundary=[1], intervals="no", region_sizes={"bins": {}}, calibration={})):
        assert [read(record) for read in (boundary, intervals, size_classes, calibration)] == [None] * 4
    empty = with_metrics(bare, calibration={"ece": 0.1})
    assert (found := calibration(empty)) is not None
    assert found.gap is None


def test_measures_file_adds_what_the_scores_lack(own_run: Path) -> None:
    metrics = json.loads((own_run / "metrics.json").read_text())
    later = {**metrics, "boundary": {"bf_score": 0.123}, "calibration": {"ece": 0.5}, "mean_iou": 0.0}
    del metrics["calibration"]
    (own_run / "metrics.json").write_text(json.dumps(metrics))
    (own_run / "measures.json").write_text(json.dumps(later))
    record = read_run(own_run)
    assert record.metrics["calibration"] == {"ece": 0.5}
    assert record.metrics["boundary"] == metrics["boundary"]
    assert record.metrics["mean_iou"] == metrics["mean_iou"]
    assert record.missing == {}


def test_measures_file_of_other_weights_is_left_out_and_named(own_run: Path) -> None:
    metrics = json.loads((own_run / "metrics.json").read_text())
    later = {**metrics, "pixel_accuracy": metrics["pixel_accuracy"] - 0.01}
    del metrics["calibration"]
    (own_run / "metrics.json").write_text(json.dumps(metrics))
    (own_run / "measures.json").write_text(json.dumps(later))
    record = read_run(own_run)
    assert "calibration" not in record.metrics
    assert "its pixel accuracy is" in record.missing["measures.json"]
    assert "other images or other weights" in record.missing["measures.json"]


@pytest.mark.parametrize(
    ("config", "metrics", "expected"),
    [
        ({"data": {"source": "scenes"}}, {"split": "val"}, "--data '/runs/my run/scenes' --split val --boundary"),
        ({"data": {"source": "camvid:/d"}}, {"split": "test"}, "--data camvid:/d --split test --boundary"),
        ({"data": {"images": "/i", "masks": "/m"}}, {}, "--data DATA --split val --boundary"),
    ],
)
def test_add_command_names_the_data_the_run_was_scored_on(
    bare: RunRecord, config: dict[str, Any], metrics: dict[str, Any], expected: str
) -> None:
    command = add_command(replace(bare, path=Path("/runs/my run"), config=config, metrics=metrics))
    assert command.startswith("perpixel evaluate '/runs/my run' --data ")
    assert expected in command
    assert command.endswith("--intervals --json '/runs/my run/measures.json'")

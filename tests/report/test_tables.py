"""The numbers behind tables and bars, on values small enough to check by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perpixel.labels import LabelSpace
from perpixel.report.error_split import error_split
from perpixel.report.headline import duration, facts, tiles
from perpixel.report.read_run import RunRecord, read_run
from perpixel.report.tables import class_rows, confusion, data_splits, peers, time_shares, warnings


def record(**parts: Any) -> RunRecord:
    empty: dict[str, Any] = {"config": {}, "config_text": "", "environment": {}, "data": {}, "labels": None,
                             "metrics": {}, "events": (), "images": ()}  # fmt: skip
    return RunRecord(path=Path("run"), **{**empty, **parts})


def with_confusion(counts: Any, **more: Any) -> RunRecord:
    per_class = [{"name": f"c{i}", "iou": 0.5} for i in range(len(counts))]
    return record(metrics={"confusion": counts, "per_class": per_class, **more})


def test_confusion_rows_are_shares_of_the_true_class() -> None:
    found = confusion(with_confusion([[77, 23, 0], [0, 10, 0], [0, 0, 0]]))
    assert found is not None
    np.testing.assert_allclose(found.shares[:2], [[0.77, 0.23, 0], [0, 1, 0]])
    assert np.isnan(found.shares[2]).all()
    assert found.pairs == (("c0", "c1", 0.23, 23),)


def test_confusion_unpredicted_pixels_count_in_the_row() -> None:
    found = confusion(with_confusion([[5, 0], [0, 1]], unpredicted=[5, 0]))
    assert found is not None
    assert found.shares[0, 0] == 0.5


@pytest.mark.parametrize("counts", [None, [[1, 2]], [[1], [2, 3]], "text"])
def test_confusion_that_is_no_square_matrix_is_none(counts: Any) -> None:
    assert confusion(record(metrics={"confusion": counts, "per_class": [{"name": "a"}]})) is None


@given(counts=arrays(np.int64, (5, 5), elements=st.integers(0, 1000)))
@settings(max_examples=30, deadline=None)
def test_confusion_pairs_are_off_diagonal_and_sorted(counts: Any) -> None:
    found = confusion(with_confusion(counts.tolist()))
    assert found is not None
    shares = [share for _, _, share, _ in found.pairs]
    assert shares == sorted(shares, reverse=True)
    assert all(true != predicted and share >= 0.01 for true, predicted, share, _ in found.pairs)
    sums = np.nansum(found.shares, axis=1)
    np.testing.assert_allclose(sums, (counts.sum(axis=1) > 0).astype(float))


def test_class_rows_match_peers_by_name() -> None:
    run = record(
        metrics={
            "per_class": [{"name": "a", "iou": 0.4}, {"name": "b", "iou": None}],
            "baseline": {"name": "fcn", "per_class": [{"name": "b", "iou": 0.1}, {"name": "a", "iou": 0.3}]},
        }
    )
    other = record(metrics={"per_class": [{"name": "a", "iou": 0.9}]}, config={"name": "second"})
    beside = peers(run, other)
    assert [peer.name for peer in beside] == ["fcn", "second"]
    assert [(row.iou, row.peers) for row in class_rows(run, beside)] == [(0.4, (0.3, 0.9)), (None, (0.1, None))]


def test_peers_show_a_baseline_kept_inside_the_run_once() -> None:
    run = record(metrics={"baseline": {"name": "fcn", "mean_iou": 0.25}})
    inside = replace(record(metrics={"mean_iou": 0.25}, config={"name": "the fcn"}), path=run.path / "baseline-fcn")
    assert [peer.name for peer in peers(run, inside)] == ["the fcn"]
    assert [peer.name for peer in peers(run, None)] == ["fcn"]


def test_tiles_show_the_lead_over_peers() -> None:
    run = record(metrics={"mean_iou": 0.5, "pixel_accuracy": None, "baseline": {"name": "fcn", "mean_iou": 0.25}})
    found = tiles(run, peers(run, None))
    assert [(tile.label, tile.value, tile.peers) for tile in found] == [("Mean IoU", 0.5, (("fcn", 0.25, 0.25),))]


def test_error_split_sums_classes_and_keeps_undefined_apart() -> None:
    rows = [
        {"name": "a", "border_wrong": 30, "interior_wrong": 10, "border_pixels": 60, "interior_pixels": 100},
        {"name": "b", "border_wrong": 0, "interior_wrong": 0, "border_pixels": 0, "interior_pixels": 40},
    ]
    split = error_split(record(metrics={"error_split": {"width_px": 3, "per_class": rows}}))
    assert split is not None
    assert (split.total.border_share, split.total.near_rate, split.total.wrong_share) == (0.75, 0.5, 0.2)
    assert split.rows[0].inside_rate == 0.1
    assert (split.rows[1].border_share, split.rows[1].near_rate, split.rows[1].inside_rate) == (None, None, 0.0)


def test_error_split_absent_is_none() -> None:
    assert error_split(record()) is None


@pytest.mark.parametrize("sizes", [{"90x120": 12, "96x128": 30}, [[90, 120, 12], [96, 128, 30]]])
def test_data_splits_shares_sizes_and_weights(sizes: Any) -> None:
    split = {
        "images": 42,
        "pixels_per_class": [30, 10],
        "images_per_class": [3, 2],
        "ignored_pixels": 10,
        "sizes": sizes,
    }
    run = record(
        data={"splits": {"train": split}},
        labels=LabelSpace.numbered(2),
        config={"stages": [{"class_weights": [1.0, 2.5]}]},
    )
    found = data_splits(run)
    assert found["columns"][0]["sizes"] == "96 × 128 (30), 90 × 120 (12)"
    assert found["columns"][0]["ignored_share"] == 0.2
    assert [(row["splits"], row["weight"]) for row in found["rows"]] == [([(0.75, 3)], 1.0), ([(0.25, 2)], 2.5)]
    assert found["rule"] == "given per class"


def test_time_shares_add_up_and_the_rest_is_named() -> None:
    seconds = {"data": 10, "step": 60, "evaluation": 10}
    events = tuple({"event": "train", "stage": "main", "step": s, "seconds": seconds} for s in (1, 2))
    times = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-01T00:03:20+00:00"}
    found = time_shares(record(events=events, environment=times))
    assert found is not None
    assert [(key, value) for key, _, value, _ in found["parts"]] == [
        ("data", 20), ("step", 120), ("evaluation", 20), ("other", 40)
    ]  # fmt: skip
    assert sum(share for *_, share in found["parts"]) == pytest.approx(1)


def test_time_shares_without_events_is_none() -> None:
    assert time_shares(record()) is None


def test_warnings_repeated_are_counted() -> None:
    events = (
        {"event": "warning", "step": 4, "message": "loss is not finite"},
        {"event": "warning", "step": 9, "message": "loss is not finite"},
        {"event": "warning", "limit": 3},
    )
    assert warnings(record(events=events)) == ["loss is not finite (step 4), 2 times", "limit: 3"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.4, "59.4 s"), (252, "4 min 12 s"), (3900, "1 h 5 min"), (59.99, "1 min 0 s")],
)
def test_duration_says_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_facts_take_the_model_from_the_configuration_when_scores_are_absent(own_run: Path) -> None:
    (own_run / "metrics.json").unlink()
    found = dict(facts(read_run(own_run)))
    assert found["Model"] == "dfn"
    assert found["Steps"] == "1,200"
    assert found["Device"] == "cpu (x86_64), 2 threads"


def test_class_rows_of_written_scores_match_the_file(finished_run: Path) -> None:
    stated = json.loads((finished_run / "metrics.json").read_text())["per_class"]
    rows = class_rows(read_run(finished_run), [])
    assert [(row.swatch.name, row.iou, row.pixels) for row in rows] == [
        (c["name"], c["iou"], c["pixels"]) for c in stated
    ]
    assert rows[0].swatch.color == "#808080"

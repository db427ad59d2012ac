"""Figures of the further measures: page colours, names and units, and nothing without data."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from perpixel.metrics.image_changes import ImageChange
from perpixel.report.boundary import Boundary, boundary
from perpixel.report.calibration import Calibration, calibration
from perpixel.report.measure_figures import boundary_figure, change_figure, confidence_figure, reliability_figure
from perpixel.report.read_run import read_run

NO_CURVE = Boundary(bf_score=0.5, boundary_iou=None, trimap=(), rows=())
NO_BINS = Calibration(ece=0.1, bins=(), per_class=())


def text_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    return [element.text or "" for element in root.iter("text")]


def changes(count: int) -> list[ImageChange]:
    return [ImageChange(name=str(i), first=0.5, second=0.5 + (2 * i / count - 1) / 4) for i in range(count)]


def test_measure_figures_take_colours_from_the_page_and_name_both_runs(finished_run: Path) -> None:
    run = read_run(finished_run)
    scores, found = boundary(run), calibration(run)
    assert scores is not None
    assert found is not None
    drawn = {
        "mean IoU within it, %": boundary_figure([("ours", scores), ("theirs", scores)], whole=("all", 0.7)),
        "of these pixels right, %": reliability_figure([("ours", found), ("theirs", found)]),
        "share of the pixels, %": confidence_figure(found),
        "change of mean IoU, points": change_figure(changes(7)),
    }
    for label, figure in drawn.items():
        assert figure is not None
        assert re.findall(r"#[0-9a-f]{6}\b", figure) == []
        assert label in text_of(str(figure))
    for label in ("mean IoU within it, %", "of these pixels right, %"):
        assert {"ours", "theirs"} <= set(text_of(str(drawn[label])))


def test_measure_figures_without_data_are_none() -> None:
    assert boundary_figure([("ours", NO_CURVE)]) is None
    assert boundary_figure([]) is None
    assert reliability_figure([("ours", NO_BINS)]) is None
    assert confidence_figure(NO_BINS) is None
    assert change_figure([]) is None


def test_change_figure_of_many_images_shows_as_many_bars_as_fit() -> None:
    bars = str(change_figure(changes(1000))).count("<path")
    assert 200 <= bars < 220  # and a few lines of the axes

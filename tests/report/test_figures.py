"""Figures: page colours instead of fixed ones, real text, any number of classes, no lasting change of settings."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from perpixel.report.figures import confusion_figure, learning_rate_figure, loss_figure, score_figure
from perpixel.report.read_run import read_run


def text_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    return [element.text or "" for element in root.iter("text")]


def test_figures_take_every_colour_from_the_page(finished_run: Path, other_run: Path) -> None:
    run, other = read_run(finished_run), read_run(other_run)
    for figure in (
        loss_figure(run, other),
        learning_rate_figure(run, other),
        score_figure(run, other, baseline=("fcn", 0.5)),
        confusion_figure(np.eye(3), ["a", "b", "c"]),
    ):
        assert figure is not None
        assert re.findall(r"#[0-9a-f]{6}\b", figure) == []
        assert "var(--ink)" in figure


def test_loss_figure_names_every_term_and_ticks_are_plain_numbers(finished_run: Path) -> None:
    words = text_of(str(loss_figure(read_run(finished_run))))
    assert {"main", "deep", "border", "total", "step", "0.1"} <= set(words)
    assert not any("$" in word for word in words)


def test_score_figure_says_the_best_step(finished_run: Path) -> None:
    run = read_run(finished_run)
    steps, values = run.curve("evaluation", "mean_iou")
    best = int(np.argmax(values))
    words = text_of(str(score_figure(run)))
    assert f"mean IoU (best {100 * values[best]:.1f} % at step {steps[best]:,.0f})" in words


def test_figures_without_events_are_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    run = read_run(tmp_path)
    assert (loss_figure(run), learning_rate_figure(run), score_figure(run)) == (None, None, None)


def test_figures_of_a_single_event_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"event": "train", "step": 1, "lr": 0, "values": {"total": 0.0}}\n')
    run = read_run(tmp_path)
    assert "loss" in text_of(str(loss_figure(run)))
    assert learning_rate_figure(run) is not None


@pytest.mark.parametrize(("count", "names"), [(1, 2), (20, 40), (30, 60), (60, 120), (150, 0)])
def test_confusion_figure_any_number_of_classes(count: int, names: int) -> None:
    labels = [f"class number {i}" for i in range(count)]
    words = text_of(str(confusion_figure(np.full((count, count), np.nan), labels)))
    assert sum(word.startswith("class number") for word in words) == names


def test_confusion_figure_shows_percent_of_each_row() -> None:
    words = text_of(str(confusion_figure(np.array([[0.77, 0.23], [np.nan, np.nan]]), ["sign\x00", "building"])))
    assert {"77", "23", "building", "sign\N{REPLACEMENT CHARACTER}"} <= set(words)
    assert "0" not in words


def test_figures_leave_matplotlib_settings_alone(finished_run: Path) -> None:
    before = dict(mpl.rcParams)
    loss_figure(read_run(finished_run))
    assert dict(mpl.rcParams) == before


def test_long_curves_stay_small(tmp_path: Path) -> None:
    lines = [f'{{"event": "train", "step": {s}, "values": {{"total": {1 + s % 7}}}}}' for s in range(1, 20001)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert len(str(loss_figure(read_run(tmp_path)))) < 100_000

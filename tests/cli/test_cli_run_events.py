"""Events in words, and the end of a run."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import SCORES, FakeResult
from rich.console import Console

from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.run_events import (
    describe_event,
    finish_run,
    print_interruption,
    result_json,
    show_event,
    unless_unread,
)


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=160, highlight=False, markup=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    "event, text",
    [
        (
            {"event": "decision", "what": "labels", "choice": "2 classes", "reason": "masks hold only 0 and 255"},
            "labels: 2 classes (masks hold only 0 and 255)",
        ),
        ({"event": "decision", "what": "crop", "choice": [256, 320], "reason": "fits"}, "crop: 256, 320 (fits)"),
        ({"event": "decision", "what": "w", "choice": {"car": 2}, "reason": "rare"}, "w: car 2 (rare)"),
        (
            {"event": "decision", "what": "start", "choice": "best", "reason": "3 copied\n2 new"},
            "start: best\n    3 copied\n    2 new",
        ),
        (
            {
                "event": "evaluation",
                "stage": "main",
                "step": 30,
                "split": "val",
                "values": {"mean_iou": 0.25, "pixel_accuracy": None, "mean_dice": 0.4, "images": 4},
                "seconds": 1.25,
            },
            "step 30: mean IoU 25.00 %, pixel accuracy – % on val in 1.2 s",
        ),
        (
            {"event": "best", "stage": "fcn16s", "step": 30, "score": 0.25, "monitor": "mean_iou"},
            "fcn16s, step 30: best so far, mean IoU 25.00 %",
        ),
        ({"event": "warning", "stage": "main", "message": "disk is slow"}, "warning: disk is slow"),
        ({"event": "warning", "what": "disk"}, "warning: what disk"),
        ({"event": "train", "step": 1, "values": {}}, None),
        ({"event": "checkpoint", "step": 1}, None),
    ],
)
def test_describe_event_in_words(event: dict[str, Any], text: str | None) -> None:
    assert describe_event(event) == text


def test_show_event_prints_only_what_users_need() -> None:
    console = plain_console()
    with ProgressDisplay(console) as display:
        show_event(display, {"event": "train"})
        show_event(display, {"event": "warning", "message": "[x]"})
    assert text_of(console) == "warning: [x]\n"


def test_finish_run_says_where_things_are_and_what_to_try(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    (folder / "best").mkdir(parents=True)
    (folder / "report.html").touch()
    console = plain_console()
    assert finish_run(console, FakeResult(folder=folder, scores=SCORES)) == 0
    text = text_of(console)
    assert "mean IoU 50.00 % over 2 of 3 classes" in text
    assert f"7 steps in 1:05; everything is in {folder}" in text
    assert f"report: {folder / 'report.html'}" in text
    assert f"best model: {folder / 'best'}" in text
    assert f"perpixel predict '{folder / 'best'}' IMAGE_OR_FOLDER --out predictions" in text


def test_finish_run_interrupted_says_how_to_go_on_and_exits_130(tmp_path: Path) -> None:
    for name in ("checkpoints/step-5", "checkpoints/step-10", "best"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "config.yaml").touch()
    console = plain_console()
    assert finish_run(console, FakeResult(folder=tmp_path, interrupted=True)) == 130
    text = text_of(console)
    assert f"interrupted at step 7; the training state is in {tmp_path / 'checkpoints' / 'step-10'}" in text
    assert f"best model so far: {tmp_path / 'best'}" in text
    assert f"perpixel train --resume {tmp_path}" in text


def test_interruption_of_several_stages_finds_the_newest_state(tmp_path: Path) -> None:
    for name in ("stages/1-a/checkpoints/step-50", "stages/2-b/checkpoints/step-9"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "config.yaml").touch()
    console = plain_console()
    print_interruption(console, tmp_path)
    assert str(tmp_path / "stages/2-b/checkpoints/step-9") in text_of(console)


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_interruption_before_the_run_began_offers_no_resume(folder: Path | None) -> None:
    console = plain_console()
    print_interruption(console, folder)
    assert text_of(console) == "interrupted; nothing was saved yet\n"


def test_interruption_without_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    console = plain_console()
    print_interruption(console, tmp_path)
    assert "there is no training state yet" in text_of(console)


def test_result_json_is_plain() -> None:
    assert result_json(FakeResult(folder=Path("r"), scores={"mean_iou": float("nan")})) == {
        "run": "r",
        "interrupted": False,
        "signal": None,
        "steps": 7,
        "seconds": 65.0,
        "scores": {"mean_iou": None},
    }


def test_unless_unread_a_terminal_that_is_gone_ends_nothing() -> None:
    shown: list[int] = []

    def show(value: int) -> None:
        if value == 2:
            raise OSError(errno.EIO, "the terminal was closed")
        shown.append(value)

    guarded = unless_unread(show)
    for value in (1, 2, 3):
        guarded(value)
    assert shown == [1]
    with pytest.raises(ZeroDivisionError):
        unless_unread(lambda value: value / 0)(1)

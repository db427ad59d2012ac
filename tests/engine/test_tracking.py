"""TensorBoard curves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perpixel.engine.run_folder import RunFolder
from perpixel.engine.tracking import TensorBoardTracker
from perpixel.errors import MissingExtra


def test_tracker_without_tensorboard_raises_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'perpixel\[track\]'"):
        TensorBoardTracker(tmp_path)


def test_tracker_writes_the_numbers_of_train_and_evaluation_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="extra 'track' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder(tmp_path)
    tracker = TensorBoardTracker(tmp_path / "tensorboard")
    run.listeners.append(tracker)
    run.decision("seed", 0, "default")
    run.event("train", stage="a", step=2, lr=0.5, values={"total": 1.5, "bad": float("nan")})
    run.event("evaluation", stage="a", step=2, values={"mean_iou": 0.25})
    tracker.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"a/train/lr", "a/train/total", "a/evaluation/mean_iou"}
    assert [(item.step, item.value) for item in found.Scalars("a/train/total")] == [(2, 1.5)]

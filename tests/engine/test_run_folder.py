"""The run folder: who may write, and what is written."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perpixel.engine.run_folder import RunFolder
from perpixel.errors import RunError


def lines(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_run_folder_new_or_empty_is_made(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "a" / "b").path.is_dir()
    assert RunFolder(tmp_path / "a" / "b").checkpoints == tmp_path / "a" / "b" / "checkpoints"


def test_run_folder_with_a_run_is_refused_without_resume_or_overwrite(tmp_path: Path) -> None:
    RunFolder(tmp_path).event("end")
    with pytest.raises(
        RunError, match=r"is not empty; --resume goes on with it, --overwrite replaces it, or name another"
    ):
        RunFolder(tmp_path)


def test_run_folder_foreign_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"is not empty; choose another"):
        RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"does not look like a run folder \(it holds thesis\.tex\)"):
        RunFolder(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_run_folder_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    RunFolder(tmp_path).event("end")
    (tmp_path / "best").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_run_folder_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing to resume in .*: it holds none of metrics\.jsonl"):
        RunFolder(tmp_path / "absent", resume=True)
    with pytest.raises(RunError, match="choose one of resume and overwrite"):
        RunFolder(tmp_path, resume=True, overwrite=True)
    RunFolder(tmp_path).event("end")
    assert lines(RunFolder(tmp_path, resume=True)) == [{"event": "end"}]


def test_run_folder_on_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(RunError, match="is a file; a run needs a folder"):
        RunFolder(tmp_path / "x")


def test_event_is_one_line_of_json_and_reaches_the_listeners(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    run = RunFolder(tmp_path, on_event=seen.append)
    run.event(
        "evaluation",
        step=3,
        values={"mean_iou": float("nan"), "x": np.float32(0.5), "t": torch.tensor(2), "inf": float("inf")},
        per_class_iou=np.array([0.5, np.nan]),
        path=Path("a/ü"),
    )
    expected = {
        "event": "evaluation",
        "step": 3,
        "values": {"mean_iou": None, "x": 0.5, "t": 2, "inf": None},
        "per_class_iou": [0.5, None],
        "path": "a/ü",
    }
    assert lines(run) == [expected]
    assert seen == [expected]


def test_decision_holds_choice_and_reason(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.decision("precision", "bf16", "the CPU has avx512_bf16")
    assert lines(run) == [
        {"event": "decision", "what": "precision", "choice": "bf16", "reason": "the CPU has avx512_bf16"}
    ]


def test_rewind_drops_later_steps_of_the_stage_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.decision("seed", 0, "default")
    for stage, step in (("a", 10), ("b", 2), ("b", 4)):
        run.event("train", stage=stage, step=step)
    run.event("evaluation", stage="b", step=4)
    run.event("end", stage="b", step=2)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    run.rewind(2, "b")
    assert [(event["event"], event.get("stage"), event.get("step")) for event in lines(run)] == [
        ("decision", None, None),
        ("train", "a", 10),
        ("train", "b", 2),
    ]


def test_events_with_a_broken_line_raises(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.events() == []
    (tmp_path / "metrics.jsonl").write_text('{"event": \n{"event": "end"}\n')
    with pytest.raises(RunError, match="a line is not JSON"):
        run.events()


def test_write_json_disk_full_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.write_json("metrics.json", {"mean_iou": 0.5})

    def disk_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(RunError, match=r"cannot write metrics\.json in .*No space left.*stays"):
            run.write_json("metrics.json", {"mean_iou": 0.6})
        with pytest.raises(RunError, match=r"cannot write best in .*No space left"), run.replace("best") as folder:
            (folder / "model").write_text("x")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mean_iou": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_event_disk_full_raises_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)

    def disk_full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", disk_full)
    with pytest.raises(RunError, match=r"cannot write metrics\.jsonl in .*No space left"):
        run.event("train")


def test_replace_swaps_the_folder_only_at_the_end(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.replace("best") as folder:
        (folder / "model").write_text("one")
    with pytest.raises(ValueError, match="stop"), run.replace("best") as folder:
        (folder / "model").write_text("two")
        raise ValueError("stop")
    assert (tmp_path / "best" / "model").read_text() == "one"
    with run.replace("best") as folder:
        (folder / "model").write_text("three")
    assert (tmp_path / "best" / "model").read_text() == "three"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_environment_holds_versions_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["perpixel", "train", "a b"])
    run = RunFolder(tmp_path)
    run.environment("cpu")
    run.finish()
    values = json.loads((tmp_path / "environment.json").read_text())
    assert values["torch"] == torch.__version__
    assert values["numpy"] == np.__version__
    assert values["command"] == "perpixel train 'a b'"
    assert values["threads"] == torch.get_num_threads()
    assert values["device"] == "cpu"
    assert values["start"] <= values["end"]
    assert values["commit"] is None or len(values["commit"]) == 40


def test_run_folder_of_another_process_reads_and_writes_nothing(tmp_path: Path) -> None:
    main = RunFolder(tmp_path)
    main.event("train", step=3, stage="main")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    heard: list[dict[str, object]] = []
    other = RunFolder(tmp_path, on_event=heard.append, writes=False)
    other.event("train", step=4)
    other.decision("a", 1, "b")
    other.rewind(0, "main")
    other.environment("cpu")
    other.finish()
    assert heard == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert [event["step"] for event in other.events()] == [3]

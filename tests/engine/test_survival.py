"""A stage under every fault that a disk, a signal or a kill can bring: it stops with a reason and goes on exactly."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import TinyNetwork, batches, make_task

from perpixel.engine.fit import FitSettings, FitTask, Progress, fit
from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.run_folder import RunFolder
from perpixel.errors import CheckpointError, RunError

SETTINGS = FitSettings(
    steps=12, log_every=4, evaluate_every=6, checkpoint_every=3, keep_checkpoints=2, ema_decay=0.9, patience=9
)


class Killed(BaseException):
    """Stands for a program that dies."""


def dying(step: int) -> Callable[[int], Iterator[Any]]:
    def make(start: int) -> Iterator[Any]:
        for index, batch in enumerate(batches(SETTINGS.steps)(start), start):
            if index == step:
                raise Killed
            yield batch

    return make


def curve(folder: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says of training and scores, times apart."""
    kinds = ("train", "evaluation", "best", "end")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if line["event"] in kinds]


def warnings(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["message"] for line in lines if line["event"] == "warning"]


def weights(task: FitTask) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def resumed(folder: Path, **changes: Any) -> FitTask:
    task = make_task(SETTINGS, seed=99, **changes)
    fit(task, SETTINGS, RunFolder(folder, resume=True), resume=True)
    return task


def assert_unbroken(folder: Path, task: FitTask, whole: tuple[Path, FitTask]) -> None:
    assert curve(folder) == curve(whole[0])
    for name, value in weights(whole[1]).items():
        assert torch.equal(task.network.state_dict()[name], value), name
    for name in ("best", "last"):
        one, other = (torch.load(place / name / "weights.pt") for place in (folder, whole[0]))
        assert one["facts"] == other["facts"]
        assert all(torch.equal(one["weights"][key], other["weights"][key]) for key in one["weights"])
    assert not list(folder.rglob(".*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitTask]:
    """An unbroken run."""
    folder, task = tmp_path_factory.mktemp("whole") / "run", make_task(SETTINGS)
    fit(task, SETTINGS, RunFolder(folder))
    return folder, task


@pytest.mark.parametrize("step", range(3, 12))
def test_killed_before_any_step_the_curve_is_that_of_an_unbroken_run(
    tmp_path: Path, whole: tuple[Path, FitTask], step: int
) -> None:
    with pytest.raises(Killed):
        fit(make_task(SETTINGS, make_batches=dying(step)), SETTINGS, RunFolder(tmp_path))
    assert_unbroken(tmp_path, resumed(tmp_path), whole)


@pytest.mark.parametrize("step", [2, 3, 5, 6, 11, 12])
def test_sigterm_after_any_step_the_curve_is_that_of_an_unbroken_run(
    tmp_path: Path, whole: tuple[Path, FitTask], step: int
) -> None:
    def end(progress: Progress) -> None:
        if progress.step == step:
            signal.raise_signal(signal.SIGTERM)

    result = fit(make_task(SETTINGS), SETTINGS, RunFolder(tmp_path), progress=end)
    assert (result.interrupted, result.steps) == ("SIGTERM", step)
    assert (tmp_path / "checkpoints" / f"step-{step}").is_dir()
    assert_unbroken(tmp_path, resumed(tmp_path), whole)


def damage(newest: Path, kind: str) -> None:
    state, manifest = newest / "state.pt", newest / "manifest.json"
    content = state.read_bytes()
    if kind == "truncated":
        state.write_bytes(content[: len(content) // 2])
    elif kind == "zeroed":
        state.write_bytes(bytes(len(content)))
    elif kind == "no manifest":
        manifest.unlink()
    elif kind == "wrong hash":
        values = json.loads(manifest.read_text())
        values["files"]["state.pt"]["sha256"] = "0" * 64
        manifest.write_text(json.dumps(values))
    elif kind == "manifest of nothing":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "files": {}}))
    else:
        state.unlink()
        manifest.unlink()
        if kind == "a file in its place":
            newest.rmdir()
            newest.write_text("")


_DAMAGE = ("truncated", "zeroed", "no manifest", "wrong hash", "manifest of nothing", "empty", "a file in its place")


@pytest.mark.parametrize("kind", _DAMAGE)
def test_newest_checkpoint_damaged_the_one_before_is_taken_and_said(
    tmp_path: Path, whole: tuple[Path, FitTask], kind: str
) -> None:
    with pytest.raises(Killed):
        fit(make_task(SETTINGS, make_batches=dying(10)), SETTINGS, RunFolder(tmp_path))
    damage(tmp_path / "checkpoints" / "step-9", kind)
    task = resumed(tmp_path)
    assert [f"step-9 is passed over: {what}" in warnings(tmp_path)[0] for what in ("",)] == [True]
    assert_unbroken(tmp_path, task, whole)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-12", "step-9"]
    assert (tmp_path / "checkpoints" / "step-9").is_dir()


def test_every_checkpoint_damaged_is_an_error_that_names_each(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(make_task(SETTINGS, make_batches=dying(10)), SETTINGS, RunFolder(tmp_path))
    damage(tmp_path / "checkpoints" / "step-9", "empty")
    damage(tmp_path / "checkpoints" / "step-6", "zeroed")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(step-9: .*; step-6: .*\); delete"):
        resumed(tmp_path)


def test_a_later_stray_file_among_the_checkpoints_ends_nothing(tmp_path: Path, whole: tuple[Path, FitTask]) -> None:
    with pytest.raises(Killed):
        fit(make_task(SETTINGS, make_batches=dying(10)), SETTINGS, RunFolder(tmp_path))
    (tmp_path / "checkpoints" / "step-11").write_text("not a folder")
    assert_unbroken(tmp_path, resumed(tmp_path), whole)


@pytest.mark.parametrize("cut", [1, 10, 10_000])
def test_metrics_cut_as_by_a_kill_the_lines_stay_readable(
    tmp_path: Path, whole: tuple[Path, FitTask], cut: int
) -> None:
    with pytest.raises(Killed):
        fit(make_task(SETTINGS, make_batches=dying(10)), SETTINGS, RunFolder(tmp_path))
    file = tmp_path / "metrics.jsonl"
    extra = json.dumps({"event": "train", "stage": "main", "step": 10, "values": {"total": 1.0}})
    file.write_text(file.read_text() + extra[: -min(cut, len(extra) - 1)])
    RunFolder(tmp_path, resume=True).decision("device", "cpu", "another one")  # a line that comes before the rewinding
    assert_unbroken(tmp_path, resumed(tmp_path), whole)


FAILING = {
    "a line of metrics": ("metrics.jsonl", 4),
    "a training state": ("state.pt", 2),
    "a manifest": ("manifest.json", 3),
    "the best weights": ("weights.pt", 1),
    "the last weights": ("weights.pt", 3),
}


@pytest.mark.parametrize("what", FAILING)
def test_disk_full_while_writing_is_an_error_and_the_run_goes_on_exactly(
    tmp_path: Path, whole: tuple[Path, FitTask], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name, times = FAILING[what]
    left = [times]
    real, torch_save = Path.open, torch.save

    def full(path: Any) -> None:
        if Path(str(path)).name == name:
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def opening(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode[0] in "wa":
            full(path)
        return real(path, mode, *arguments, **options)

    def saving(value: Any, file: Any) -> None:
        full(file)
        torch_save(value, file)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opening)
        patch.setattr(Path, "write_text", lambda path, text, **_: _write(path, text))
        patch.setattr(torch, "save", saving)
        with pytest.raises(RunError, match=r"No space left.*[Ff]ree some space"):
            fit(make_task(SETTINGS), SETTINGS, RunFolder(tmp_path))
    assert left[0] <= 0
    assert_unbroken(tmp_path, resumed(tmp_path), whole)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)


def test_run_folder_that_cannot_be_cleared_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        fit(make_task(SETTINGS, make_batches=dying(10)), SETTINGS, RunFolder(tmp_path))
    run = RunFolder(tmp_path, resume=True)
    (tmp_path / "checkpoints" / "step-9").rename(tmp_path / "checkpoints" / ".replaced-step-9")

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CheckpointError, match=r"cannot clear .*checkpoints of what a killed run left: .*Read-only"):
        fit(make_task(SETTINGS), SETTINGS, run, resume=True)


def test_resume_takes_the_optimizers_kernels_of_now(tmp_path: Path) -> None:
    """A run goes on where another kernel is chosen: on another device, by another version."""

    def task(*, fused: bool) -> FitTask:
        torch.manual_seed(3)
        network = TinyNetwork()
        groups = parameter_groups(network, base_lr=0.1, weight_decay=1e-3)
        return replace(
            make_task(SETTINGS), network=network, optimizer=create_optimizer("sgd", groups, lr=0.1, fused=fused)
        )

    with pytest.raises(Killed):
        fit(replace(task(fused=False), make_batches=dying(10)), SETTINGS, RunFolder(tmp_path))
    other = task(fused=True)
    result = fit(other, SETTINGS, RunFolder(tmp_path, resume=True), resume=True)
    assert result.steps == 12
    assert [group["fused"] for group in other.optimizer.param_groups] == [True] * len(other.optimizer.param_groups)

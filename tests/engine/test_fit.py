"""The training loop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import TinyNetwork, batches, criterion, evaluate, make_batch, make_task
from torch import Tensor, nn

from perpixel.engine.fit import FitSettings, FitTask, Progress, fit
from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.run_folder import RunFolder
from perpixel.engine.schedules import ScheduleOptions, create_schedule
from perpixel.engine.step import train_step
from perpixel.errors import CheckpointError, InvalidValue, RunError
from perpixel.ops.normalize import normalize
from perpixel.types import Preprocessing, SegOutput

BASE = FitSettings(steps=6, log_every=2, evaluate_every=3, checkpoint_every=3)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def weights(task: FitTask) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


class Killed(Exception):
    """Stands for a program that dies."""


# --- what a whole run leaves ---------------------------------------------------------------------------------------


def test_fit_leaves_events_checkpoints_and_artifacts(tmp_path: Path) -> None:
    task = make_task(BASE)
    result = fit(task, BASE, RunFolder(tmp_path))
    assert result.steps == 6
    assert not result.stopped_early
    assert result.interrupted is None
    train = events(tmp_path, "train")
    assert [event["step"] for event in train] == [2, 3, 4, 6]
    assert all(set(event["values"]) == {"main", "total"} for event in train)
    assert all(event["stage"] == "main" and set(event["seconds"]) == {"data", "step", "evaluation"} for event in train)
    assert train[0]["lr"] == pytest.approx(0.1 * (1 - 1 / 6) ** 0.9)
    found = events(tmp_path, "evaluation")
    assert [event["step"] for event in found] == [3, 6]
    assert found[0]["per_class_iou"] == [0.5, None, 1.0]
    assert found[0]["split"] == "val"
    assert result.scores == found[1]["values"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-3", "step-6"]
    last = torch.load(tmp_path / "last" / "weights.pt")
    assert_same(last["weights"], weights(task))
    assert last["facts"]["steps"] == 6
    best = torch.load(tmp_path / "best" / "weights.pt")
    assert best["facts"]["steps"] == result.best_step
    assert best["facts"]["scores"]["mean_iou"] == result.best_score
    assert events(tmp_path, "end")[0]["best_step"] == result.best_step


def test_fit_every_group_runs_at_the_schedules_factor(tmp_path: Path) -> None:
    settings = replace(BASE, steps=4)
    task = make_task(settings)
    seen: list[list[float]] = []
    step = task.optimizer.step

    def recording(*args: Any) -> Any:
        seen.append([group["lr"] for group in task.optimizer.param_groups])
        return step(*args)

    task.optimizer.step = recording
    fit(task, settings, RunFolder(tmp_path))
    initial = [group["initial_lr"] for group in task.optimizer.param_groups]
    assert sorted(set(initial)) == [0.1, 0.2]
    assert seen == [[lr * (1 - it / 4) ** 0.9 for lr in initial] for it in range(4)]


def test_fit_progress_is_called_after_every_step(tmp_path: Path) -> None:
    seen: list[Progress] = []
    fit(make_task(BASE), BASE, RunFolder(tmp_path), progress=seen.append)
    assert [(item.step, item.steps) for item in seen] == [(step, 6) for step in range(1, 7)]
    assert seen[0].values == {}
    assert seen[2].values["total"] > 0
    assert all(item.steps_per_second > 0 for item in seen)


def test_fit_overfits_two_images(tmp_path: Path) -> None:
    settings = FitSettings(steps=120, log_every=40)
    batch = make_batch(5, size=16)

    def repeat(start: int) -> Iterator[Any]:
        return (batch._replace(jitter=torch.ones(2, 3)) for _ in range(start, settings.steps))

    task = make_task(settings, optimizer="adamw", network=TinyNetwork(width=16, dropout=0), make_batches=repeat)
    fit(task, settings, RunFolder(tmp_path))
    values = [event["values"]["total"] for event in events(tmp_path, "train")]
    assert values[-1] < values[0] / 2
    task.network.eval()
    found = task.network(normalize(batch.images, Preprocessing())).logits.argmax(1)
    assert (found == batch.target).float().mean() > 0.95


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fit_frozen_parameters_do_not_move(tmp_path: Path, optimizer: str) -> None:
    torch.manual_seed(0)
    network = TinyNetwork()
    groups = parameter_groups(network, base_lr=0.1, weight_decay=0.1, frozen=["backbone"])
    task = replace(make_task(BASE), network=network, optimizer=create_optimizer(optimizer, groups, lr=0.1))
    before = weights(task)
    settings = replace(BASE, freeze_batch_norm=True, ema_decay=0.9)
    fit(task, settings, RunFolder(tmp_path))
    after = weights(task)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}


def test_fit_ema_weights_are_evaluated_and_delivered(tmp_path: Path) -> None:
    settings = replace(BASE, ema_decay=0.9)
    evaluated: list[dict[str, Tensor]] = []

    def watch(network: nn.Module) -> dict[str, Any]:
        evaluated.append({name: value.clone() for name, value in network.state_dict().items()})
        return evaluate(network)

    task = make_task(settings, evaluate=watch)
    fit(task, settings, RunFolder(tmp_path))
    assert_same(torch.load(tmp_path / "last" / "weights.pt")["weights"], evaluated[-1])
    assert not torch.equal(evaluated[-1]["head.weight"], task.network.head.weight)
    assert task.network.training


def test_fit_does_not_depend_on_how_often_it_evaluates(tmp_path: Path) -> None:
    found = []
    for every in (1, 3):
        settings = replace(BASE, evaluate_every=every)

        def drawing(network: nn.Module) -> dict[str, Any]:
            torch.rand(7)
            return evaluate(network)

        task = make_task(settings, evaluate=drawing)
        fit(task, settings, RunFolder(tmp_path / str(every)))
        found.append(weights(task))
    assert_same(*found)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": True}, {"clip_norm": 0.1}])
def test_fit_options_train(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(BASE, **changes)
    task, plain = make_task(settings), make_task(BASE)
    fit(task, settings, RunFolder(tmp_path / "a"))
    fit(plain, BASE, RunFolder(tmp_path / "b"))
    assert all(torch.isfinite(value).all() for value in weights(task).values())
    difference = (task.network.head.weight - plain.network.head.weight).abs().max()
    assert difference < 0.2
    if "clip_norm" in changes:
        assert difference > 0


def test_train_step_accumulated_halves_equal_the_whole_batch() -> None:
    whole = make_batch(0, batch_size=4)
    halves = [type(whole)(*(field[part] for field in whole)) for part in (slice(0, 2), slice(2, 4))]
    found = []
    for parts in ([whole], halves):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 3, 1))

        class Wrapped(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, images: Tensor) -> SegOutput:
                return SegOutput(logits=self.inner(images))

        optimizer = create_optimizer("sgd", [{"params": list(network.parameters())}], lr=0.1)
        stats = train_step(Wrapped(network), criterion, parts, optimizer, preprocessing=Preprocessing())
        found.append((network[0].weight.detach().clone(), stats.values["total"], stats.values["main"]))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_fit_without_evaluation_delivers_the_last_weights_as_best(tmp_path: Path) -> None:
    result = fit(make_task(BASE, evaluate=None), BASE, RunFolder(tmp_path))
    assert (result.best_score, result.best_step, result.scores) == (None, 6, {})
    assert_same(*(torch.load(tmp_path / name / "weights.pt")["weights"] for name in ("best", "last")))
    assert events(tmp_path, "decision")[0]["what"] == "best weights"


def test_fit_patience_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.4, float("nan"), 0.9])
    settings = FitSettings(steps=10, evaluate_every=1, patience=2)
    task = make_task(settings, evaluate=lambda network: {"mean_iou": next(scores)})
    result = fit(task, settings, RunFolder(tmp_path))
    assert (result.steps, result.best_score, result.best_step, result.stopped_early) == (4, 0.5, 2, True)
    assert torch.load(tmp_path / "best" / "weights.pt")["facts"]["steps"] == 2
    assert "2 evaluations without a better mean_iou than at step 2" in events(tmp_path, "decision")[0]["reason"]
    again = fit(make_task(settings), settings, RunFolder(tmp_path, resume=True), resume=True)
    assert (again.steps, again.stopped_early) == (4, True)


def test_fit_plateau_is_fed_by_evaluations(tmp_path: Path) -> None:
    settings = FitSettings(steps=4, evaluate_every=1)
    schedule = create_schedule("plateau", ScheduleOptions(steps=4, gamma=0.5, patience=0))
    fit(
        make_task(settings, schedule=schedule, evaluate=lambda network: {"mean_iou": 0.5}),
        settings,
        RunFolder(tmp_path),
    )
    assert schedule.factor(0) == 0.5**3


# --- errors --------------------------------------------------------------------------------------------------------


def test_fit_batches_that_run_out_raise(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"stage 'main': the batches ended in step 4 of 6; 6 are needed"):
        fit(make_task(BASE, make_batches=batches(3)), BASE, RunFolder(tmp_path))
    with pytest.raises(RunError, match="the batches ended in step 1 of 6"):
        fit(make_task(BASE, make_batches=batches(0)), BASE, RunFolder(tmp_path / "b"))


def test_fit_monitor_that_is_missing_raises_with_nearest(tmp_path: Path) -> None:
    settings = replace(BASE, monitor="mean_io")
    with pytest.raises(RunError, match=r"gave no score 'mean_io', .*it gave mean_iou, .*did you mean 'mean_iou'"):
        fit(make_task(settings), settings, RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"evaluate_every": -1}, "evaluate_every must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
        ({"precision": "auto"}, "precision is one of fp32, bf16, fp16, got 'auto'"),
    ],
)
def test_settings_out_of_range_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        FitSettings(**{"steps": 5, **changes})


class Trap(nn.Module):
    """Makes inf of the one image value that no other image has."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where((x > 2.9).all(), x * torch.inf, x)


@pytest.mark.parametrize(("bad_step", "log_every", "stop"), [(3, 4, 4), (4, 10, 4), (5, 10, 5)])
def test_fit_not_finite_stops_with_batch_names_and_module(
    tmp_path: Path, bad_step: int, log_every: int, stop: int
) -> None:
    settings = FitSettings(steps=5, log_every=log_every, checkpoint_every=2)
    network = TinyNetwork()
    network.backbone.insert(0, Trap())

    def make(start: int) -> Iterator[Any]:
        for index in range(start, 5):
            batch = make_batch(index)
            if index == bad_step - 1:
                batch = batch._replace(images=torch.full_like(batch.images, 255), jitter=torch.full((2, 3), 1.0))
            yield batch

    preprocessing = Preprocessing(mean=(0.0,) * 3, std=(0.33,) * 3)
    task = make_task(settings, network=network, make_batches=make, preprocessing=preprocessing, evaluate=None)
    names = f"image-{bad_step - 1}-0, image-{bad_step - 1}-1"
    with pytest.raises(RunError, match=rf"not finite in 1 of the last \d steps \({bad_step}\)") as caught:
        fit(task, settings, RunFolder(tmp_path))
    assert f"step {bad_step}: {names}" in str(caught.value)
    assert "the first module whose output is not finite is 'backbone.0' (Trap)" in str(caught.value)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())
    event = events(tmp_path, "non_finite")[0]
    assert event["steps"] == [bad_step]
    assert event["batches"][str(bad_step)] == names.split(", ")
    kept = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert kept
    assert f"step-{stop}" not in kept


# --- resume --------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, tuple[FitSettings, str]] = {
    "momentum": (BASE, "sgd"),
    "adamw": (BASE, "adamw"),
    "ema": (replace(BASE, ema_decay=0.9), "sgd"),
    "accumulate": (replace(BASE, accumulate=2), "sgd"),
    "bf16": (replace(BASE, precision="bf16", clip_norm=1.0), "rmsprop"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("killed_in", ["evaluation", "batches"])
def test_resume_equals_an_unbroken_run_bit_for_bit(tmp_path: Path, variant: str, killed_in: str) -> None:
    settings, optimizer = VARIANTS[variant]
    straight = make_task(settings, optimizer=optimizer)
    expected = fit(straight, settings, RunFolder(tmp_path / "straight"))

    def die(network: nn.Module) -> dict[str, Any]:
        if len(events(tmp_path / "broken", "evaluation")) == 1:
            raise Killed
        return evaluate(network)

    def dying(start: int) -> Iterator[Any]:
        for index, batch in enumerate(batches(12)(start)):
            if start + index == 5 * settings.accumulate - 1:
                raise Killed
            yield batch

    change: dict[str, Any] = {"evaluate": die} if killed_in == "evaluation" else {"make_batches": dying}
    with pytest.raises(Killed):
        fit(make_task(settings, optimizer=optimizer, **change), settings, RunFolder(tmp_path / "broken"))
    resumed = make_task(settings, optimizer=optimizer, seed=99)
    found = fit(resumed, settings, RunFolder(tmp_path / "broken", resume=True), resume=True)
    assert_same(weights(straight), weights(resumed))
    assert found == expected
    for name in ("best", "last"):
        one, two = (torch.load(tmp_path / run / name / "weights.pt") for run in ("straight", "broken"))
        assert_same(one["weights"], two["weights"])
    for kind in ("evaluation", "best", "checkpoint", "end"):
        one, two = (events(tmp_path / run, kind) for run in ("straight", "broken"))
        assert [{**event, "seconds": 0} for event in one] == [{**event, "seconds": 0} for event in two]
    assert [event["step"] for event in events(tmp_path / "broken", "train")] == [2, 3, 4, 6]


def test_resume_without_a_checkpoint_starts_at_step_zero(tmp_path: Path) -> None:
    straight = make_task(BASE)
    fit(straight, BASE, RunFolder(tmp_path / "straight"))
    with pytest.raises(RunError, match="ended in step 3"):
        fit(make_task(BASE, make_batches=batches(2)), BASE, RunFolder(tmp_path / "broken"))
    again = make_task(BASE)
    fit(again, BASE, RunFolder(tmp_path / "broken", resume=True), resume=True)
    assert_same(weights(straight), weights(again))
    assert [event["step"] for event in events(tmp_path / "broken", "train")] == [2, 3, 4, 6]


def test_resume_of_a_damaged_checkpoint_falls_back_and_still_ends_equal(tmp_path: Path) -> None:
    straight = make_task(BASE)
    fit(straight, BASE, RunFolder(tmp_path))
    (tmp_path / "checkpoints" / "step-6" / "state.pt").write_bytes(b"cut")
    again = make_task(BASE, seed=99)
    fit(again, BASE, RunFolder(tmp_path, resume=True), resume=True)
    assert_same(weights(straight), weights(again))
    assert "step-6 is passed over" in events(tmp_path, "warning")[0]["message"]


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    task = make_task(BASE)
    first = fit(task, BASE, RunFolder(tmp_path))
    again = make_task(BASE, seed=99)
    assert fit(again, BASE, RunFolder(tmp_path, resume=True), resume=True) == first
    assert_same(weights(task), weights(again))
    assert len(events(tmp_path, "end")) == 1


def test_resume_with_another_setting_warns(tmp_path: Path) -> None:
    fit(make_task(BASE), BASE, RunFolder(tmp_path))
    settings = replace(BASE, steps=8)
    fit(make_task(settings), settings, RunFolder(tmp_path, resume=True), resume=True)
    assert [event["message"] for event in events(tmp_path, "warning")] == ["steps was 6 before the resume and is 8 now"]


def test_resume_with_another_network_raises(tmp_path: Path) -> None:
    fit(make_task(BASE), BASE, RunFolder(tmp_path))
    with pytest.raises(CheckpointError, match=r"step-6 does not fit this run: .*size mismatch"):
        fit(make_task(BASE, network=TinyNetwork(width=4)), BASE, RunFolder(tmp_path, resume=True), resume=True)


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["step", "evaluation"])
def test_signal_writes_a_checkpoint_and_the_resumed_run_ends_equal(
    tmp_path: Path, number: signal.Signals, place: str
) -> None:
    settings = replace(BASE, ema_decay=0.5, checkpoint_every=0)
    straight = make_task(settings)
    expected = fit(straight, settings, RunFolder(tmp_path / "straight"))
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def send(progress: Progress) -> None:
        if progress.step == 3 and place == "step":
            os.kill(os.getpid(), number)

    def interrupted(network: nn.Module) -> dict[str, Any]:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal did not stop the evaluation")

    task = make_task(settings, evaluate=interrupted) if place == "evaluation" else make_task(settings)
    result = fit(task, settings, RunFolder(tmp_path / "broken"), progress=send)
    assert (result.steps, result.interrupted) == (3, number.name)
    assert events(tmp_path / "broken", "evaluation") == []
    assert events(tmp_path / "broken", "interrupted")[0]["signal"] == number.name
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    resumed = make_task(settings, seed=99)
    assert fit(resumed, settings, RunFolder(tmp_path / "broken", resume=True), resume=True) == expected
    assert_same(weights(straight), weights(resumed))
    assert [event["step"] for event in events(tmp_path / "broken", "evaluation")] == [3, 6]


def test_second_ctrl_c_stops_at_once_and_the_last_checkpoint_stays(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us without it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def twice(progress: Progress) -> None:
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(make_task(BASE), BASE, RunFolder(tmp_path), progress=twice)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-3"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

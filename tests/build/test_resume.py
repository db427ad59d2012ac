"""A run that is broken off goes on as if it had not been: one stage, several stages, whatever broke it off."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Interrupt, decisions, events, same_weights, small_config, stem, weights, without_times

from perpixel.build import Progress, RunResult, train
from perpixel.config import EvaluationChoice, RunConfig, load_config
from perpixel.engine.run_lock import run_lock
from perpixel.errors import CheckpointError, RunError
from perpixel.weights import load_artifact

pytestmark = pytest.mark.usefixtures("no_report")


def steps_logged(run: Path) -> list[tuple[str, str, int]]:
    kinds = ("train", "evaluation", "checkpoint", "best", "end")
    return [(line["event"], line["stage"], line["step"]) for line in events(run) if line["event"] in kinds]


def resumed(run: Path, **arguments: Any) -> RunResult:
    """Goes on as the command line does: with the configuration that lies in the folder."""
    return train(load_config(run / "config.yaml"), resume=run, **arguments)


# One stage


@pytest.mark.parametrize("step", [1, 2, 4])
def test_resume_after_a_crash_gives_the_weights_of_an_unbroken_run(
    trained: RunResult, data: Path, tmp_path: Path, step: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data), out=run, on_progress=Interrupt(step))
    assert not (run / "metrics.json").exists()
    result = resumed(run)
    assert same_weights(weights(run), weights(trained.folder))
    assert same_weights(weights(run, "best"), weights(trained.folder, "best"))
    assert without_times(result.scores) == without_times(trained.scores)
    logged = steps_logged(run)
    assert len(set(logged)) == len(logged)
    assert [line["step"] for line in events(run, "evaluation")] == [2, 4]


def test_resume_after_sigterm_goes_on_at_the_step_that_was_saved(
    trained: RunResult, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def terminate(progress: Progress) -> None:
        if progress.phase == "train" and progress.done == 3:
            signal.raise_signal(signal.SIGTERM)

    stopped = train(small_config(data, checkpoint_every=100), out=run, on_progress=terminate)
    assert (stopped.interrupted, stopped.steps, dict(stopped.scores)) == (True, 3, {})
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-3"]
    assert not (run / "metrics.json").exists()
    seen: list[int] = []
    result = resumed(run, on_progress=lambda p: seen.append(p.done) if p.phase == "train" else None)
    assert seen == [4]
    assert decisions(run)["resume"].startswith("step 3:")
    assert same_weights(weights(run), weights(trained.folder))
    assert without_times(result.scores) == without_times(trained.scores)


def test_resume_before_the_first_checkpoint_starts_at_step_0(trained: RunResult, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data, checkpoint_every=4), out=run, on_progress=Interrupt(1))
    resumed(run)
    assert decisions(run)["resume"].startswith("step 0:")
    assert same_weights(weights(run), weights(trained.folder))


def test_resume_in_the_final_evaluation_scores_without_training(trained: RunResult, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data), out=run, on_progress=Interrupt(2, "final evaluation"))
    assert not (run / "metrics.json").exists()
    seen: list[str] = []
    result = resumed(run, on_progress=lambda p: seen.append(p.phase))
    assert set(seen) == {"final evaluation"}
    assert without_times(result.scores) == without_times(trained.scores)
    assert json.loads((run / "metrics.json").read_text()) == result.scores


def test_resume_after_a_model_that_could_not_be_written(
    trained: RunResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("perpixel.weights.artifact.save_file", full)
        with pytest.raises(
            RunError, match=r"could not be written \(.*No space left.*The training states in .*run stay"
        ):
            train(small_config(data), out=run)
    resumed(run)
    assert same_weights(weights(run), weights(trained.folder))


def test_run_in_use_by_another_process_is_refused(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with run_lock(run, make=False):
                os.write(tell, b"x")
                signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"x"
        with pytest.raises(RunError, match=rf"run folder .* is in use by process {child}"):
            train(small_config(data), out=run)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data), out=run, on_progress=Interrupt(1), on_event=lambda e: seen.append(e.get("message")))
    assert any(f"process {child} on" in message and "is taken over" in message for message in seen if message)
    assert not (run / ".lock").exists()


def test_resume_says_every_decision_once(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data), out=run, on_progress=Interrupt(3))
    resumed(run)
    said = [event["what"] for event in events(run, "decision")]
    assert sorted(set(said)) == sorted(said)


def test_resume_of_a_folder_without_a_run_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing to resume in .*; start it without resume"):
        train(small_config(data), resume=tmp_path)


def test_resume_with_another_network_is_refused_and_the_checkpoint_stays(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data), out=run, on_progress=Interrupt(3))
    other = small_config(data, model={"options": {"width": 12}})
    with pytest.raises(RunError, match=r"cannot go on with another configuration:\n  stages.0.model.options"):
        train(other, resume=run)
    (run / "config.yaml").unlink()  # with nothing to compare, the checkpoint itself tells
    with pytest.raises(CheckpointError, match=r"step-2 does not fit this run: .*resume with the configuration"):
        train(other, resume=run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-1", "step-2"]


def test_resume_keeps_the_split_that_was_stored(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data / "train"), out=run, on_progress=Interrupt(3))
    split = json.loads((run / "split.json").read_text())
    assert len(split["val"]) == 1
    moved = {"train": split["train"][1:], "val": [*split["val"], split["train"][0]]}
    (run / "split.json").write_text(json.dumps(moved))
    (run / "data.json").unlink()  # its fingerprint is that of the split from before
    result = resumed(run)
    assert result.scores["images"] == 2
    assert json.loads((run / "split.json").read_text()) == moved


# Several stages


def two_stages(data: Path) -> RunConfig:
    one = small_config(data, steps=3).stages[0]
    coarse = one.model_copy(update={"name": "coarse"})
    fine = one.model_copy(
        update={
            "name": "fine",
            "model": None,
            "start": "previous",
            "data": {"crop_size": [40, 48], "batch_size": 1},
            "frozen": ("backbone",),
        }
    )
    return small_config(data).model_copy(update={"stages": (coarse, fine), "evaluation": EvaluationChoice(every=1)})


@pytest.fixture(scope="module")
def staged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of two stages."""
    return train(checked(two_stages(data)), out=tmp_path_factory.mktemp("staged") / "run")


def checked(config: RunConfig) -> RunConfig:
    return RunConfig.model_validate(config.model_dump(mode="json"))


def test_train_two_stages_leave_a_folder_each_and_the_last_delivers(staged: RunResult) -> None:
    run = staged.folder
    assert sorted(path.name for path in (run / "stages").iterdir()) == ["1-coarse", "2-fine"]
    for stage in ("1-coarse", "2-fine"):
        assert {"best", "last", "checkpoints", "metrics.jsonl"} <= {p.name for p in (run / "stages" / stage).iterdir()}
    fine = run / "stages" / "2-fine"
    for name in ("best", "last"):
        assert same_weights(weights(run, name), weights(fine, name))
    assert load_artifact(run / "best").provenance["stage"] == "fine"
    assert json.loads((run / "metrics.json").read_text())["mean_iou"] == staged.scores["mean_iou"]
    assert len(list((run / "predictions").glob("*.png"))) == 3


def test_train_stages_that_have_ended_last_one_goes_on_with_more_steps(data: Path, tmp_path: Path) -> None:
    config = checked(two_stages(data))
    run = train(config, out=tmp_path / "run").folder
    coarse, fine = config.stages
    longer = coarse.model_copy(update={"steps": 5}), fine
    with pytest.raises(RunError, match=r"stages\.0\.steps: 3 -> 5 \(stage 'fine' after it has begun\)"):
        train(config.model_copy(update={"stages": longer}), resume=run)
    with pytest.raises(RunError, match="every stage of this run has ended"):
        train(config, resume=run)
    longer = coarse, fine.model_copy(update={"steps": 5})
    result = train(config.model_copy(update={"stages": longer}), resume=run)
    assert result.steps == 5
    assert max(step for _, stage, step in steps_logged(run) if stage == "fine") == 5
    assert same_weights(weights(run, "last"), weights(run / "stages" / "2-fine", "last"))


def test_train_second_stage_starts_from_the_best_of_the_first(staged: RunResult) -> None:
    first = weights(staged.folder / "stages" / "1-coarse", "best")
    last = weights(staged.folder)
    frozen = [key for key in first if key.startswith("backbone.") and first[key].ndim == 4]
    assert frozen
    assert same_weights({key: first[key] for key in frozen}, {key: last[key] for key in frozen})
    assert "100.0% of the parameters" in " ".join(
        event["reason"] for event in events(staged.folder / "stages" / "2-fine", "decision") if event["what"] == "start"
    )


def test_train_two_stages_events_stand_in_the_run_too(staged: RunResult) -> None:
    ends = [line for line in events(staged.folder) if line["event"] == "end"]
    assert [line["stage"] for line in ends] == ["coarse", "fine"]
    assert [(line["stage"], line["step"]) for line in events(staged.folder, "evaluation")] == [
        *(("coarse", step) for step in (1, 2, 3)),
        *(("fine", step) for step in (1, 2, 3)),
    ]


def test_train_second_stage_starts_from_the_best_and_not_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = iter(range(100, 0, -1))
    monkeypatch.setattr(
        "perpixel.build.run_job.RunJob.evaluate", lambda *_: {"mean_iou": next(falling) / 100, "split": "val"}
    )
    run = train(checked(two_stages(data)), out=tmp_path / "run").folder
    coarse, last = run / "stages" / "1-coarse", weights(run)
    key = stem(last)
    assert not torch.equal(weights(coarse, "best")[key], weights(coarse)[key])
    assert torch.equal(last[key], weights(coarse, "best")[key])


@pytest.mark.parametrize("phase", ["train coarse", "train fine"])
def test_resume_in_a_stage_gives_the_weights_of_an_unbroken_run(
    staged: RunResult, data: Path, tmp_path: Path, phase: str
) -> None:
    run = tmp_path / "run"
    config = checked(two_stages(data)).model_copy(update={"checkpoint_every": 2})
    with pytest.raises(KeyboardInterrupt):
        # The evaluation after step 3 has not been, that of step 2 has; the checkpoint is that of step 2.
        train(config, out=run, on_progress=Interrupt(3, phase))
    trained_phases: list[str] = []
    result = resumed(run, on_progress=lambda p: trained_phases.append(p.phase) if p.phase.startswith("train") else None)
    assert same_weights(weights(run), weights(staged.folder))
    assert without_times(result.scores) == without_times(staged.scores)
    assert trained_phases == ["train coarse"] * (phase == "train coarse") + ["train fine"] * (
        3 if phase == "train coarse" else 1
    )


def test_resume_of_two_stages_writes_no_event_twice(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = checked(two_stages(data)).model_copy(update={"checkpoint_every": 2})
    seen: list[str] = []

    def stop_after_evaluation(event: dict[str, Any]) -> None:
        seen.append(event["event"])
        if (event["event"], event.get("stage"), event.get("step")) == ("evaluation", "fine", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, out=run, on_event=stop_after_evaluation)
    resumed(run)
    for folder in (run / "stages" / "2-fine", run):
        logged = steps_logged(folder)
        assert sorted(set(logged)) == sorted(logged), folder


def test_resume_of_two_stages_in_the_final_evaluation_scores_without_training(
    staged: RunResult, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(checked(two_stages(data)), out=run, on_progress=Interrupt(1, "final evaluation"))
    result = resumed(run)
    assert without_times(result.scores) == without_times(staged.scores)


def test_resume_of_finished_stages_is_refused(staged: RunResult) -> None:
    with pytest.raises(RunError, match="every stage of this run has ended, so there is nothing to resume"):
        resumed(staged.folder)

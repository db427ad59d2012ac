"""What a resumed run may change, what it cannot, and that both are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import Interrupt, blocks, events, small_config, write_blocks, write_pair

from perpixel.build import train
from perpixel.build.resume_check import check_config, config_changes, environment_changes, stored_environment
from perpixel.config import RunConfig, dump_config, load_config
from perpixel.errors import DataError, RunError

pytestmark = pytest.mark.usefixtures("no_report")

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"data": {"batch_size": 1}}, "data.batch_size: 2 -> 1 (the run's batches would be others)"),
    ({"data": {"crop_size": [32, 40]}}, "data.crop_size: [32, 32] -> [32, 40] (the run's batches"),
    ({"data": {"flip": 0.0}}, "data.flip: 0.5 -> 0.0 (the run's batches"),
    ({"data": {"limit": 3}}, "data.limit: null -> 3 (the run's batches"),
    ({"seed": 9}, "seed: 3 -> 9 (the run's batches"),
    ({"accumulate": 2}, "stages.0.accumulate: 1 -> 2 (the run's batches"),
    ({"labels": 3}, "labels: null -> 3 (the network's classes"),
    ({"model": {"options": {"width": 12}}}, "stages.0.model.options.width: 8 -> 12 (the saved weights"),
    ({"optimizer": {"name": "adamw"}}, 'stages.0.optimizer.name: "sgd" -> "adamw" (the saved state of the optimiser'),
    ({"optimizer": {"lr": 0.5}}, "stages.0.optimizer.lr: 0.01 -> 0.5 (the saved state of the optimiser"),
    ({"frozen": ["backbone"]}, 'stages.0.frozen: [] -> ["backbone"] (the saved state of the optimiser'),
    ({"schedule": {"power": 2.0}}, "stages.0.schedule.power: 0.9 -> 2.0 (the learning rate would jump)"),
    ({"ema_decay": 0.5}, "stages.0.ema_decay: null -> 0.5 (the running mean"),
    ({"monitor": "pixel_accuracy"}, 'stages.0.monitor: "mean_iou" -> "pixel_accuracy" (the best score'),
    ({"clip_norm": 1.0}, "stages.0.clip_norm: null -> 1.0 (the run would be another)"),
]
ALLOWED: list[tuple[dict[str, Any], str]] = [
    ({"steps": 6}, "stages.0.steps: 4 -> 6 (the learning rate goes on as in a run of 6 steps)"),
    ({"evaluation": {"every": 3}}, "evaluation.every: 2 -> 3 (early stops"),
    ({"evaluation": {"border_width_px": 3}}, "evaluation.border_width_px: "),
    ({"data": {"workers": 1}}, "data.workers: 0 -> 1 (the batches stay the same)"),
    ({"checkpoint_every": 3}, "checkpoint_every: 1 -> 3 (from now on)"),
    ({"keep_checkpoints": 5}, "keep_checkpoints: 2 -> 5 (from now on)"),
    ({"patience": 3}, "stages.0.patience: null -> 3 (a stage that has stopped early stays so)"),
    ({"threads": 7}, "-> 7 (weights may differ from an unbroken run's in the last bits)"),
    ({"precision": "bf16"}, 'precision: "fp32" -> "bf16" (weights may differ'),
    ({"name": "other"}, 'name: "small" -> "other" (a name, no more)'),
]


@pytest.mark.parametrize(("change", "said"), [*REFUSED, *ALLOWED])
def test_config_changes_names_key_values_and_consequence(change: dict[str, Any], said: str) -> None:
    stored = small_config("d")
    (found,) = config_changes(stored, small_config("d", **change))
    assert said in str(found)
    assert found.allowed == ((change, said) in ALLOWED)


def test_config_changes_of_the_same_configuration_are_none() -> None:
    assert config_changes(small_config("d"), small_config("d")) == ()


def test_config_changes_of_other_stages_are_one_change() -> None:
    one = small_config("d")
    fine = one.stages[0].model_copy(update={"name": "fine", "start": "previous"})
    two = one.model_copy(update={"stages": (one.stages[0], fine)})
    (found,) = config_changes(one, two)
    assert str(found) == "stages: 1 -> 2 (the stages of a run stay those that it began with)"
    assert not found.allowed


def test_check_config_refuses_all_that_cannot_change_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(small_config("d")))
    other = small_config("d", seed=9, steps=6, data={"batch_size": 1})
    with pytest.raises(RunError) as caught:
        check_config(tmp_path, other)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path} cannot go on with another configuration:"
    assert [line.split(":")[0] for line in lines[1:3]] == ["  data.batch_size", "  seed"]
    assert lines[3].startswith("Leave these as they were, or begin a new run with this one's weights: --from")


def test_check_config_fewer_steps_than_done_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(small_config("d", steps=8)))
    (tmp_path / "checkpoints" / "step-5").mkdir(parents=True)
    assert len(check_config(tmp_path, small_config("d", steps=5))) == 1
    with pytest.raises(RunError, match=r"stages\.0\.steps: 8 -> 4 \(it has done 5 already\)"):
        check_config(tmp_path, small_config("d", steps=4))


@pytest.mark.parametrize("content", ["", "stages: [", "name: 3"])
def test_check_config_stored_one_damaged_says_that_nothing_was_compared(tmp_path: Path, content: str) -> None:
    assert check_config(tmp_path, small_config("d")) == ()
    (tmp_path / "config.yaml").write_text(content)
    (said,) = check_config(tmp_path, small_config("d", seed=9))
    assert said.startswith("what the run began with cannot be read, so nothing was compared: ")


@pytest.mark.parametrize("content", ["", "[]", "{", None])
def test_stored_environment_damaged_is_empty(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    assert stored_environment(tmp_path) == {}


def test_environment_changes_name_versions_and_processes() -> None:
    was = {"torch": "2.13.0", "perpixel": "0.1.0", "processes": 2, "start": "a", "timm": None}
    now = {"torch": "2.14.1", "perpixel": "0.1.0", "processes": 1, "start": "b", "timm": "1.0"}
    ends = "(weights may differ from an unbroken run's in the last bits)"
    assert environment_changes(was, now) == (
        f"changed since the run began: torch 2.13.0 -> 2.14.1 {ends}",
        f"changed since the run began: processes 2 -> 1 {ends}",
    )


# In a run


def broken_off(config: RunConfig, run: Path, step: int = 3) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, out=run, on_progress=Interrupt(step))


def warnings(run: Path) -> list[str]:
    return [event["message"] for event in events(run, "warning")]


def test_resume_with_allowed_changes_says_each_and_goes_on(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken_off(small_config(data), run)
    environment = stored_environment(run)
    (run / "environment.json").write_text(json.dumps({**environment, "torch": "2.0.0", "perpixel": "0.0.1"}))
    result = train(small_config(data, steps=6, keep_checkpoints=3), resume=run)
    assert result.steps == 6
    said = "\n".join(warnings(run))
    for part in ("stages.0.steps: 4 -> 6", "keep_checkpoints: 2 -> 3", "torch 2.0.0 -> 2", "perpixel 0.0.1 -> "):
        assert f"changed since the run began: {part}" in said
    assert load_config(run / "config.yaml").stages[0].steps == 6


def test_resume_with_a_change_that_cannot_be_leaves_the_run_as_it_is(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken_off(small_config(data), run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"data\.batch_size: 2 -> 1"):
        train(small_config(data, data={"batch_size": 1}), resume=run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_resume_with_other_data_is_refused_and_with_moved_data_is_not(tmp_path: Path) -> None:
    data, run = write_blocks(tmp_path / "data"), tmp_path / "run"
    broken_off(small_config(data), run)
    moved = data.rename(tmp_path / "elsewhere")
    run = run.rename(tmp_path / "moved-run")
    with pytest.raises(DataError, match=r"no such|there is no|not there|cannot"):
        train(small_config(data), resume=run)
    write_pair(moved / "train", "t9", *blocks(9))
    stored = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**stored, "files": {}}))  # without names all that is there is taken
    with pytest.raises(RunError, match=r"the data has changed since the run began: train 5 -> 6 images, val 3 -> 3 im"):
        train(small_config(moved), resume=run)
    for kind in ("images", "masks"):
        (moved / "train" / kind / "t9.png").unlink()
    stored["labels"]["names"][0] = "roof"
    (run / "data.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match="the classes were roof, door, window when the run began and are wall, door"):
        train(small_config(moved), resume=run)
    (run / "data.json").write_text("")  # cut by a full disk: nothing to compare
    assert train(small_config(moved), resume=run).steps == 4
    assert any(f'data.source: "{data}"'[:40] in message for message in warnings(run))

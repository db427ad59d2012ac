"""What a checkpoint holds, taken and put back, by name and for any number of processes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import TinyNetwork, make_batch, make_task
from torch import nn

from perpixel.engine.checkpoints import load_checkpoint, read_manifest, save_checkpoint
from perpixel.engine.ema import ExponentialMovingAverage
from perpixel.engine.fit import FitSettings
from perpixel.engine.randomness import rank_seed
from perpixel.engine.shards import read_shards
from perpixel.engine.step import train_step
from perpixel.engine.training_state import Counters, TrainingState
from perpixel.errors import CheckpointError

SETTINGS = FitSettings(steps=4, ema_decay=0.9)


def state(
    *, optimizer: str = "adamw", seed: int = 3, steps: int = 0, network: nn.Module | None = None
) -> TrainingState:
    """A stage after some steps."""
    task = make_task(SETTINGS, optimizer=optimizer, seed=seed, network=network or TinyNetwork(dropout=0))
    ema = ExponentialMovingAverage(task.network, decay=0.9)
    for index in range(steps):
        train_step(task.network, task.criterion, [make_batch(index)], task.optimizer, preprocessing=task.preprocessing)
        ema.update()
    return TrainingState(
        network=task.network, optimizer=task.optimizer, schedule=task.schedule, settings=SETTINGS, ema=ema
    )


def no_warning(message: str) -> None:
    raise AssertionError(message)


def same(one: TrainingState, other: TrainingState) -> bool:
    first, second = one.take(Counters()), other.take(Counters())
    if first["tensors"].keys() != second["tensors"].keys() or first["ema"] != second["ema"]:
        return False
    return all(torch.equal(value, second["tensors"][name]) for name, value in first["tensors"].items())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_training_state_put_back_is_the_same_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    one, other = state(optimizer=optimizer, steps=3), state(optimizer=optimizer, seed=4)
    counters = Counters(step=3, best_score=0.5, best_step=2, scores={"mean_iou": 0.5})
    path = save_checkpoint(tmp_path, one.take(counters), step=3)
    drawn = torch.rand(3)
    assert not same(one, other)
    assert other.put_back(load_checkpoint(path), path, warn=no_warning) == counters
    assert same(one, other)
    assert torch.equal(torch.rand(3), drawn)


def test_training_state_tensors_go_by_the_names_of_parameters() -> None:
    names = state(steps=1).take(Counters())["tensors"].keys()
    assert {"network/head.weight", "network/backbone.1.running_mean", "optimizer/head.weight/exp_avg"} <= names
    assert "ema/head.weight" in names


def test_training_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    one = state(steps=1)
    path = save_checkpoint(tmp_path, one.take(Counters(step=1)), step=1)
    with pytest.raises(CheckpointError, match=r"step-1 does not fit this run: .*size mismatch.*resume with the conf"):
        state(network=TinyNetwork(width=4)).put_back(load_checkpoint(path), path, warn=no_warning)
    frozen = TinyNetwork(dropout=0)
    frozen.head.bias.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"other parameters train \(head\.bias\)"):
        state(network=frozen).put_back(load_checkpoint(path), path, warn=no_warning)


def test_training_state_settings_that_differ_are_said(tmp_path: Path) -> None:
    one, said = state(steps=1), []
    saved = one.take(Counters(step=1))
    other = replace(state(), settings=replace(SETTINGS, accumulate=2, seed=7))
    other.put_back(saved, tmp_path, warn=said.append)
    assert said == [
        "accumulate was 1 before the resume and is 2 now",
        "seed was 0 before the resume and is 7 now",
    ]


def test_rank_seed_of_the_first_process_is_the_runs_and_others_differ() -> None:
    seeds = [rank_seed(seed, rank) for seed in range(3) for rank in range(8)]
    assert rank_seed(5, 0) == 5
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in (*seeds, rank_seed(2**63 - 1, 7)))


def test_read_manifest_says_who_wrote_it(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"step": 1}, step=1)
    manifest = read_manifest(path)
    assert (manifest["step"], manifest["world_size"], manifest["torch"]) == (1, 1, str(torch.__version__))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "step": 1}', r"is of format 1, this version .* resume with the version that wrote it"),
        ("{}", r"cannot read .*manifest\.json"),
        ("[", r"cannot read .*manifest\.json"),
    ],
)
def test_read_manifest_of_another_format_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


class Trap:
    """What a hostile list of tensors would hold."""

    def __reduce__(self) -> Any:
        return print, ("code from the file was run",)


def test_read_shards_with_code_in_the_list_of_tensors_runs_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(pickle.UnpicklingError, match=r"it holds builtins\.print"):
        read_shards(tmp_path, lambda _: None)
    assert capsys.readouterr().out == ""


def test_load_checkpoint_with_damaged_shards_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"step": 1}, step=1)
    (path / "shards").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*resume from an earlier checkpoint"):
        load_checkpoint(path)
    (path / "shards" / ".metadata").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match=r"cannot read .*resume from an earlier checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_state_put_back_in_another_memory_order_updates_the_same_weights(
    tmp_path: Path, optimizer: str
) -> None:
    one, other = (
        state(optimizer=optimizer, steps=steps, network=TinyNetwork(dropout=0).to(memory_format=torch.channels_last))
        for steps in (3, 0)
    )
    taken = one.take(Counters(step=3))
    taken["tensors"] = {name: value.contiguous() for name, value in taken["tensors"].items()}  # as several processes do
    path = save_checkpoint(tmp_path, taken, step=3)
    other.put_back(load_checkpoint(path), path, warn=no_warning)
    for each in (one, other):
        task = make_task(SETTINGS)
        train_step(each.network, task.criterion, [make_batch(9)], each.optimizer, preprocessing=task.preprocessing)
    for name, weight in one.network.named_parameters():
        torch.testing.assert_close(dict(other.network.named_parameters())[name], weight, rtol=1e-6, atol=1e-7)

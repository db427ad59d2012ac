"""The certificate that a run of the user's own resumes exactly, and that it would notice if it did not."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_config

from perpixel.build import Progress, resume_proof
from perpixel.build.resume_proof import STEPS, live, prove_resume
from perpixel.config import RunConfig, load_config
from perpixel.engine.checkpoints import load_checkpoint
from perpixel.errors import RunError


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets lives pass here, a process each being dear; a kill is an exception then. Returns the kills."""

    class Killed(BaseException):
        pass

    def die(process: int, number: int) -> None:
        assert number == signal.SIGKILL
        raise Killed

    kills: list[Any] = []

    def start(config: Path, run: Path, kill: Any) -> None:
        kills.append(kill)
        order = json.dumps({"config": str(config), "run": str(run), "kill": kill})
        if kill is None:
            assert live(order) == 0
            return
        with pytest.raises(Killed):
            live(order)
        kill["over"] = True

    def add_hook(hook: Any) -> None:  # a hook stays for good, so this one sleeps after its kill
        watched = kills[-1]
        add(lambda event, arguments: None if "over" in watched else hook(event, arguments))

    add = sys.addaudithook
    monkeypatch.setattr(resume_proof.os, "kill", die)
    monkeypatch.setattr(resume_proof, "_start", start)
    monkeypatch.setattr(sys, "addaudithook", add_hook)
    return kills


def test_proof_of_a_run_finds_it_equal_and_names_the_next_batch(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = in_this_process(monkeypatch)
    seen: list[Progress] = []
    proof = prove_resume(small_config(data, ema_decay=0.9), on_progress=seen.append)
    assert proof.equal and proof.different is None and proof.condition is None
    assert proof.hashes[0] == proof.hashes[1] and len(proof.hashes[0]) == 64
    assert len(proof.next_batch) == 2
    assert [None if kill is None else (kill["at"], kill["step"]) for kill in kills] == [
        None,
        ("step", 3),
        ("checkpoint", 4),
        None,
    ]
    assert proof.kills == ("after step 3 of stage main", "while the checkpoint is written of step 4 of stage main")
    assert [(item.done, item.total) for item in seen] == [(number, 4) for number in range(4)]
    plain = proof.to_dict()
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("where", ["weights", "random"])
def test_proof_of_a_run_that_loses_something_names_it(data: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    in_this_process(monkeypatch)

    def forgetful(path: Path, *arguments: Any) -> dict[str, Any]:
        state = load_checkpoint(path, *arguments)
        if where == "random":
            state["random"][0]["torch"][16] ^= 1
        else:
            name = next(name for name in state["tensors"] if name.startswith("optimizer/"))
            state["tensors"][name] = state["tensors"][name] + 1
        return state

    monkeypatch.setattr(sys.modules["perpixel.engine.fit"], "load_checkpoint", forgetful)
    proof = prove_resume(small_config(data))
    assert not proof.equal
    assert proof.hashes[0] != proof.hashes[1]
    assert proof.different is not None and proof.different.startswith("main ")
    if where == "weights":
        assert " by up to " in proof.different


def test_differences_name_place_and_size() -> None:
    one = {"a": [torch.zeros(2), {"x": 1}], "b": torch.zeros(3), "c": 1.0, "d": None}
    other = {"a": [torch.tensor([0.0, 0.5]), {"x": 1}], "b": torch.zeros(2), "c": 1, "d": torch.zeros(1)}
    assert list(resume_proof._differences(one, other)) == [
        "a 0 by up to 0.5",
        "b",
        "c: 1.0 and 1",
        "d: None and tensor([0.])",
    ]
    assert list(resume_proof._differences(one, one)) == []
    minus_zero = {**one, "b": -torch.zeros(3)}
    assert list(resume_proof._differences(one, minus_zero)) == ["b by up to 0"]
    assert resume_proof._digest(one) != resume_proof._digest(minus_zero)


def test_proof_of_large_crops_is_made_smaller_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_proof, "step_seconds", lambda *_: 1000.0)
    config = small_config(data, data={"batch_size": 4, "crop_size": [640, 512]}, steps=50)
    trial, notes = resume_proof._shortened(config, torch.device("cpu"), tmp_path)
    assert trial == load_config(tmp_path / "config.yaml")
    assert (trial.stages[0].steps, trial.checkpoint_every, trial.device) == (STEPS, 2, "cpu")
    assert notes[0] == "6 steps per stage, on at most 64 training and 3 validation images"
    assert notes[1].startswith("main: batch 2 instead of 4, crop 128 x 128 instead of 640 x 512")
    notes = resume_proof._shortened(small_config(data, data={"batch_size": 4}), torch.device("cpu"), tmp_path)[1]
    assert notes[1:] == ["main: batch 2 instead of 4"]


def test_proof_of_several_stages_kills_in_the_first_and_the_last(data: Path) -> None:
    one = small_config(data)
    fine = one.stages[0].model_copy(update={"name": "fine", "start": "previous", "model": None})
    two = RunConfig.model_validate(one.model_copy(update={"stages": (one.stages[0], fine)}).model_dump(mode="json"))
    kills = [(kill["at"], kill["stage"], kill["step"]) for kill in resume_proof._kills(two)]
    assert kills == [("step", "main", 3), ("step", "fine", 3), ("checkpoint", "fine", 4)]


def test_proof_whose_life_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was to go to its end, and ended with code 2: .*cannot be read"):
        resume_proof._start(tmp_path / "absent.yaml", tmp_path / "run", None)


@pytest.mark.slow
def test_proof_in_real_processes_is_equal(data: Path) -> None:
    assert prove_resume(small_config(data, ema_decay=0.9, data={"workers": 1})).equal

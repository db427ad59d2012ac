"""``perpixel train`` and ``perpixel demo`` before, around and after the work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import SCORES, Done, FakeProgress, FakeResult

from perpixel.build.plan import Decision, Plan
from perpixel.build.resume_proof import ResumeProof
from perpixel.config import RunConfig, dump_config
from perpixel.engine.interrupts import Interrupted
from perpixel.recipes import get_recipe

Cli = Callable[..., Done]


class FakeTrain:
    """Stands in for build.train and build.demo: keeps what it was given and tells what it is told."""

    def __init__(self) -> None:
        self.config: RunConfig | None = None
        self.given: dict[str, Any] = {}
        self.interrupted = False
        self.signal: str | None = None
        self.error: BaseException | None = None

    def __call__(self, first: Any, *, on_event: Any, on_progress: Any, **given: Any) -> FakeResult:
        self.config, self.given = first, given
        on_event({"event": "decision", "what": "device", "choice": "cpu", "reason": "no GPU was found"})
        on_progress(FakeProgress())
        on_event({"event": "evaluation", "step": 2, "split": "val", "values": {"mean_iou": 0.5}, "seconds": 1.0})
        if self.error is not None:
            raise self.error
        folder = given.get("resume") or given.get("out") or Path("runs/demo")
        return FakeResult(folder=folder, scores=SCORES, interrupted=self.interrupted, signal=self.signal)


@pytest.fixture
def fake_train(monkeypatch: pytest.MonkeyPatch) -> FakeTrain:
    fake = FakeTrain()
    monkeypatch.setattr("perpixel.build.train", fake)
    monkeypatch.setattr("perpixel.build.demo", fake)
    return fake


def test_train_recipe_passes_configuration_and_options(run_cli: Cli, fake_train: FakeTrain) -> None:
    done = run_cli("train", "--recipe", "dfn_demo", "steps=40", "--out", "r", "--from", "m", "seed=4", "--overwrite")
    assert done.code == 0, done.err
    assert fake_train.config is not None
    assert (fake_train.config.stages[0].steps, fake_train.config.seed) == (40, 4)
    assert fake_train.given == {
        "out": Path("r"),
        "resume": None,
        "overwrite": True,
        "source": Path("m"),
        "decisions": (),
        "world": None,
    }


def test_train_prints_decisions_evaluations_and_scores(run_cli: Cli, fake_train: FakeTrain) -> None:
    lines = run_cli("train", "--recipe", "dfn_demo", "--out", "r").out.splitlines()
    assert lines[:3] == [
        "run folder: r",
        "device: cpu (no GPU was found)",
        "step 2: mean IoU 50.00 % on val in 1.0 s",
    ]
    assert "mean IoU 50.00 % over 2 of 3 classes" in lines


def test_train_without_out_names_the_folder_after_recipe_and_time(run_cli: Cli, fake_train: FakeTrain) -> None:
    run_cli("train", "--recipe", "dfn_demo")
    assert re.fullmatch(r"runs/dfn_demo-\d{8}-\d{6}", fake_train.given["out"].as_posix())


def test_train_in_half_of_torchruns_environment_says_what_is_missing(
    run_cli: Cli, fake_train: FakeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    done = run_cli("train", "--recipe", "dfn_demo", "--json", "-")
    assert (done.code, done.out, fake_train.config) == (2, "", None)
    assert "LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set" in " ".join(done.err.split())


def test_train_resume_reads_the_runs_configuration(run_cli: Cli, fake_train: FakeTrain) -> None:
    Path("r").mkdir()
    Path("r/config.yaml").write_text(dump_config(get_recipe("dfn_demo")), encoding="utf-8")
    done = run_cli("train", "--resume", "r", "steps=50")
    assert done.code == 0, done.err
    assert fake_train.given["resume"] == Path("r")
    assert fake_train.config is not None and fake_train.config.stages[0].steps == 50


def test_train_resume_takes_another_configuration_file(run_cli: Cli, fake_train: FakeTrain) -> None:
    Path("r").mkdir()
    Path("r/config.yaml").write_text(dump_config(get_recipe("dfn_demo")), encoding="utf-8")
    other = get_recipe("dfn_demo").model_copy(update={"seed": 5})
    Path("other.yaml").write_text(dump_config(other), encoding="utf-8")
    done = run_cli("train", "other.yaml", "--resume", "r", "steps=50")
    assert done.code == 0, done.err
    assert fake_train.config is not None
    assert (fake_train.config.seed, fake_train.config.stages[0].steps) == (5, 50)


@pytest.mark.parametrize("content", ["", "stages: [", "name: 3"])
def test_train_resume_with_a_damaged_configuration_names_the_way_out(
    run_cli: Cli, fake_train: FakeTrain, content: str
) -> None:
    Path("r").mkdir()
    Path("r/config.yaml").write_text(content, encoding="utf-8")
    done = run_cli("train", "--resume", "r")
    assert done.code == 2
    assert "cannot be used; give it: perpixel train CONFIG.yaml --resume r" in done.err
    Path("c.yaml").write_text(dump_config(get_recipe("dfn_demo")), encoding="utf-8")
    assert run_cli("train", "c.yaml", "--resume", "r").code == 0


@pytest.mark.parametrize(("equal", "code"), [(True, 0), (False, 1)])
def test_train_verify_resume_prints_both_hashes_and_does_not_train(
    run_cli: Cli, fake_train: FakeTrain, monkeypatch: pytest.MonkeyPatch, equal: bool, code: int
) -> None:
    asked: dict[str, Any] = {}

    def prove(config: RunConfig, *, source: Path | None, on_progress: Any) -> ResumeProof:
        asked.update(config=config, source=source)
        return ResumeProof(
            equal=equal,
            hashes=("a" * 64, ("a" if equal else "b") * 64),
            different=None if equal else "main tensors network/head.weight by up to 0.5",
            steps=6,
            kills=("after step 3 of stage main",),
            notes=("6 steps per stage",),
            condition=None if equal else "deterministic: false",
            next_batch=("t1", "t2"),
            seconds=9.0,
        )

    monkeypatch.setattr("perpixel.build.resume_proof.prove_resume", prove)
    done = run_cli("train", "--recipe", "dfn_demo", "seed=4", "--from", "m", "--verify-resume", "--json", "j.json")
    assert done.code == code, done.err
    assert (asked["config"].seed, asked["source"]) == (4, Path("m"))
    assert fake_train.config is None
    lines = done.out.splitlines()
    for line in (
        "6 steps per stage",
        "killed: after step 3 of stage main",
        f"unbroken: {'a' * 64}",
        "next batch: t1, t2",
    ):
        assert line in lines
    assert ("equal" in lines) == equal
    assert equal or "different: main tensors network/head.weight by up to 0.5" in lines
    assert equal or "condition: deterministic: false" in lines
    assert json.loads(Path("j.json").read_text())["equal"] is equal


def test_train_resume_of_nothing_is_refused(run_cli: Cli) -> None:
    done = run_cli("train", "--resume", "r")
    assert done.code == 2
    assert "there is no r/config.yaml" in done.err


@pytest.mark.parametrize("option", [("--recipe", "dfn_demo"), ("--out", "o"), ("--overwrite",), ("--from", "m")])
def test_train_resume_excludes_what_begins_a_run(run_cli: Cli, option: tuple[str, ...]) -> None:
    done = run_cli("train", "--resume", "r", *option)
    assert done.code == 2
    assert f"leave {option[0]} away" in done.err


def test_train_folders_take_the_plan_for_them(
    run_cli: Cli, fake_train: FakeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def plan(**given: Any) -> Plan:
        asked.update(given)
        said = [
            Decision(what="network", choice="dfn", reason="it is small", value=lambda config: config.stages[0].model),
            Decision(what="length", choice="many", reason="few images", value=lambda config: config.stages[0].steps),
        ]
        return Plan(config=get_recipe("dfn_demo"), decisions=tuple(said))

    monkeypatch.setattr("perpixel.build.plan_for_data", plan)
    done = run_cli("train", "images", "masks", "--labels", "2", "steps=30")
    assert done.code == 0, done.err
    del asked["on_progress"]
    assert asked == {
        "images": Path("images"),
        "masks": Path("masks"),
        "data": None,
        "labels": "2",
        "source": None,
        "overrides": ("steps=30",),
        "check": True,
    }
    assert fake_train.config is not None and fake_train.config.stages[0].steps == 30
    assert fake_train.given["decisions"] == (("network", "dfn", "it is small"),)  # the steps are the user's


def test_train_unknown_model_is_found_before_the_run(run_cli: Cli, fake_train: FakeTrain) -> None:
    done = run_cli("train", "--recipe", "dfn_demo", "model.name=dfnn")
    assert done.code == 2
    assert "override 'model.name=dfnn'" in done.err and "did you mean 'dfn'" in done.err
    assert fake_train.config is None


def test_train_interrupted_exits_130_with_the_resume_command(run_cli: Cli, fake_train: FakeTrain) -> None:
    Path("r").mkdir()
    Path("r/config.yaml").touch()
    fake_train.interrupted = True
    done = run_cli("train", "--recipe", "dfn_demo", "--out", "r", "--json", "j.json")
    assert done.code == 130
    assert "perpixel train --resume r" in done.out
    assert json.loads(Path("j.json").read_text())["interrupted"] is True


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_train_ended_by_a_signal_exits_with_its_code(run_cli: Cli, fake_train: FakeTrain, name: str, code: int) -> None:
    fake_train.interrupted, fake_train.signal = True, name
    assert run_cli("train", "--recipe", "dfn_demo", "--out", "r", "--json", "j.json").code == code
    assert json.loads(Path("j.json").read_text())["signal"] == name
    fake_train.error = Interrupted(name)  # while it did not train
    assert run_cli("train", "--recipe", "dfn_demo", "--out", "r").code == code


@pytest.mark.parametrize("tokens", [("train", "--recipe", "dfn_demo", "--out", "r"), ("demo", "--out", "r")])
def test_second_interruption_exits_130_too(run_cli: Cli, fake_train: FakeTrain, tokens: tuple[str, ...]) -> None:
    Path("r").mkdir()
    Path("r/config.yaml").touch()
    fake_train.error = KeyboardInterrupt()
    done = run_cli(*tokens)
    assert done.code == 130
    assert "perpixel train --resume r" in done.out


def test_train_json_on_stdout_is_alone_there(run_cli: Cli, fake_train: FakeTrain) -> None:
    done = run_cli("train", "--recipe", "dfn_demo", "--out", "r", "--json", "-")
    assert done.json["run"] == "r"
    assert done.json["scores"]["mean_iou"] == 0.5
    assert "device: cpu" in done.err


@pytest.mark.parametrize("target, message", [("--out", "--json needs a file name"), (".", "is a folder")])
def test_json_target_that_cannot_be_written_is_refused_first(
    run_cli: Cli, fake_train: FakeTrain, target: str, message: str
) -> None:
    done = run_cli("train", "--recipe", "dfn_demo", "--json", target)
    assert done.code == 2
    assert message in done.err
    assert fake_train.config is None


def test_json_below_a_file_is_refused(run_cli: Cli) -> None:
    Path("file").touch()
    done = run_cli("recipes", "--json", "file/r.json")
    assert done.code == 2
    assert "--json file/r.json: cannot be written" in done.err


def test_demo_passes_overrides_and_baseline(run_cli: Cli, fake_train: FakeTrain) -> None:
    done = run_cli("demo", "steps=5", "--no-baseline", "--json", "out/d.json")
    assert done.code == 0, done.err
    assert fake_train.config == Path("runs/demo")  # the first argument of demo is its folder
    assert fake_train.given == {"overrides": ("steps=5",), "baseline": False}
    assert json.loads(Path("out/d.json").read_text())["steps"] == 7

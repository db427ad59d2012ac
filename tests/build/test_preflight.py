"""preflight: a run tried in a minute, and what it says of runs that would fail."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import TINY, Interrupt, small_config, write_blocks, write_pair

from perpixel.build import CheckResult, PreflightReport, preflight, preflight_trial
from perpixel.build.memory_estimate import MemoryEstimate
from perpixel.build.memory_plan import MemoryPlan
from perpixel.build.preflight_outcome import check_disk
from perpixel.build.preflight_trial import choose_size, trial_config
from perpixel.config import OptimizerChoice, RunConfig, ScheduleChoice
from perpixel.errors import InvalidValue
from perpixel.inference.memory import free_memory

MODULE = sys.modules["perpixel.build.preflight"]  # the package holds the function under this name
NAMES = [
    "configuration",
    "data",
    "network",
    "memory",
    "training",
    "resume",
    "evaluation",
    "tiled prediction",
    "disk",
    "time",
]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, so that tests see what is left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def _planned(config: RunConfig, _: int, *, memory: int, **__: Any) -> MemoryPlan:
    fits = (memory - 10**7) // 10**7
    return MemoryPlan(
        device="cpu",
        memory=memory,
        batch_size=2,
        crop_size=config.data.crop_size,
        step_bytes=3 * 10**7,
        largest_batch=max(0, fits),
        largest_crop=(64, 64) if fits > 0 else None,
        easy_batch=max(0, fits),
        measured=False,
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the count of memory, half of the time of a tiny check."""
    given = MemoryEstimate(
        weights=1,
        gradients=1,
        optimizer=1,
        activations=10**7,
        batch_size=2,
        crop_size=(32, 32),
        counted_at="full size",
    )
    monkeypatch.setattr(MODULE, "estimate_training_memory", lambda *_, **__: given)
    monkeypatch.setattr(MODULE, "StepProbe", lambda *_: None)
    monkeypatch.setattr(MODULE, "plan_memory", _planned)


def with_stage(config: RunConfig, **changes: object) -> RunConfig:
    """The same run with another first stage."""
    return config.model_copy(update={"stages": (config.stages[0].model_copy(update=changes),)})


def by_name(report: PreflightReport) -> dict[str, CheckResult]:
    return {check.name: check for check in report.checks}


def test_preflight_of_a_good_run_finds_nothing_and_leaves_nothing(data: Path, scratch: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    told: list[str] = []
    report = preflight(small_config(data), seconds=3600, on_check=lambda found: told.append(found.name))
    assert {check.name: check.status for check in report.checks} == dict.fromkeys(NAMES, "ok"), report
    assert told == NAMES
    assert not report.failed
    found = by_name(report)
    assert "bit for bit" in found["resume"].found
    assert found["evaluation"].values["images"] == 3
    assert found["memory"].values["stages"][0]["bytes"] > 0
    assert found["time"].values["seconds"] > 0
    assert found["tiled prediction"].values["agreement"] == 1.0
    assert list(scratch.iterdir()) == []
    assert not Path("runs").exists()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert report.to_dict()["checks"][0]["name"] == "configuration"


@pytest.mark.usefixtures("counted")
def test_preflight_tries_every_stage(data: Path, scratch: Path) -> None:
    first = small_config(data).stages[0]
    second = first.model_copy(update={"name": "second", "start": "previous", "model": None})
    config = small_config(data).model_copy(update={"stages": (first, second)})
    found = by_name(preflight(config))
    assert {check.status for check in found.values()} == {"ok"}, found
    assert "main: 2 steps" in found["training"].found
    assert "second: 2 steps" in found["training"].found
    assert len(found["memory"].values["stages"]) == 2
    assert list(scratch.iterdir()) == []


def test_preflight_wrong_names_fail_and_the_rest_is_not_run(data: Path, scratch: Path) -> None:
    config = small_config(data)
    report = preflight(with_stage(config, model=config.model_of(0).model_copy(update={"name": "dfm"})))
    assert report.failed
    assert [check.status for check in report.checks] == ["failed"] + ["not run"] * 9
    assert "unknown model" in report.checks[0].found
    assert report.checks[0].way_out
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("counted")
def test_preflight_data_with_an_unknown_id_fails_and_says_which(tmp_path: Path, scratch: Path) -> None:
    folder = write_blocks(tmp_path / "d")
    pixels = torch.zeros(40, 48, 3, dtype=torch.uint8).numpy()
    write_pair(folder / "val", "v 0", pixels, pixels[..., 0] + 77)
    found = by_name(preflight(small_config(folder)))
    assert found["data"].status == "failed"
    assert "77" in found["data"].found
    assert "perpixel data check" in found["data"].way_out
    assert found["training"].status == "not run"
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("counted")
def test_preflight_rate_that_diverges_fails_in_training(data: Path, scratch: Path) -> None:
    config = with_stage(small_config(data), optimizer=OptimizerChoice(name="sgd", lr=1e30))
    found = by_name(preflight(config))
    assert found["training"].status == "failed"
    assert "not finite" in found["training"].found
    assert found["resume"].status == "not run"
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("counted")
def test_preflight_too_little_memory_fails_and_goes_on(
    data: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "free_memory", lambda _: 1_000_000)
    found = by_name(preflight(small_config(data)))
    assert found["memory"].status == "failed"
    assert "not even one image" in found["memory"].found
    assert found["training"].status == "ok"
    assert scratch.is_dir()


@pytest.mark.usefixtures("counted")
def test_preflight_unreachable_weights_fail_and_random_ones_go_on(
    data: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "published_weights", lambda _: "unreachable")
    backbone = TINY.model_copy(update={"weights": "timm"})
    model = small_config(data).model_of(0).model_copy(update={"backbone": backbone})
    found = by_name(preflight(with_stage(small_config(data), model=model)))
    assert found["network"].status == "failed"
    assert "model.backbone.weights=FILE" in found["network"].found
    assert found["training"].status == "ok"
    assert scratch.is_dir()


@pytest.mark.usefixtures("counted")
def test_preflight_resume_that_differs_fails(data: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_trial, "same_bits", lambda one, other: one.shape != other.shape)
    found = by_name(preflight(small_config(data)))
    assert found["resume"].status == "failed"
    assert "weights differ: main:" in found["resume"].found
    assert found["evaluation"].status == "ok"
    assert scratch.is_dir()


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("phase", ["train", "resume"])
def test_preflight_interrupted_leaves_nothing(data: Path, scratch: Path, phase: str) -> None:
    stop: Any = Interrupt(1) if phase == "train" else Interrupt(NAMES.index("resume"), "resume")
    with pytest.raises(KeyboardInterrupt):
        preflight(small_config(data), on_progress=stop)
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("counted")
def test_preflight_without_time_leaves_the_last_checks_out_and_says_so(data: Path, scratch: Path) -> None:
    report = preflight(small_config(data), seconds=0.01)
    found = by_name(report)
    assert found["training"].status == "ok"
    for name in ("resume", "evaluation", "tiled prediction"):
        assert found[name].status == "not run"
        assert "left out: the 0.01 seconds are used up; --seconds 0.02" in found[name].found
    assert found["time"].status == "ok"
    assert not report.failed
    assert list(scratch.iterdir()) == []


def test_preflight_seconds_not_positive_is_refused(data: Path) -> None:
    with pytest.raises(InvalidValue, match="seconds must be positive, got 0"):
        preflight(small_config(data), seconds=0)


def test_choose_size_reduces_the_batch_first_then_the_crop() -> None:
    config = small_config("unused", data={"crop_size": [512, 512], "batch_size": 8})
    found = [choose_size(config, 3, 0, share) for share in (2, 0.5, 0.25, 0.1, 1e-6)]
    assert [size.batch_size for size in found] == [8, 4, 2, 2, 2]
    assert [size.crop_size for size in found] == [(512, 512)] * 3 + [(320, 320), (128, 128)]
    assert found[1].share == 0.5


def test_trial_config_keeps_network_loss_and_augmentation(data: Path) -> None:
    schedule = ScheduleChoice(name="step", milestones=(3,), warmup_steps=2)
    config = with_stage(small_config(data), schedule=schedule, accumulate=3)
    trial = trial_config(config, {0: choose_size(config, 3, 0, 1)}, precision="fp32", random_backbones=False)
    stage = trial.stages[0]
    assert (stage.steps, stage.accumulate, stage.schedule.milestones, stage.schedule.warmup_steps) == (2, 2, (1,), 1)
    assert stage.model == config.stages[0].model
    assert trial.data_of(0) == config.data_of(0)
    assert RunConfig.model_validate(trial.model_dump()) == trial


def test_check_disk_folder_without_rights_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    unused: Any = None
    found = check_disk(small_config("unused"), unused, tmp_path, tmp_path / "file" / "run")
    assert not found.fits
    assert "nothing can be written" in found.text
    assert free_memory() > 0

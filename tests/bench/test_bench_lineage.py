"""The lineage benchmark: what each network is run as, and how rows are kept, found again and retried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perpixel.bench import LineageSettings, RowFile, run_lineage
from perpixel.bench import lineage as lineage_module
from perpixel.bench.lineage import run_config, small_choice
from perpixel.build import Progress, RunResult, check_names
from perpixel.errors import InvalidValue, RunError
from perpixel.models import list_models

TINY = LineageSettings(steps=3, batch_size=2, size=32, train_scenes=4, val_scenes=2)
TWO = ("unet", "segnet_basic")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replaces the measuring by a note of what was asked for."""
    calls: list[tuple[str, int]] = []

    def measure(name: str, seed: int, *_: Any) -> dict[str, Any]:
        calls.append((name, seed))
        return {"failed": "too bad" if (name, seed) == ("unet", 1) else None, "mean_iou": 0.5}

    monkeypatch.setattr(lineage_module, "_measured", measure)
    monkeypatch.setattr(lineage_module, "_scenes", lambda folder, settings: folder)
    return calls


@pytest.mark.parametrize("name", list_models())
def test_run_config_of_every_network_is_one_that_can_run(name: str) -> None:
    config = run_config(name, 1, LineageSettings(), Path("scenes"))
    assert check_names(config) == []
    assert (config.seed, config.stages[0].steps, config.stages[0].terms) == (1, LineageSettings().steps, None)


def test_small_choice_keeps_published_strides_on_the_light_trunk() -> None:
    backbone = small_choice("pspnet").backbone
    assert backbone is not None
    assert (backbone.name, backbone.output_stride, backbone.dilation) == ("test_resnet", 8, "full")
    assert small_choice("segnet").backbone is None


def test_run_config_of_a_network_with_a_margin_mirrors_it_around_the_scene() -> None:
    data = run_config("dilatednet", 0, LineageSettings(size=96), Path("scenes")).data
    assert data.mirror == 186
    assert 96 + 2 * data.mirror <= min(data.crop_size) < 96 + 2 * data.mirror + 8


def test_run_config_of_a_network_with_sizes_of_its_own_takes_the_next_one() -> None:
    assert run_config("icnet", 0, LineageSettings(size=96), Path("scenes")).data.crop_size == (97, 97)


def test_run_lineage_goes_round_by_seeds_and_runs_nothing_twice(tmp_path: Path, measured: list[Any]) -> None:
    path = tmp_path / "rows.json"
    seen: list[tuple[str, int, int]] = []
    run_lineage(RowFile(path), TINY, networks=TWO, seeds=1)
    rows = run_lineage(
        RowFile(path),
        TINY,
        networks=TWO,
        seeds=2,
        on_row=lambda row, done, total: seen.append((row["key"]["network"], done, total)),
    )
    assert measured == [("unet", 0), ("segnet_basic", 0), ("unet", 1), ("segnet_basic", 1)]
    assert seen == [("unet", 1, 4), ("segnet_basic", 2, 4), ("unet", 3, 4), ("segnet_basic", 4, 4)]
    assert [row["failed"] for row in rows] == [None, None, "too bad", None]


def test_run_lineage_with_other_settings_runs_again_and_keeps_the_rows(tmp_path: Path, measured: list[Any]) -> None:
    file = RowFile(tmp_path / "rows.json")
    run_lineage(file, TINY, networks=("unet",), seeds=1)
    rows = run_lineage(file, LineageSettings(steps=4), networks=("unet",), seeds=1)
    assert measured == [("unet", 0), ("unet", 0)]
    assert [row["key"]["steps"] for row in rows] == [4]
    assert sorted(row["key"]["steps"] for row in file.rows) == [3, 4]


def test_run_lineage_runs_failed_rows_again_when_asked_alone(tmp_path: Path, measured: list[Any]) -> None:
    file = RowFile(tmp_path / "rows.json")
    for retry in (False, False, True):
        run_lineage(file, TINY, networks=("unet",), seeds=2, retry=retry)
    assert measured == [("unet", 0), ("unet", 1), ("unet", 1)]


def test_run_lineage_without_names_takes_every_network(tmp_path: Path, measured: list[Any]) -> None:
    run_lineage(RowFile(tmp_path / "rows.json"), TINY, seeds=1)
    assert [name for name, _ in measured] == list_models()


def test_run_lineage_network_that_fails_is_a_row_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"unet": RunError("the loss is not finite"), "segnet_basic": ZeroDivisionError("by zero")}

    def raising(config: Any, *, on_progress: Any, **_: Any) -> RunResult:
        on_progress(Progress(phase="train", done=1, total=3))
        raise errors[config.stages[0].model.name]

    phases: list[str] = []
    monkeypatch.setattr(lineage_module, "train", raising)
    rows = run_lineage(
        RowFile(tmp_path / "rows.json"),
        TINY,
        networks=TWO,
        seeds=1,
        on_progress=lambda progress: phases.append(progress.phase),
    )
    assert [row["failed"] for row in rows] == ["the loss is not finite", "ZeroDivisionError: by zero"]
    assert phases == ["unet, seed 0: train", "segnet_basic, seed 0: train"]
    assert rows[0]["seconds_per_step"] is None


def test_run_lineage_that_is_interrupted_keeps_the_rows_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: Any, **_: Any) -> RunResult:
        if config.stages[0].model.name == "unet":
            raise RunError("no")
        return RunResult(folder=tmp_path, interrupted=True)

    monkeypatch.setattr(lineage_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_lineage(RowFile(tmp_path / "rows.json"), TINY, networks=TWO, seeds=1)
    assert [row["key"]["network"] for row in RowFile(tmp_path / "rows.json").rows] == ["unet"]


def test_run_lineage_refuses_unknown_networks_and_no_seeds(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.json")
    with pytest.raises(InvalidValue, match="unknown network 'unett'; did you mean 'unet'"):
        run_lineage(file, TINY, networks=("unett",))
    with pytest.raises(InvalidValue, match="seeds must be >= 1, got 0"):
        run_lineage(file, TINY, seeds=0)
    with pytest.raises(InvalidValue, match="steps must be >= 1, got 0"):
        LineageSettings(steps=0)

"""Whose run a folder holds when torchrun starts its processes again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import same_weights, small_config, weights

from perpixel.build import RunResult, train
from perpixel.build.several_processes import begun_before, launch
from perpixel.errors import RunError

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun's launch ``mine`` starts a process for the second time."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")


@pytest.mark.parametrize(
    ("environment", "begun"),
    [(None, True), ("", True), ({"launch": "mine"}, True), ({"launch": "another"}, False), ({"torch": "2"}, False)],
)
@pytest.mark.usefixtures("restarted")
def test_begun_before_after_a_restart_is_what_this_launch_wrote(
    tmp_path: Path, environment: object, begun: bool
) -> None:
    if environment is not None:
        (tmp_path / "environment.json").write_text(json.dumps(environment) if environment else "")
    assert begun_before(tmp_path) is begun


def test_begun_before_without_a_restart_is_false(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launch() is None
    assert not begun_before(tmp_path)


@pytest.mark.usefixtures("restarted")
def test_train_restarted_before_it_began_refuses_an_earlier_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("an earlier run's")
    (run / "environment.json").write_text('{"launch": "another"}')
    with pytest.raises(RunError, match="is not empty; --resume goes on with it, --overwrite replaces it"):
        train(small_config(data), out=run)
    assert (run / "config.yaml").read_text() == "an earlier run's"


@pytest.mark.usefixtures("restarted")
def test_train_restarted_before_it_overwrote_an_earlier_run_does_so_then_goes_on(
    data: Path, tmp_path: Path, trained: RunResult
) -> None:
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "config.yaml").write_text("an earlier run's")
    (run / "environment.json").write_text('{"launch": null}')
    (run / "metrics.jsonl").write_text("")
    train(small_config(data), out=run, overwrite=True)
    assert same_weights(weights(run), weights(trained.folder))
    assert json.loads((run / "environment.json").read_text())["launch"] == "mine"
    assert train(small_config(data, steps=5), out=run, overwrite=True).steps == 5
    assert "resume: " not in (run / "config.yaml").read_text()
    assert '"what": "resume"' in (run / "metrics.jsonl").read_text()

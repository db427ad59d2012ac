"""How a configuration's choices for the training step reach the engine: compile and recompute."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import decisions, events, same_weights, small_config, weights

from perpixel.build import RunResult, train
from perpixel.build.memory_estimate import estimate_training_memory
from perpixel.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_report")


def test_train_recomputed_gives_the_same_weights_and_says_so(trained: RunResult, data: Path, tmp_path: Path) -> None:
    run = train(small_config(data, recompute=True), out=tmp_path / "run")
    assert same_weights(weights(run.folder), weights(trained.folder))
    assert "parts of the network: asked for" in decisions(run.folder)["recompute"]
    assert decisions(run.folder)["compile"] == "eager: its stages are recomputed"


def test_train_compile_auto_is_eager_on_the_cpu_with_the_reason(trained: RunResult) -> None:
    assert decisions(trained.folder)["compile"].startswith("eager: on cpu")
    assert "recompute" not in decisions(trained.folder)


def test_train_compile_that_fails_trains_on_and_warns(
    trained: RunResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(network: object, **options: object) -> object:
        def fail(images: object) -> object:
            raise RuntimeError("no compiler here\nand more")

        return fail

    monkeypatch.setattr("torch.compile", refuse)
    run = train(small_config(data, compile=True), out=tmp_path / "run")
    assert same_weights(weights(run.folder), weights(trained.folder))
    assert decisions(run.folder)["compile"] == "compiled: asked for"
    assert [event["message"] for event in events(run.folder, "warning")] == [
        "the network is not compiled and runs as it is, to the same results: no compiler here"
    ]


def test_compile_and_recompute_together_are_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="cannot go with recompute: true; take one of the two"):
        small_config(data, compile=True, recompute=True)


def test_estimate_of_a_recomputed_step_is_lower() -> None:
    plain, recomputed = (
        estimate_training_memory(small_config("x", recompute=on, data={"crop_size": [64, 96]}), 3)
        for on in (False, True)
    )
    assert recomputed.activations < plain.activations

"""``perpixel evaluate`` in its two forms, and ``perpixel predict``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import SCORES, Done, FakeProgress

Cli = Callable[..., Done]


@dataclass(frozen=True, kw_only=True)
class FakeFailure:
    image: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class FakeReport:
    images: int = 4
    pixels: int = 400
    seconds: float = 2.0
    failures: tuple[FakeFailure, ...] = ()
    notes: tuple[str, ...] = ("two inputs share a name",)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def score(*given: Any, on_progress: Any, **options: Any) -> dict[str, Any]:
        on_progress(FakeProgress(phase="evaluate"))
        made.append((given, options))
        return SCORES

    monkeypatch.setattr("perpixel.build.evaluate", score)
    monkeypatch.setattr("perpixel.build.evaluate_predictions", score)
    return made


def test_evaluate_model_prints_the_table_and_writes_json(run_cli: Cli, calls: list[Any]) -> None:
    done = run_cli(
        "evaluate", "best", "--data", "camvid:/d", "--split", "test", "--border-width", 0, "--json", "s.json"
    )
    assert done.code == 0, done.err
    options = {
        "split": "test",
        "labels": None,
        "mask_encoding": None,
        "device": "auto",
        "precision": "fp32",
        "border_width_px": None,
        "crf": False,
    }
    assert calls == [((Path("best"), "camvid:/d"), options)]
    assert "mean IoU 50.00 % over 2 of 3 classes" in done.out
    assert json.loads(Path("s.json").read_text()) == SCORES


def test_evaluate_saved_masks(run_cli: Cli, calls: list[Any]) -> None:
    done = run_cli("evaluate", "--predictions", "p", "--targets", "t", "--labels", 3, "--missing", "wrong")
    assert done.code == 0, done.err
    assert calls == [((Path("p"), Path("t"), "3"), {"missing": "wrong"})]


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([], "MODEL and --data missing"),
        (["best"], "--data missing"),
        (["--data", "d"], "MODEL missing"),
        (["--predictions", "p"], "--targets and --labels missing"),
        (
            ["--predictions", "p", "--targets", "t", "--labels", "2", "--crf"],
            "--crf needs the probabilities of a model",
        ),
        (["best", "--predictions", "p", "--targets", "t", "--labels", "2"], "MODEL does not go with saved masks"),
        (["best", "--data", "d", "--border-width", "-1"], "--border-width is a number of pixels"),
    ],
)
def test_evaluate_other_forms_are_refused(run_cli: Cli, calls: list[Any], tokens: list[str], message: str) -> None:
    done = run_cli("evaluate", *tokens)
    assert done.code == 2
    assert message in done.err
    assert not calls


@pytest.mark.parametrize(
    ("given", "crf"), [(["--crf"], True), (["--crf-set", "deeplab_v1"], "deeplab_v1"), (["--no-crf"], False)]
)
def test_evaluate_model_with_a_crf_asks_for_it(run_cli: Cli, calls: list[Any], given: list[str], crf: Any) -> None:
    assert run_cli("evaluate", "best", "--data", "d", *given).code == 0
    assert calls[0][1]["crf"] == crf


def test_predict_reports_images_rate_and_notes(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def fake(*given: Any, on_progress: Any, **options: Any) -> FakeReport:
        on_progress(FakeProgress(phase="predict"))
        made.append((given, options))
        return FakeReport()

    monkeypatch.setattr("perpixel.build.predict", fake)
    done = run_cli("predict", "best", "a.png", "--out", "o", "folder", "--no-overlays", "--json", "-")
    assert done.code == 0, done.err
    options = {"overlays": False, "device": "auto", "precision": "auto", "crf": False}
    assert made == [((Path("best"), ("a.png", "folder"), Path("o")), options)]
    assert "4 images predicted in 2.0 s, 2.0 per second; masks are in o" in done.err
    assert "two inputs share a name" in done.err
    assert done.json["images"] == 4


def test_predict_failures_exit_2_after_the_summary(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = FakeFailure(image=Path("x.png"), reason="x.png: truncated")
    monkeypatch.setattr("perpixel.build.predict", lambda *_, **__: FakeReport(failures=(failure,)))
    done = run_cli("predict", "best", "x.png", "--out", "o", "--json", "p.json")
    assert done.code == 2
    assert "1 images could not be predicted:\n  x.png: truncated" in done.err
    assert json.loads(Path("p.json").read_text())["failures"] == [{"image": "x.png", "reason": "x.png: truncated"}]


def test_predict_without_inputs_is_refused(run_cli: Cli) -> None:
    done = run_cli("predict", "best", "--out", "o")
    assert done.code == 2
    assert "nothing to predict" in done.err

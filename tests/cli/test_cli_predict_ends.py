"""What ``perpixel predict`` passes on of post-processing and submissions, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Done

from perpixel.inference import PostProcessing

Cli = Callable[..., Done]


@dataclass(frozen=True)
class FakeReport:
    images: int = 3
    pixels: int = 300
    seconds: float = 1.5
    failures: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ("3 images, the test set has 1456: a trial",)
    submission: Path | None = Path("o/voc.tar.gz")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def fake(*_: Any, **options: Any) -> FakeReport:
        made.append(options)
        return FakeReport()

    monkeypatch.setattr("perpixel.build.predict", fake)
    return made


def test_predict_submit_says_what_to_upload(run_cli: Cli, calls: list[dict[str, Any]]) -> None:
    done = run_cli("predict", "best", "a.png", "--out", "o", "--submit", "voc", "--partial", "--json", "-")
    assert done.code == 0, done.err
    assert (calls[0]["submit"], calls[0]["partial"]) == ("voc", True)
    assert "3 images predicted in 1.5 s, 2.0 per second; checked, ready to upload: o/voc.tar.gz" in done.err
    assert "a trial" in done.err
    assert done.json["submission"] == "o/voc.tar.gz"


def test_predict_post_processing_is_read_from_the_options(run_cli: Cli, calls: list[dict[str, Any]]) -> None:
    Path("t.yaml").write_text("cat: 0.25\n", encoding="utf-8")
    tokens = [["--min-region", "50", "--thresholds", "cat=0.5,dog=0.3", "--fallback", "ignore"], []]
    tokens.append(["--thresholds", "t.yaml"])
    for given in tokens:
        assert run_cli("predict", "best", "a.png", "--out", "o", *given).code == 0
    assert calls[0]["postprocessing"] == PostProcessing(
        min_region=50, thresholds={"cat": 0.5, "dog": 0.3}, fallback="ignore"
    )
    assert calls[1]["postprocessing"].is_empty
    assert calls[2]["postprocessing"].thresholds == {"cat": 0.25}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--submit", "pascal"], "pascal"),
        (["--thresholds", "cat=2"], "threshold of 'cat' is a number in [0, 1], got 2.0"),
        (["--thresholds", "cat=0.2,cat=0.3"], "'cat' is named twice; give one threshold per class"),
        (["--fallback", "ignore"], "--fallback ignore is for pixels below their class's threshold"),
        (["--partial"], "--partial lets --submit take another number of images"),
        (["--min-region", "-4"], "min_region is a number of pixels, 0 or more, got -4"),
    ],
)
def test_predict_with_other_values_is_refused(
    run_cli: Cli, calls: list[dict[str, Any]], tokens: list[str], message: str
) -> None:
    done = run_cli("predict", "best", "a.png", "--out", "o", *tokens)
    assert done.code == 2
    assert message in done.err
    assert not calls

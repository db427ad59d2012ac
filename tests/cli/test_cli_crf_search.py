"""``perpixel evaluate MODEL --data DATA --crf-search IMAGES``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Done

Cli = Callable[..., Done]

GAIN = {"difference": 0.01, "low": -0.02, "high": 0.03, "p_value": 0.4, "confidence": 0.95, "words": "within chance"}
PART = {"images": 2, "mean_iou": {"without": 0.5, "with": 0.51}, "gain": GAIN}
FOUND = {
    "model": "best",
    "split": "val",
    "method": "coordinate",
    "crf": {"iterations": 10, "bilateral_width": 50.0},
    "searched": PART,
    "unseen": None,
    "start": {},
    "trials": [{}, {}, {}],
    "notes": ["the best width is the largest that was tried"],
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def fake(*given: Any, on_progress: Any, **options: Any) -> dict[str, Any]:
        made.append({"given": given, **options})
        return FOUND

    monkeypatch.setattr("perpixel.build.search_crf", fake)
    return made


def test_crf_search_says_the_numbers_and_what_they_gain(run_cli: Cli, calls: list[dict[str, Any]]) -> None:
    done = run_cli(
        *("evaluate", "best", "--data", "d", "--split", "train", "--crf-search", 2, "--crf-out", "c.yaml"),
        *("--crf-set", "deeplab_v1", "--json", "s.json"),
    )
    assert done.code == 0, done.err
    (call,) = calls
    assert call["given"] == (Path("best"), "d")
    assert call.items() >= {"split": "train", "images": 2, "start": "deeplab_v1", "out": Path("c.yaml")}.items()
    text = " ".join(done.out.split())
    assert "best of 3 trials: iterations 10, bilateral width 50.0" in text
    assert "on the images that were searched (2): mean IoU 50.00 without, 51.00 with; within chance" in text
    assert "images that it has not seen is open" in text
    assert "the best width is the largest that was tried" in text
    assert json.loads(Path("s.json").read_text())["crf"] == FOUND["crf"]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--crf-search", 2, "--boundary"], "leave out what is measured besides the IoU family"),
        (["--crf-search", 2, "--memory", "1GB", "--min-region", 5], "leave out --min-region, --memory"),
        (["--crf-search", 2, "--fallback", "ignore", "--border-width", 3], "leave out --fallback, --border-width"),
        (["--crf-out", "c.yaml"], "--crf-out keeps what --crf-search finds"),
    ],
)
def test_crf_search_with_other_aims_is_refused(
    run_cli: Cli, calls: list[dict[str, Any]], tokens: list[Any], message: str
) -> None:
    done = run_cli("evaluate", "best", "--data", "d", *tokens)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not calls


def test_crf_search_numbers_that_could_not_be_written_are_refused_first(
    run_cli: Cli, calls: list[dict[str, Any]]
) -> None:
    Path("folder").mkdir()
    done = run_cli("evaluate", "best", "--data", "d", "--crf-search", 2, "--crf-out", "folder")
    assert done.code == 2
    assert "--crf-out folder: is a folder; give a file name" in done.err
    assert not calls

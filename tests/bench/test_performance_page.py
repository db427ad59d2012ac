"""docs/performance.md is made from the results, and must be made anew when they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perpixel.bench.performance_page import TEXTS, performance_page, read_results
from perpixel.bench.results import Report, limit, row_of
from perpixel.bench.subjects import SUBJECTS
from perpixel.errors import RunError

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "commit": "abc",
    "date": "2026-11-22",
    "device": "a device",
    "threads": 2,
    "python": "3.12",
    "versions": {"torch": "2"},
}


def contender(median: float, ratio: float, **more: Any) -> dict[str, Any]:
    faster = {"of_medians": ratio, "of_fastest": ratio, "per_round": ratio, "per_round_quartiles": [ratio, ratio]}
    times = {"median_s": median, "fastest_s": median, "quartiles_s": [median, median], "rounds_s": [median]}
    return {**times, "times_as_fast": faster, **more}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One report with a row that was measured and one that failed, and files that are none of the page's."""
    report = Report(tmp_path / "metrics.json", "metrics", environment=ENVIRONMENT, rounds=3)
    reached = limit("speed", 2.5, 2.0, sense="at least")
    missed = limit("memory", 900.0, 100.0, sense="at most", unit="MiB")
    report.put(
        row_of(
            "regions",
            {"peer": contender(0.5, 1.0), "perpixel": contender(0.2, 2.5, peak_mb=900.0)},
            reference="peer",
            limits=[reached, missed],
        )
    )
    open_ = [limit("speed", None, 2.0, sense="at least")]
    report.put({**row_of("noise", {}, limits=open_), "failed": "needs a | package"})
    rates = Report(tmp_path / "roofline.json", "roofline", environment=ENVIRONMENT, rounds=3)
    rates.put(row_of("copy", {}, values={"GB/s": 12.5}))
    (tmp_path / "other.json").write_text(json.dumps({"seconds": 1}), encoding="utf-8")
    return tmp_path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words.yaml"
    file.write_text("metrics:\n  missed:\n    memory: it copies\n  notes: [beside other work]\n", encoding="utf-8")
    return file


def test_page_of_the_repository_is_what_its_command_would_write() -> None:
    wanted = performance_page(ROOT / "benchmarks/results", ROOT / "docs/performance.yaml")
    written = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert written == wanted, "docs/performance.md is not current: run perpixel bench page"


def test_page_shows_times_ratios_memory_and_whether_limits_are_reached(results: Path, words: Path) -> None:
    lines = performance_page(results, words).splitlines()
    assert "| regions | peer | 500 (500 to 500) | reference |  |" in lines
    assert "|  | perpixel | 200 (200 to 200) | 2.50 (2.50 to 2.50) | 900 |" in lines
    assert "| Metrics | regions | speed | 2.5 | at least 2 | reached |" in lines
    assert "| Metrics | regions | memory | 900 | at most 100 MiB | **missed** |" in lines
    assert "| Metrics | noise | speed | not measured | at least 2 | open |" in lines
    assert "- noise: needs a \\| package" in lines
    assert "| copy | 12.5 |" in lines


def test_page_holds_the_words_beside_the_results(results: Path, words: Path) -> None:
    lines = performance_page(results, words).splitlines()
    place = lines.index("Why a target is missed:")
    assert lines[place + 1] == "- memory: it copies"
    assert "- beside other work" in lines


def test_page_changes_when_a_result_changes(results: Path, words: Path) -> None:
    before = performance_page(results, words)
    file = results / "metrics.json"
    file.write_text(file.read_text(encoding="utf-8").replace("0.2", "0.3"), encoding="utf-8")
    assert performance_page(results, words) != before


def test_page_has_a_text_for_every_benchmark() -> None:
    assert set(TEXTS) == {*SUBJECTS, "gpu"}


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no results; run `perpixel bench all` first"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[", "cannot be read"),
        ("metric: {}", "no benchmark 'metric'"),
        ("crf: {why: x}", "crf: unknown why; known: missed"),
    ],
)
def test_words_that_do_not_fit_are_refused(results: Path, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        performance_page(results, file)

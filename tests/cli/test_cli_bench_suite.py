"""``perpixel bench NAME``, ``all`` and ``page``: what they run, write and refuse."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Done

from perpixel.bench.results import Report, row_of
from perpixel.bench.subjects import RESULTS, SUBJECTS

Cli = Callable[..., Done]


def test_bench_name_measures_its_rows_and_writes_them(run_cli: Cli) -> None:
    done = run_cli("bench", "metrics", "--tiny", "--rounds", "2", "--only", "noise, uint8", "--json", "r/metrics.json")
    assert done.code == 0, done.err
    report = json.loads(Path("r/metrics.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["rows"]] == ["noise, uint8"]
    row = report["rows"][0]
    assert set(row["contenders"]) == {"torchmetrics", "perpixel"}
    assert len(row["contenders"]["perpixel"]["rounds_s"]) == 2
    assert report["limits"][0]["row"] == "noise, uint8"
    assert "noise, uint8" in done.out
    assert "results: r/metrics.json" in done.out


def test_bench_tiny_without_a_file_writes_nothing(run_cli: Cli) -> None:
    done = run_cli("bench", "metrics", "--tiny", "--only", "noise, uint8")
    assert done.code == 0, done.err
    assert not RESULTS.exists()
    assert "results: not written" in done.out


def test_bench_without_a_peer_says_what_installs_it_and_exits_1(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("perpixel.bench.packages.import_module", missing)
    done = run_cli("bench", "metrics", "--tiny", "--only", "noise, uint8")
    assert done.code == 1
    assert "FAILED, this comparison needs torchmetrics.classification, which cannot be imported" in done.out
    assert "`pip install torchmetrics`" in done.out
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(
    "tokens, message",
    [
        (["metric"], "unknown benchmark 'metric'; did you mean 'metrics'?"),
        (["metrics", "--only", "nise, uint8"], "no row 'nise, uint8'; did you mean 'noise, uint8'?"),
        (["metrics", "--rounds", "0"], "rounds must be at least 1, got 0"),
        (["metrics", "--json", "folder"], "--json folder is a folder; give a file name"),
        (["page", "--results", "folder", "--words", "words.yaml"], "folder holds no results; run `perpixel bench all`"),
    ],
)
def test_bench_refuses_mistakes(run_cli: Cli, tokens: list[str], message: str) -> None:
    Path("folder").mkdir()
    Path("words.yaml").write_text("", encoding="utf-8")
    done = run_cli("bench", *tokens)
    assert done.code == 2
    assert message in done.err


def test_bench_all_runs_every_benchmark_in_a_process_and_names_those_that_fail(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, int("crf" in command))

    monkeypatch.setattr(subprocess, "run", run)
    done = run_cli("bench", "all", "--rounds", "3", "--json", "r", "--crf-python", "other")
    assert done.code == 1
    assert [command[1] for command in commands] == list(SUBJECTS)
    assert commands[0][2:] == ["--json", "r/startup.json", "--rounds", "3", "--crf-python", "other"]
    assert "not everything could be measured: crf" in done.out


def test_bench_page_writes_the_page_and_sees_when_it_is_stale(run_cli: Cli) -> None:
    environment = {"device": "d", "threads": 1, "date": "today", "python": "3", "versions": {}}
    report = Report(Path("r/metrics.json"), "metrics", environment=environment, rounds=1)
    report.put(row_of("one", {}, values={"n": 1}))
    Path("words.yaml").write_text("", encoding="utf-8")
    tokens = ("bench", "page", "--results", "r", "--words", "words.yaml", "--out", "page.md")
    assert run_cli(*tokens).code == 0
    assert run_cli(*tokens, "--check").code == 0
    report.put(row_of("one", {}, values={"n": 2}))
    done = run_cli(*tokens, "--check")
    assert (done.code, "page.md is not current; run perpixel bench page" in done.out) == (1, True)

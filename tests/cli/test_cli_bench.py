"""``perpixel bench`` and ``perpixel bench lineage``."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Done

import perpixel.bench
from perpixel.bench import LineageSettings
from perpixel.build import RunResult
from perpixel.cli.bench import BENCHMARKS, lineage
from perpixel.errors import RunError

Cli = Callable[..., Done]

TWO = (
    "bench",
    "lineage",
    "--networks",
    "unet",
    "segnet_basic",
    "--seeds",
    "1",
    "--steps",
    "3",
    "--json",
    "r/rows.json",
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and smaller scenes, and no report of each run."""
    settings = partial(LineageSettings, batch_size=2, size=32, train_scenes=4, val_scenes=2)
    monkeypatch.setattr(perpixel.bench, "LineageSettings", settings)
    monkeypatch.setattr("perpixel.build.run_job.write_report", lambda run: run)


def test_bench_without_a_name_lists_the_benchmarks(run_cli: Cli) -> None:
    done = run_cli("bench")
    assert done.code == 0
    for name, summary in BENCHMARKS.items():
        line = next(line for line in done.out.splitlines() if line.startswith(f"{name} "))
        assert summary in line


def test_bench_list_loads_no_torch() -> None:
    code = "import sys; from perpixel.cli import main; assert main(['bench']) == 0; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_bench_of_an_unknown_name_exits_2_with_the_nearest(run_cli: Cli) -> None:
    done = run_cli("bench", "lineag")
    assert done.code == 2
    assert "unknown benchmark 'lineag'; did you mean 'lineage'?" in done.err


@pytest.mark.usefixtures("tiny")
def test_bench_lineage_measures_networks_and_goes_on_from_its_rows(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_cli(*TWO)
    assert done.code == 0, done.err
    rows = {row["key"]["network"]: row for row in json.loads(Path("r/rows.json").read_text(encoding="utf-8"))["rows"]}
    assert set(rows) == {"unet", "segnet_basic"}
    for row in rows.values():
        assert row["failed"] is None
        assert 0 <= row["mean_iou"] <= 1
        assert 0 <= row["interior_error"] <= 1
        assert 0 < row["boundary_error"] <= 1
        assert min(row["parameters"], row["macs"], row["ms_per_image"], row["seconds_per_step"], row["seconds"]) > 0
    table = Path("r/rows.md").read_text(encoding="utf-8")
    assert f"| {rows['unet']['parameters']:,} |" in table
    assert table.startswith("4 + 2 generated scenes of 32×32")
    assert "2/2  segnet_basic, seed 0: mean IoU" in done.out

    def never(*_: Any, **__: Any) -> None:
        raise RunError("it ran again")

    monkeypatch.setattr("perpixel.bench.lineage.train", never)
    again = run_cli(*TWO, "--out", "again.md")
    assert again.code == 0, again.err
    assert Path("again.md").read_text(encoding="utf-8") == table


@pytest.mark.usefixtures("tiny")
def test_bench_lineage_with_a_failed_network_says_why_and_exits_1(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: Any, **__: Any) -> None:
        raise RunError("the loss is [not] finite")

    monkeypatch.setattr("perpixel.bench.lineage.train", diverging)
    done = run_cli(*TWO)
    assert done.code == 1
    assert "1/2  unet, seed 0: failed, the loss is [not] finite" in done.out
    assert "- segnet_basic, seed 0: the loss is [not] finite" in Path("r/rows.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("tiny")
def test_bench_lineage_that_is_stopped_says_how_to_go_on(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> RunResult:
        return RunResult(folder=Path(), interrupted=True)

    monkeypatch.setattr("perpixel.bench.lineage.train", stopped)
    done = run_cli(*TWO)
    assert (done.code, done.err) == (130, "interrupted\n")
    assert "stopped; 0 rows are in r/rows.json, and the same command goes on from there" in done.out


@pytest.mark.parametrize(
    "tokens, message",
    [
        (["--networks", "unett"], "unknown network 'unett'; did you mean 'unet'?"),
        (["--json", "folder"], "--json folder: the benchmark goes on from a file"),
        (["--out", "folder"], "--out folder: the benchmark goes on from a file"),
        (["--json", "rows.md"], "--out rows.md is the file of the rows too"),
    ],
)
def test_bench_lineage_refuses_mistakes_before_the_work(run_cli: Cli, tokens: list[str], message: str) -> None:
    Path("folder").mkdir()
    done = run_cli("bench", "lineage", *tokens)
    assert (done.code, list(Path().iterdir())) == (2, [Path("folder")])
    assert message in done.err


def test_bench_lineage_table_that_cannot_be_written_says_so(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perpixel.bench, "run_lineage", lambda *_, **__: [])
    Path("file").write_text("", encoding="utf-8")
    done = run_cli("bench", "lineage", "--json", "rows.json", "--out", "file/table.md")
    assert done.code == 2
    assert "--out file/table.md: cannot be written" in done.err


def test_bench_lineage_takes_the_steps_that_the_settings_state() -> None:
    assert inspect.signature(lineage).parameters["steps"].default == LineageSettings().steps

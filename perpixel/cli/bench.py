"""``perpixel bench``: the benchmarks by name, all of them, ``lineage``, and the page made of the results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from perpixel.bench.subjects import RESULTS, SUBJECTS
from perpixel.cli.output import console_for, say
from perpixel.cli.progress import ProgressDisplay
from perpixel.errors import InvalidValue, RunError, nearest

if TYPE_CHECKING:
    from perpixel.bench.lineage_table import NetworkSummary
    from perpixel.bench.row_file import Row

__all__ = ["BENCHMARKS", "bench", "lineage", "page"]

ALL = "all"
BENCHMARKS = {
    **{name: subject.summary for name, subject in SUBJECTS.items()},
    "lineage": "All networks, small, on the same generated scenes with the same schedule: scores, errors and costs.",
}
"""Name → what it compares."""

_FAILED = 1
_PAGE = Path("docs/performance.md")
_WORDS = Path("docs/performance.yaml")

bench = App(name="bench", help="Runs a benchmark by name; without a name lists them.", help_epilogue="")


@bench.default
def benchmarks(
    name: str | None = None,
    /,
    *,
    rounds: int | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    json: Path | None = None,
    threads: int | None = None,
    crf_python: str | None = None,
    tiny: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Runs a benchmark, `all` of them one after the other, or, without a name, lists them.

    Contenders take turns in every round, so run them on a quiet machine. Results are written after every row; a row
    that cannot be measured says why, the others go on, and the exit code is 1.

    Args:
        name: A benchmark, or `all`, which leaves `lineage` out.
        rounds: Timed runs of each contender; without it what each benchmark states.
        only: Rows that are measured; those of an earlier run with the same settings stay in the file.
        json: File for the results; without it benchmarks/results/NAME.json. For `all`, the folder for them.
        threads: Threads of torch; without it as many as there are cores.
        crf_python: Python of an environment with pydensecrf and NumPy, for `crf`.
        tiny: Sizes that prove that everything runs and measure nothing; nothing is written unless --json is given.
    """
    if name is None:
        _list_benchmarks(console_for())
        return 0
    if name != ALL and name not in SUBJECTS:
        known = ", ".join([ALL, *BENCHMARKS])
        raise InvalidValue(f"unknown benchmark {name!r}{nearest(name, BENCHMARKS, end='.')} Known: {known}")
    if name == ALL:
        options = {"--rounds": rounds, "--threads": threads, "--crf-python": crf_python}
        return _run_all(json or RESULTS, options, tiny=tiny)
    from perpixel.bench import Request, run_subject

    console = console_for()
    path = json if json is not None or tiny else RESULTS / f"{name}.json"
    if path is not None and path.is_dir():
        raise RunError(f"--json {path} is a folder; give a file name")
    report = run_subject(
        name,
        Request(
            json=path,
            rounds=rounds,
            only=only,
            threads=threads,
            crf_python=crf_python,
            tiny=tiny,
            say=lambda text: say(console, text),
        ),
    )
    if report.left_out:
        count = len(report.left_out)
        say(console, f"rows of an earlier run with other settings or versions were left out: {count}", style="yellow")
    say(console, f"\nresults: {'not written' if path is None else path}")
    return _FAILED if report.failed else 0


@bench.command(usage="Usage: perpixel bench page [OPTIONS]")
def page(
    *,
    results: Path = RESULTS,
    words: Path = _WORDS,
    out: Path = _PAGE,
    check: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Writes docs/performance.md from the results.

    Args:
        results: Folder of the results.
        words: Why limits are missed, by benchmark (YAML).
        out: The page.
        check: Only says whether the page is current; the exit code is 1 when it is not.
    """
    from perpixel.bench.performance_page import performance_page

    console = console_for()
    wanted = performance_page(results, words)
    if not check:
        _write(out, wanted)
        say(console, f"page: {out}")
        return 0
    current = out.exists() and out.read_text(encoding="utf-8") == wanted
    say(console, f"{out} is current" if current else f"{out} is not current; run perpixel bench page")
    return 0 if current else _FAILED


@bench.command(usage="Usage: perpixel bench lineage [OPTIONS]")
def lineage(
    *,
    networks: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    seeds: int = 3,
    steps: int = 160,
    retry: Annotated[bool, Parameter(negative="")] = False,
    json: Path = Path("benchmarks/results/lineage.json"),
    out: Path | None = None,
) -> int:
    """All networks, small, on the same generated scenes with the same schedule: scores, errors and costs.

    Each run is stored when it ends; what is stored with the same settings is not run again, so the same command goes on
    where it was stopped. A network that fails is a row that says why. The exit code is 1 when any failed.

    Args:
        networks: Names of networks; without any all. `perpixel models` lists them.
        seeds: Runs of each network, with the seeds 0, 1, …
        steps: Training steps of every run, the same for all networks.
        retry: Runs again what failed.
        json: File that holds the rows.
        out: File for the table as Markdown; without it the name of --json with .md.
    """
    table_file = json.with_suffix(".md") if out is None else out
    _check_files(json, table_file)
    from perpixel.bench import LineageSettings, RowFile, caption, markdown_table, run_lineage, summarise_rows

    console = console_for()
    settings = LineageSettings(steps=steps)
    file = RowFile(json)
    with ProgressDisplay(console) as display:
        try:
            rows = run_lineage(
                file,
                settings,
                networks=networks,
                seeds=seeds,
                retry=retry,
                on_row=lambda row, done, total: display.say(_row_line(row, done, total)),
                on_progress=display.update,
            )
        except KeyboardInterrupt:
            display.say(f"stopped; {len(file.rows)} rows are in {json}, and the same command goes on from there")
            raise
    summaries = summarise_rows(rows)
    _print_table(console, summaries)
    _write(table_file, f"{caption(settings, rows)}\n\n{markdown_table(summaries)}")
    say(console, f"\nrows: {json}\ntable: {table_file}")
    return _FAILED if any(summary.failures for summary in summaries) else 0


def _list_benchmarks(console: Console) -> None:
    table = Table("name", "what it compares", box=None, pad_edge=False, header_style="bold")
    for name, summary in BENCHMARKS.items():
        table.add_row(name, summary)
    console.print(table)
    say(
        console,
        "\nRun one with: perpixel bench NAME; all but lineage with: perpixel bench all. perpixel bench --help shows "
        "the options, perpixel bench page writes docs/performance.md.",
    )


def _run_all(folder: Path, options: dict[str, str | int | None], *, tiny: bool) -> int:
    """Runs every benchmark in a process of its own, so that none feels another's threads and memory."""
    console = console_for()
    failed = []
    given = [part for option, value in options.items() if value is not None for part in (option, str(value))]
    for name, subject in SUBJECTS.items():
        say(console, f"\n== {name}, about {subject.minutes:g} minutes", style="bold")
        command = [sys.executable, "-m", "perpixel", "bench", name, "--json", str(folder / f"{name}.json"), *given]
        if subprocess.run([*command, *(["--tiny"] if tiny else [])], check=False).returncode:
            failed.append(name)
    if failed:
        say(console, f"\nnot everything could be measured: {', '.join(failed)}", style="red")
    return _FAILED if failed else 0


def _row_line(row: Row, done: int, total: int) -> str:
    title = f"{done}/{total}  {row['key']['network']}, seed {row['key']['seed']}"
    if row["failed"]:
        return f"{title}: failed, {row['failed']}"
    return f"{title}: mean IoU {100 * row['mean_iou']:.2f} %, {row['seconds']:.0f} s"


def _print_table(console: Console, summaries: list[NetworkSummary]) -> None:
    from perpixel.bench.lineage_table import COLUMNS, cells

    table = Table(COLUMNS[0], box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS[1:]:
        table.add_column(column, justify="right")
    for summary in summaries:
        table.add_row(*cells(summary))
    console.print()
    console.print(table)
    for summary in summaries:
        for failure in summary.failures:
            say(console, f"{summary.network}, {failure}", style="red")


def _check_files(rows: Path, table: Path) -> None:
    """Refuses before hours of work what could not be written after them."""
    for option, path in (("--json", rows), ("--out", table)):
        if path.is_dir() or str(path).startswith("-"):
            raise RunError(f"{option} {path}: the benchmark goes on from a file; give a file name")
    if rows.resolve() == table.resolve():
        raise RunError(f"--out {table} is the file of the rows too; give the table another name")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"--out {path}: cannot be written: {error.strerror}; give another file") from error

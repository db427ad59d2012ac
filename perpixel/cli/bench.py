"""``perpixel bench`` and ``perpixel bench lineage``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from perpixel.cli.output import console_for, say
from perpixel.cli.progress import ProgressDisplay
from perpixel.errors import InvalidValue, RunError, nearest

if TYPE_CHECKING:
    from perpixel.bench.lineage_table import NetworkSummary
    from perpixel.bench.row_file import Row

__all__ = ["BENCHMARKS", "bench", "lineage"]

BENCHMARKS = {
    "lineage": "All networks, small, on the same generated scenes with the same schedule: scores, errors and costs.",
}
"""Name → what it compares."""

_FAILED = 1

bench = App(name="bench", help="Runs a benchmark by name; without a name lists them.", help_epilogue="")


@bench.default
def benchmarks(name: str | None = None, /) -> None:
    """Lists the benchmarks.

    Args:
        name: A benchmark, which then shows its own options with --help.
    """
    if name is not None:
        known = ", ".join(BENCHMARKS)
        raise InvalidValue(f"unknown benchmark {name!r}{nearest(name, BENCHMARKS, end='.')} Known: {known}")
    console = console_for()
    table = Table("name", "what it compares", box=None, pad_edge=False, header_style="bold")
    for name, summary in BENCHMARKS.items():
        table.add_row(name, summary)
    console.print(table)
    say(console, "\nRun one with: perpixel bench NAME; perpixel bench NAME --help shows its options.")


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

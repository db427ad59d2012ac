"""Rows of the lineage benchmark → one line per network, as values and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perpixel.bench.lineage import LineageSettings
from perpixel.bench.row_file import Row

__all__ = ["COLUMNS", "NetworkSummary", "Spread", "caption", "cells", "markdown_table", "summarise_rows"]

COLUMNS = (
    "network",
    "mean IoU, %",
    "boundary error, %",
    "interior error, %",
    "parameters",
    "MMACs",
    "ms per image",
    "ms per step",
    "s per run",
    "seeds",
)
_LONGEST_REASON = 160


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation over the seeds; the deviation of one seed is None."""

    mean: float
    deviation: float | None

    def per_cent(self) -> str:
        """Writes fractions as percentages: ``61.20 ± 0.45``."""
        deviation = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f}{deviation}"


@dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """One network over its seeds; what no seed reached is None."""

    network: str
    seeds: int
    """Runs that ended well."""
    mean_iou: Spread | None = None
    boundary_error: Spread | None = None
    """Wrong pixels among those near a true border."""
    interior_error: Spread | None = None
    """Wrong pixels among all others."""
    parameters: int | None = None
    macs: int | None = None
    ms_per_image: float | None = None
    """Median over the seeds of the median over images."""
    ms_per_step: float | None = None
    seconds: float | None = None
    """Longest run: training, scoring and report."""
    failures: tuple[str, ...] = ()
    """``seed 1: why``."""


def summarise_rows(rows: Iterable[Row]) -> list[NetworkSummary]:
    """Returns one summary per network, the highest mean IoU first and those without one last."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["key"]["network"], []).append(row)
    found = [_summary(name, group) for name, group in grouped.items()]
    return sorted(found, key=lambda s: (s.mean_iou is None, -(s.mean_iou.mean if s.mean_iou else 0.0), s.network))


def cells(summary: NetworkSummary) -> list[str]:
    """Returns the text of a line, in the order of `COLUMNS`."""
    spreads = [summary.mean_iou, summary.boundary_error, summary.interior_error]
    shown = [summary.network, *("" if spread is None else spread.per_cent() for spread in spreads)]
    shown.append("" if summary.parameters is None else f"{summary.parameters:,}")
    shown.append("" if summary.macs is None else f"{summary.macs / 1e6:,.1f}")
    shown += ["" if value is None else f"{value:.1f}" for value in (summary.ms_per_image, summary.ms_per_step)]
    shown.append("" if summary.seconds is None else f"{summary.seconds:.0f}")
    failed = f", {len(summary.failures)} failed" if summary.failures else ""
    return [*shown, f"{summary.seeds}{failed}"]


def caption(settings: LineageSettings, rows: Sequence[Row]) -> str:
    """Returns what the numbers are, in words: data, schedule, columns, and where they were measured."""
    size = f"{settings.size}×{settings.size}"
    machines = {f"{row['machine']} (threads: {row['threads']}, torch {row['torch']})" for row in rows}
    return (
        f"{settings.train_scenes} + {settings.val_scenes} generated scenes of {size}, both knobs at "
        f"{settings.knobs:g}; {settings.steps} steps of {settings.batch_size} whole scenes, mirrored at random, by "
        f"each network's published loss, AdamW from {settings.lr:g} down by poly decay (0.9), float32; mean ± standard "
        f"deviation over the seeds. Boundary error: wrong pixels among those within {settings.border_width_px} px of a "
        f"true border; interior error: among all others. MACs and ms per image: one scene of {size} alone, with the "
        f"margin and padding that the network needs. Machine: {'; '.join(sorted(machines))}."
    )


def markdown_table(summaries: Sequence[NetworkSummary]) -> str:
    """Returns the table for docs/results.md, the failures in words below it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(cells(summary)) + " |" for summary in summaries]
    failures = [f"- {summary.network}, {_short(text)}" for summary in summaries for text in summary.failures]
    return "\n".join([*lines, *(["", "Failed:", *failures] if failures else [])]) + "\n"


def _summary(name: str, rows: Sequence[Row]) -> NetworkSummary:
    failures = tuple(f"seed {row['key']['seed']}: {row['failed']}" for row in rows if row["failed"])
    good = [row for row in rows if not row["failed"]]
    if not good:
        return NetworkSummary(network=name, seeds=0, failures=failures)
    steps = [1e3 * row["seconds_per_step"] for row in good if row["seconds_per_step"] is not None]
    return NetworkSummary(
        network=name,
        seeds=len(good),
        mean_iou=_spread([row["mean_iou"] for row in good]),
        boundary_error=_spread([row["boundary_error"] for row in good]),
        interior_error=_spread([row["interior_error"] for row in good]),
        parameters=good[0]["parameters"],
        macs=good[0]["macs"],
        ms_per_image=statistics.median(row["ms_per_image"] for row in good),
        ms_per_step=statistics.median(steps) if steps else None,
        seconds=max(row["seconds"] for row in good),
        failures=failures,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=statistics.mean(values), deviation=statistics.stdev(values) if len(values) > 1 else None)


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"

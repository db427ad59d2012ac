"""What a benchmark is asked to do, and how it says what it finds; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpixel.errors import InvalidValue, nearest

if TYPE_CHECKING:
    from perpixel.bench.results import Row

__all__ = ["Request", "line_of"]


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options that all benchmarks share.

    Raises:
        InvalidValue: a number is not positive.
    """

    json: Path | None = None
    """File of the results; None keeps them in memory."""
    rounds: int | None = None
    """Timed runs of each contender; None: what the benchmark states."""
    only: tuple[str, ...] = ()
    """Rows that are measured; empty: all."""
    threads: int | None = None
    """None: as many as torch takes by itself."""
    device: str = "cpu"
    crf_python: str | None = None
    """Python of an environment with pydensecrf."""
    tiny: bool = False
    """Sizes that prove that a benchmark runs and measure nothing."""
    say: Callable[[str], None] = _silent

    def __post_init__(self) -> None:
        for name in ("rounds", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidValue(f"{name} must be at least 1, got {value}")

    def rounds_or(self, usual: int) -> int:
        """Returns the rounds that were asked for, else the usual ones, else one where nothing is measured."""
        if self.rounds is not None:
            return self.rounds
        return 1 if self.tiny else usual

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Returns the rows that are asked for, in the benchmark's order.

        Raises:
            InvalidValue: ``only`` names one that is not there.
        """
        known = list(names)
        for name in self.only:
            if name not in known:
                raise InvalidValue(f"no row {name!r}{nearest(name, known, end='.')} Known: {', '.join(known)}")
        return [name for name in known if name in self.only or not self.only]

    def say_row(self, row: Row) -> None:
        """Says what was found."""
        for line in line_of(row):
            self.say(line)


def line_of(row: dict[str, Any]) -> list[str]:
    """Returns the lines of a row: what was measured of whom, then the limits."""
    told = f": FAILED, {row['failed']}" if row["failed"] else _values(row["values"])
    lines = [f"{row['name']}{told}"]
    for name, found in row["contenders"].items():
        lines.append(f"  {name:34s}{_times(found, name == row['reference'])}")
    for found in row["limits"]:
        value = "not measured" if found["value"] is None else f"{found['value']:.3g}"
        verdict = {True: "reached", False: "MISSED", None: "open"}[found["reached"]]
        bound = f"{found['sense']} {found['limit']:g} {found['unit']}".rstrip()
        lines.append(f"  {found['what']}: {value} (limit {bound}) {verdict}")
    return lines


def _values(values: dict[str, Any]) -> str:
    shown = [f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, int | float)]
    return f": {', '.join(shown)}" if shown else ""


def _times(found: dict[str, Any], is_reference: bool) -> str:
    text = ""
    if "median_s" in found:
        low, high = found["quartiles_s"]
        text += f"{1e3 * found['median_s']:10.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f})"
    if "times_as_fast" in found and not is_reference:
        ratio = found["times_as_fast"]
        low, high = ratio["per_round_quartiles"]
        text += f"  {ratio['per_round']:.2f} times as fast ({low:.2f} to {high:.2f})"
    if "peak_mb" in found:
        text += f"  {found['peak_mb']:.0f} MiB"
    return text

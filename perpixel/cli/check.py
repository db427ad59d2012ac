"""``perpixel check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from perpixel.cli.output import JsonFile, check_json_file, console_for, write_json
from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.run_request import resolve, sort_tokens
from perpixel.errors import InvalidValue

if TYPE_CHECKING:
    from perpixel.build.preflight_report import CheckResult

__all__ = ["check"]

_STYLES = {"failed": "bold red", "warning": "yellow", "not run": "dim"}
_FAILED = 1


def check(
    *tokens: Annotated[str, Parameter(name="WHAT")],
    recipe: str | None = None,
    data: str | None = None,
    labels: str | None = None,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    out: Path | None = None,
    seconds: float = 60,
    memory: str | None = None,
    json: JsonFile = None,
) -> int:
    """Tries a run for a minute on the CPU, on your own data, and lists what would fail.

    The whole data is read; every stage is trained for two steps, saved, resumed, scored and used for prediction, in a
    temporary folder that is removed; the memory and disk space of the real run are estimated. The exit code is 1 when
    something would fail.

    Args:
        tokens: CONFIG.yaml, or IMAGES MASKS; and overrides such as data.batch_size=4.
        recipe: Name of a recipe; `perpixel recipes` lists them.
        data: The data set, [format:]path: camvid:/d, voc:/d, or a folder with images/ and masks/.
        labels: The classes: a known label space, a YAML file or a number of classes.
        source: Model that the run is to start from (fine-tuning).
        out: Run folder that is planned; nothing is written there.
        seconds: What the check may take beside reading the data; batch and crop of the two steps follow it.
        memory: What training may take, such as 24GB, on this machine or another; without it, what is free here.
    """
    check_json_file(json)
    if not seconds > 0:
        raise InvalidValue(f"--seconds must be positive, got {seconds:g}")
    resolved = resolve(sort_tokens(tokens, recipe=recipe, data=data, labels=labels, source=source))
    from perpixel.build import preflight
    from perpixel.inference.memory import parse_bytes

    with ProgressDisplay(console_for(json)) as display:
        report = preflight(
            resolved.config,
            source=source,
            out=out,
            seconds=seconds,
            memory=None if memory is None else parse_bytes(memory),
            on_check=lambda found: _show(display, found),
            on_progress=display.update,
        )
        failed = [found.name for found in report.checks if found.status == "failed"]
        warned = sum(found.status == "warning" for found in report.checks)
        end = f"would fail: {', '.join(failed)}" if failed else "nothing that would fail was found"
        display.say(f"\n{end}; {warned} warnings, {report.seconds:.1f} s", style="bold red" if failed else "bold")
    write_json(json, report.to_dict())
    return _FAILED if report.failed else 0


def _show(display: ProgressDisplay, found: CheckResult) -> None:
    first, *others = found.found.splitlines() or [""]
    style = _STYLES.get(found.status)
    display.say(f"{found.status:8} {found.name} ({found.seconds:.1f} s): {first}", style=style)
    for line in others:
        display.say(f"         {line}", style=style)
    if found.way_out:
        display.say(f"         way out: {found.way_out}")

"""``perpixel demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perpixel.cli.output import JsonFile, check_json_file
from perpixel.cli.run_events import show_event, unless_unread, watch_run

__all__ = ["demo"]

_DEFAULT_OUT = Path("runs/demo")


def demo(
    *overrides: Annotated[str, Parameter(name="OVERRIDE")],
    out: Path = _DEFAULT_OUT,
    baseline: bool = True,
    json: JsonFile = None,
) -> int:
    """Generates street scenes, trains a small DFN on them, scores it, predicts and writes a report: no data needed.

    Args:
        overrides: Changes to recipe dfn_demo, such as steps=50.
        out: Run folder; an earlier demo there is replaced.
        baseline: Trains a plain FCN beside it, for the comparison in the report.
    """
    check_json_file(json)
    from perpixel.build import demo as run_demo

    return watch_run(
        json,
        out,
        lambda display: run_demo(
            out,
            overrides=overrides,
            baseline=baseline,
            on_event=unless_unread(lambda event: show_event(display, event)),
            on_progress=unless_unread(display.update),
        ),
    )

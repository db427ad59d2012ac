"""``perpixel demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perpixel.cli.failures import INTERRUPTED
from perpixel.cli.output import JsonFile, check_json_file, console_for, write_json
from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.run_events import finish_run, print_interruption, result_json, show_event

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

    console = console_for(json)
    try:
        with ProgressDisplay(console) as display:
            result = run_demo(
                out,
                overrides=overrides,
                baseline=baseline,
                on_event=lambda event: show_event(display, event),
                on_progress=display.update,
            )
    except KeyboardInterrupt:
        print_interruption(console, out)
        return INTERRUPTED
    code = finish_run(console, result)
    write_json(json, result_json(result))
    return code

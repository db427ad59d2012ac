"""The benchmark suite: comparisons that are run by name, row by row, and go on where they were stopped.

Names are imported when they are used: most benchmarks, and those for a bare GPU machine, need no part of the command
line or of configurations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perpixel.lazy_names import lazy_names

if TYPE_CHECKING:
    from perpixel.bench.contest import Contender, Contest, Ratio
    from perpixel.bench.lineage import LineageSettings, run_lineage
    from perpixel.bench.lineage_table import NetworkSummary, caption, markdown_table, summarise_rows
    from perpixel.bench.request import Request
    from perpixel.bench.results import Report, read_report
    from perpixel.bench.row_file import RowFile
    from perpixel.bench.subjects import SUBJECTS, run_subject

__all__ = [
    "SUBJECTS",
    "Contender",
    "Contest",
    "LineageSettings",
    "NetworkSummary",
    "Ratio",
    "Report",
    "Request",
    "RowFile",
    "caption",
    "markdown_table",
    "read_report",
    "run_lineage",
    "run_subject",
    "summarise_rows",
]

_HOME = {
    "SUBJECTS": "subjects",
    "Contender": "contest",
    "Contest": "contest",
    "LineageSettings": "lineage",
    "NetworkSummary": "lineage_table",
    "Ratio": "contest",
    "Report": "results",
    "Request": "request",
    "RowFile": "row_file",
    "caption": "lineage_table",
    "markdown_table": "lineage_table",
    "read_report": "results",
    "run_lineage": "lineage",
    "run_subject": "subjects",
    "summarise_rows": "lineage_table",
}

__getattr__ = lazy_names(__name__, _HOME, globals())

"""The benchmark suite: comparisons that are run by name, row by row, and go on where they were stopped."""

from perpixel.bench.lineage import LineageSettings, run_lineage
from perpixel.bench.lineage_table import NetworkSummary, caption, markdown_table, summarise_rows
from perpixel.bench.row_file import RowFile

__all__ = [
    "LineageSettings",
    "NetworkSummary",
    "RowFile",
    "caption",
    "markdown_table",
    "run_lineage",
    "summarise_rows",
]

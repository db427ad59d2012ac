"""The table of kinds: complete, worded, and in the documentation word by word."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.finding import finding, in_order
from perpixel.data.inspection.kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "data_check.md"


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_stand_in_the_documentation(kind: str) -> None:
    known = KINDS[kind]
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{kind}` |"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == list(known)


def test_finding_unknown_kind_is_a_bug() -> None:
    with pytest.raises(KeyError, match="strange"):
        finding("strange", [], "")


def test_in_order_puts_errors_first_and_keeps_the_order_of_the_table() -> None:
    kinds = ("encoding", "same_mask", "jpeg_mask", "missing_mask")
    found = in_order([finding(kind, ["a"], "") for kind in kinds])
    assert [one.kind for one in found] == ["missing_mask", "jpeg_mask", "same_mask", "encoding"]


def test_collector_counts_cases_and_lists_every_file_once() -> None:
    found = Collector()
    for name in "abcde":
        found.add("same_mask", [f"{name}.png", "x.png"], f"{name} is x")
    one = found.findings()[0]
    assert one.count == 5
    assert one.files == ("a.png", "x.png", "b.png", "c.png", "d.png", "e.png")
    assert one.message.endswith("5 (a is x; b is x; c is x; and 2 more)")


def test_collector_refusal_of_a_named_file_makes_its_finding_an_error() -> None:
    found = Collector()
    found.add("spare_mask", "masks/a.png")
    found.explain("images/a.jpg is missing")
    assert [(one.kind, one.severity) for one in found.findings()] == [("spare_mask", "error")]


def test_collector_refusal_that_nothing_explains_is_a_finding() -> None:
    found = Collector()
    found.add("spare_mask", "masks/a.png")
    found.explain("the list is empty")
    assert {(one.kind, one.severity) for one in found.findings()} == {("spare_mask", "warning"), ("layout", "error")}

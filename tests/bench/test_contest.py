"""Contests: who runs when, and what ratios and spreads say."""

from __future__ import annotations

import itertools

import pytest

from perpixel.bench.contest import Contender, Contest, contest, quartiles, summary
from perpixel.errors import InvalidValue


def contender(name: str, ran: list[str]) -> Contender:
    return Contender(name=name, prepare=lambda: name, run=ran.append)


def test_contest_runs_contenders_in_alternating_order_after_the_warm_up() -> None:
    ran: list[str] = []
    found = contest([contender("a", ran), contender("b", ran)], rounds=3)
    assert "".join(ran) == "ab" + "ba" + "ab" + "ba"
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == {"a": 3, "b": 3}


def test_contest_divides_by_the_calls_and_reads_the_clock_behind_the_device() -> None:
    waited: list[str] = []
    ticks = itertools.count(step=10.0)
    found = contest(
        [contender("a", waited)],
        rounds=2,
        warmup=0,
        calls=5,
        sync=lambda: waited.append("wait"),
        clock=lambda: next(ticks),
    )
    assert found.seconds == {"a": [2.0, 2.0]}
    assert waited == ["wait", *"aaaaa", "wait"] * 2


def test_contest_over_its_budget_ends_after_three_rounds() -> None:
    found = contest([contender("a", [])], rounds=50, budget_s=0.0)
    assert len(found.seconds["a"]) == 3


def test_contest_prepares_each_contender_once() -> None:
    prepared: list[int] = []
    made = Contender(name="a", prepare=lambda: prepared.append(1), run=lambda _: None)
    contest([made], rounds=4)
    assert prepared == [1]


def test_ratio_above_one_is_faster_than_the_reference() -> None:
    found = Contest({"peer": [4.0, 6.0, 8.0], "ours": [2.0, 2.0, 8.0]})
    ratio = found.ratio("ours", "peer")
    assert ratio.of_medians == 3.0
    assert ratio.of_fastest == 2.0
    assert ratio.per_round == 2.0
    assert ratio.per_round_quartiles == (1.5, 2.5)
    assert found.rows("peer")["peer"]["times_as_fast"]["per_round"] == 1.0


def test_summary_keeps_every_round_beside_median_fastest_and_quartiles() -> None:
    assert summary([3.0, 1.0, 2.0]) == {
        "median_s": 2.0,
        "fastest_s": 1.0,
        "quartiles_s": [1.5, 2.5],
        "rounds_s": [3.0, 1.0, 2.0],
    }
    assert quartiles([5.0]) == (5.0, 5.0)


@pytest.mark.parametrize(
    "names, numbers",
    [("", {}), ("aa", {}), ("a", {"rounds": 0}), ("a", {"calls": 0}), ("a", {"warmup": -1})],
)
def test_contest_without_sense_is_refused(names: str, numbers: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match=r"contenders need different names|rounds and calls are at least 1"):
        contest([contender(name, []) for name in names], **{"rounds": 1, **numbers})

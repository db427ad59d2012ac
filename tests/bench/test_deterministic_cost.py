"""What deterministic mode costs: both modes are timed, and the process keeps the one that it was in."""

from __future__ import annotations

import torch

from perpixel.bench.deterministic_cost import DETERMINISTIC, USUAL, deterministic_cost


def test_deterministic_cost_times_both_modes_in_turns_and_restores_the_mode() -> None:
    seen = []
    cost = deterministic_cost(lambda: seen.append(torch.are_deterministic_algorithms_enabled()), "cpu", rounds=3)
    assert set(seen) == {False, True}
    assert {name: len(values) for name, values in cost.seconds.items()} == {USUAL: 3, DETERMINISTIC: 3}
    assert cost.ratio(USUAL, DETERMINISTIC).of_medians > 0
    assert not torch.are_deterministic_algorithms_enabled()

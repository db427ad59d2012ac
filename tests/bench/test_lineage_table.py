"""Rows → one line per network."""

from __future__ import annotations

from typing import Any

import pytest

from perpixel.bench import LineageSettings, caption, markdown_table, summarise_rows


def row(network: str, seed: int, mean_iou: float, **changes: Any) -> dict[str, Any]:
    return {
        "key": {"network": network, "seed": seed},
        "failed": None,
        "mean_iou": mean_iou,
        "boundary_error": 0.25,
        "interior_error": 0.05,
        "parameters": 1234567,
        "macs": 8_910_000,
        "ms_per_image": 3.0 + seed,
        "seconds_per_step": 0.125,
        "seconds": 40.0 + seed,
        **changes,
    }


def failed(network: str, seed: int, reason: str) -> dict[str, Any]:
    return {"key": {"network": network, "seed": seed}, "failed": reason, "seconds": 1.0, "seconds_per_step": None}


def test_summary_of_three_seeds_is_mean_deviation_median_and_longest() -> None:
    (summary,) = summarise_rows([row("fcn", seed, value) for seed, value in enumerate((0.4, 0.5, 0.6))])
    assert summary.mean_iou is not None
    assert summary.mean_iou.mean == pytest.approx(0.5)
    assert summary.mean_iou.deviation == pytest.approx(0.1)
    assert (summary.seeds, summary.parameters, summary.macs) == (3, 1234567, 8_910_000)
    assert (summary.ms_per_image, summary.ms_per_step, summary.seconds) == (4.0, 125.0, 42.0)


def test_summaries_put_the_best_first_and_those_without_a_score_last() -> None:
    rows = [failed("pspnet", 0, "diverged"), row("fcn", 0, 0.3), row("dfn", 0, 0.7), row("gcn", 0, 0.3)]
    assert [summary.network for summary in summarise_rows(rows)] == ["dfn", "fcn", "gcn", "pspnet"]


def test_markdown_table_holds_percentages_and_counts() -> None:
    text = markdown_table(summarise_rows([row("fcn", 0, 0.5), row("fcn", 1, 0.6)]))
    head, rule, line = text.splitlines()
    assert head.startswith("| network | mean IoU, % | boundary error, %")
    assert rule.count("|") == head.count("|") == line.count("|")
    assert line == ("| fcn | 55.00 ± 7.07 | 25.00 ± 0.00 | 5.00 ± 0.00 | 1,234,567 | 8.9 | 3.5 | 125.0 | 41 | 2 |")


def test_caption_states_data_schedule_width_and_every_machine() -> None:
    machine = {"machine": "x86_64, 2 cores", "torch": "2.14.1"}
    rows = [row("fcn", seed, 0.5, threads=threads, **machine) for seed, threads in enumerate((2, 2, 1))]
    text = caption(LineageSettings(steps=7, size=64, knobs=0.5, border_width_px=4), rows)
    assert "scenes of 64×64, both knobs at 0.5; 7 steps of 4 whole scenes" in text
    assert "within 4 px of a true border" in text
    both = [f"x86_64, 2 cores (threads: {threads}, torch 2.14.1)" for threads in (1, 2)]
    assert text.endswith(f"Machine: {'; '.join(both)}.")


def test_markdown_table_of_one_seed_shows_no_deviation() -> None:
    assert "| fcn | 50.00 | 25.00 |" in markdown_table(summarise_rows([row("fcn", 0, 0.5)]))


def test_markdown_table_of_a_single_step_leaves_the_time_per_step_empty() -> None:
    text = markdown_table(summarise_rows([row("fcn", 0, 0.5, seconds_per_step=None)]))
    assert "| 3.0 |  | 40 | 1 |" in text


def test_markdown_table_names_failures_in_one_short_line_each() -> None:
    rows = [failed("pspnet", 0, "loss | is\nnot finite"), row("fcn", 0, 0.5), failed("fcn", 1, "x" * 500)]
    text = markdown_table(summarise_rows(rows))
    assert "| pspnet |  |  |  |  |  |  |  |  | 0, 1 failed |" in text
    assert "| 40 | 1, 1 failed |" in text
    assert "- pspnet, seed 0: loss \\| is not finite" in text
    assert max(map(len, text.splitlines())) < 200

"""Peaks of processes of their own see what a contender holds, and nothing of what came before."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from perpixel.bench import fresh_process, process_memory
from perpixel.bench.contest import Contender
from perpixel.bench.fresh_process import held_by, peaks_in_fresh_processes
from perpixel.errors import RunError

MEBI = process_memory.MEBI
HELD = 64


def contenders(spec: Mapping[str, Any]) -> list[Contender]:
    """What the measured process asks this module for."""
    return [
        Contender(name="lean", prepare=lambda: None, run=lambda _: None),
        Contender(
            name="greedy", prepare=lambda: None, run=lambda _: torch.ones(spec["mb"] * MEBI // 4).sum(), warm=idle
        ),
    ]


def idle(_: object) -> None:
    return None


def test_peak_of_a_fresh_process_is_what_its_contender_holds() -> None:
    names = ["greedy", "lean"]
    found = peaks_in_fresh_processes(__name__, {"mb": HELD}, names, above="run", threads=1)
    assert list(found) == names
    assert HELD <= found["greedy"]["peak_mb"] < HELD + 16
    assert found["lean"]["peak_mb"] < 16
    assert found["lean"]["peak_mb_runs"] == [found["lean"]["peak_mb"]]


def test_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nZeroDivisionError: division by zero\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RunError, match=r"ended with 1: ZeroDivisionError: division by zero"):
        peaks_in_fresh_processes(__name__, {}, ["broken"], above="run", threads=1)


def test_forked_contender_that_fails_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fresh_process._forked(lambda: 1 / 0)
    assert "ZeroDivisionError: division by zero" in capfd.readouterr().err


def test_peak_above_prepare_counts_what_was_built() -> None:
    built = Contender(name="a", prepare=lambda: torch.ones(HELD * MEBI // 4), run=lambda state: state.sum())
    assert held_by(built, "prepare") >= HELD - 8
    assert held_by(built, "run") < HELD / 2

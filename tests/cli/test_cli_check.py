"""``perpixel check``: what it prints, what it returns, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Done

from perpixel.build import CheckResult, PreflightReport

OK = CheckResult(name="data", status="ok", found="5 train images", seconds=0.25, values={"images": 5})
BAD = CheckResult(name="memory", status="failed", found="too much\nof it", way_out="smaller crops")
LATER = CheckResult(name="resume", status="not run", found="needs two steps of training")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the check; returns what it was asked."""
    calls: list[dict[str, Any]] = []

    def fake(config: Any, *, on_check: Callable[[CheckResult], None], **given: Any) -> PreflightReport:
        calls.append({"config": config, **given})
        checks = (OK,) if given["seconds"] == 1 else (OK, BAD, LATER)
        for found in checks:
            on_check(found)
        return PreflightReport(checks=checks, seconds=2.5)

    monkeypatch.setattr("perpixel.build.preflight", fake)
    return calls


def test_check_that_fails_returns_1_and_says_the_way_out(
    run_cli: Callable[..., Done], asked: list[dict[str, Any]]
) -> None:
    done = run_cli("check", "--recipe", "dfn_demo", "--from", "model", "--out", "runs/x", "steps=7")
    assert done.code == 1
    assert "failed   memory" in done.out
    assert "way out: smaller crops" in done.out
    assert "not run  resume" in done.out
    assert "would fail: memory; 0 warnings, 2.5 s" in done.out
    assert asked[0]["config"].stages[0].steps == 7
    assert (asked[0]["source"], asked[0]["out"], asked[0]["seconds"]) == (Path("model"), Path("runs/x"), 60)


@pytest.mark.usefixtures("asked")
def test_check_json_holds_every_check(run_cli: Callable[..., Done]) -> None:
    done = run_cli("check", "--recipe", "dfn_demo", "--seconds", "1", "--json", "-")
    assert done.code == 0
    assert "nothing that would fail was found" in done.err
    assert done.json["failed"] is False
    assert done.json["checks"][0] == {
        "name": "data",
        "status": "ok",
        "found": "5 train images",
        "way_out": "",
        "seconds": 0.25,
        "values": {"images": 5},
    }


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("--recipe", "dfn_demo", "--seconds", "0"), "--seconds must be positive, got 0"),
        ((), "nothing says what to run"),
    ],
)
def test_check_wrong_request_is_refused(run_cli: Callable[..., Done], tokens: tuple[str, ...], message: str) -> None:
    done = run_cli("check", *tokens)
    assert done.code == 2
    assert message in done.err

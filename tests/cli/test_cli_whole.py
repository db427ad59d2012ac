"""The commands one after the other on generated scenes, nothing replaced: train, evaluate, predict, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cli_fakes import Done

Cli = Callable[..., Done]

TINY = (
    "steps=2",
    "schedule.warmup_steps=0",
    "threads=1",
    "data.batch_size=2",
    "data.crop_size=[64, 64]",
    "data.scenes.train=3",
    "data.scenes.val=2",
    "data.scenes.height=64",
    "data.scenes.width=64",
    "device=cpu",
    "precision=fp32",
)


def test_commands_from_training_to_report_work_together(run_cli: Cli) -> None:
    trained = run_cli("train", "--recipe", "dfn_demo", *TINY, "--out", "r", "--json", "t.json")
    assert trained.code == 0, trained.err
    assert "labels: 9 classes" in trained.out
    assert "everything is in r" in trained.out
    scores = json.loads(Path("t.json").read_text())["scores"]

    scored = run_cli("evaluate", "r/best", "--data", "r/scenes", "--device", "cpu", "--json", "-")
    assert scored.code == 0, scored.err
    assert scored.json["confusion"] == scores["confusion"]

    predicted = run_cli("predict", "r/best", "r/scenes/val/images", "--out", "p", "--device", "cpu", "--no-overlays")
    assert predicted.code == 0, predicted.err
    masks = ("--predictions", "p", "--targets", "r/scenes/val/masks", "--labels", "r/scenes/labels.yaml")
    assert run_cli("evaluate", *masks, "--json", "-").json["images"] == 2

    assert run_cli("config", "show", "r/config.yaml").out == Path("r/config.yaml").read_text()
    Path("r/report.html").unlink()
    assert run_cli("report", "r").out == "report: r/report.html\n"
    assert Path("r/report.html").stat().st_size > 10_000

    again = run_cli("train", "--recipe", "dfn_demo", *TINY, "--out", "r")
    assert again.code == 2
    assert "run folder r is not empty" in again.err

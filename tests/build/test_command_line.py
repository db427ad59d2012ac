"""The main job through the real command line, nothing replaced: train, evaluate, predict, go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import Interrupt, decisions, same_weights, small_config, weights

from perpixel.build import RunResult, train
from perpixel.cli import main

QUICK = ("steps=2", "model.backbone.name=test_resnet", "model.options.width=8", "data.crop_size=[32,32]")
ALIKE = ("data.batch_size=2", "data.workers=0", "device=cpu", "precision=fp32", "evaluation.every=1")


def run(*tokens: object) -> int:
    return main([str(token) for token in tokens])


def test_train_evaluate_predict_by_the_command_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    folders = (data / "train" / "images", data / "train" / "masks")
    assert run("train", *folders, "--labels", data / "labels.yaml", "--out", out, *QUICK, *ALIKE) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "the data has none: made with seed 0" in " ".join(printed.out.split())
    assert (out / "report.html").is_file()
    assert decisions(out)["labels"].startswith("3 classes: asked for")

    assert run("evaluate", out, "--data", data, "--device", "cpu", "--json", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["images"], scores["split"]) == (3, "val")

    masks = tmp_path / "masks"
    assert run("predict", out, data / "val" / "images", "--out", masks, "--device", "cpu", "--precision", "fp32") == 0
    assert len((masks / "predictions.jsonl").read_text().splitlines()) == 3

    found = ("--predictions", masks, "--targets", data / "val" / "masks", "--labels", data / "labels.yaml")
    assert run("evaluate", *found, "--json", tmp_path / "saved.json") == 0
    assert json.loads((tmp_path / "saved.json").read_text())["confusion"] == scores["confusion"]

    assert run("report", out) == 0


def test_resume_by_the_command_line_needs_only_the_folder(trained: RunResult, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small_config(data), out=folder, on_progress=Interrupt(3))
    assert run("train", "--resume", folder) == 0
    assert same_weights(weights(folder), weights(trained.folder))
    assert (folder / "report.html").is_file()


def test_predict_by_the_command_line_lists_what_it_could_not_read_in_the_json(
    trained: RunResult, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    inputs = (tmp_path / "broken.png", data / "val" / "images")
    out = ("--out", tmp_path / "out", "--json", tmp_path / "p.json", "--device", "cpu", "--no-overlays")
    assert run("predict", trained.folder, *inputs, *out) == 2
    found = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert found["images"] == 3
    assert [failure["image"] for failure in found["failures"]] == [str(tmp_path / "broken.png")]
    assert "1 of 4 images could not be predicted" in capsys.readouterr().err

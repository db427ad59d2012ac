"""demo(): the main job without data, as small as it goes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perpixel.build import demo
from perpixel.errors import RunError

TINY = [
    "data.scenes.train=4",
    "data.scenes.val=2",
    "data.scenes.height=32",
    "data.scenes.width=48",
    "data.crop_size=[32, 32]",
    "data.batch_size=2",
    "data.allow_absent_classes=true",
    "data.workers=0",
    "steps=2",
    "model.backbone.name=test_resnet",
    "model.options.width=8",
    "evaluation.every=1",
    "device=cpu",
    "precision=fp32",
]


def test_demo_trains_a_dfn_and_an_fcn_beside_it(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    phases: list[str] = []
    result = demo(run, overrides=TINY, on_progress=lambda p: phases.append(p.phase))
    scores = json.loads((run / "metrics.json").read_text())
    assert scores == result.scores
    assert (scores["model"], scores["baseline"]["name"]) == ("dfn", "fcn")
    baseline = json.loads((run / "baseline-fcn" / "metrics.json").read_text())
    assert baseline["model"] == "fcn"
    assert scores["baseline"]["mean_iou"] == baseline["mean_iou"]
    assert scores["pixels"] == baseline["pixels"]
    assert len(list((run / "scenes" / "train" / "images").iterdir())) == 4
    assert not (run / "baseline-fcn" / "scenes").exists()
    assert "fcn" in (run / "report.html").read_text(encoding="utf-8")
    assert {"train", "evaluate", "final evaluation"} <= set(phases)
    assert result.steps == 2
    assert {"boundary", "intervals", "region_sizes", "calibration"} <= set(scores)
    with np.load(run / "predictions" / "counts.npz", allow_pickle=False) as arrays:
        assert arrays["counts"].shape[:1] == arrays["names"].shape == (2,)
        assert arrays["counts"][..., 1].sum() == scores["pixels"]
    assert "cannot be told from chance between these 2 images" in (run / "report.html").read_text(encoding="utf-8")

    again = demo(run, overrides=[*TINY, "steps=1"], baseline=False)
    assert again.steps == 1
    assert "baseline" not in json.loads((run / "metrics.json").read_text())


def test_demo_does_not_replace_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="does not look like a run folder"):
        demo(tmp_path, overrides=TINY)
    assert (tmp_path / "thesis.tex").read_text() == "precious"

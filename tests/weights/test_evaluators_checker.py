"""Vectors of published evaluators: what is compared, and what is not there to compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perpixel.inference import Segmenter
from perpixel.inference.published_protocols import TorchSeg
from perpixel.labels import LabelSpace
from perpixel.weights import verify
from perpixel.weights.checkers.evaluators import _ToyNetwork

PARAMETERS = {"torchseg": {"crop": {"ss,msf": 6, "*_small": 12}, "scales": "ss [1]; msf [0.5,2]"}}


def written(folder: Path, **arrays: Any) -> Path:
    rng = np.random.default_rng(0)
    given = {
        "conv_w": rng.normal(size=(4, 3, 3, 3)),
        "conv_b": rng.normal(size=4),
        "image": rng.integers(0, 256, (8, 10, 3)).astype(np.uint8),
    }
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"kind": "evaluators", "parameters": PARAMETERS}))
    np.savez(folder / "expected.npz", **given, **arrays)
    return folder


def torchseg(folder: Path, **settings: Any) -> np.ndarray:
    with np.load(folder / "expected.npz") as stored:
        network = _ToyNetwork(torch.from_numpy(stored["conv_w"]), torch.from_numpy(stored["conv_b"]))
        image = torch.from_numpy(stored["image"]).permute(2, 0, 1)[None]
    scores = TorchSeg(**settings)(Segmenter(network, LabelSpace.numbered(4)), image).logits
    return scores[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ss", {"crop": 6, "scales": (1.0,), "flip": False}),
        ("msf_small", {"crop": 12, "scales": (0.5, 2.0), "flip": True}),
    ],
)
def test_evaluators_settings_are_read_off_the_manifest(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    scores = torchseg(written(tmp_path / "plain"), **settings)
    arrays = {f"torchseg_{kind}_sum_s4": scores[::4, ::4], f"torchseg_{kind}_pred": scores.argmax(2).astype(np.uint8)}
    result = verify(written(tmp_path / "filled", **arrays))
    assert result.passed, result.summary()
    assert [row.name for row in result.rows] == list(arrays)


def test_evaluators_prediction_of_another_size_fails(tmp_path: Path) -> None:
    arrays = {"torchseg_ss_sum_s2": np.zeros((4, 5, 4)), "torchseg_ss_pred": np.zeros((8, 9), dtype=np.uint8)}
    result = verify(written(tmp_path / "v", **arrays))
    assert "torchseg_ss_pred: error inf > 5e-01 shape (8, 10), expected (8, 9)" in result.summary()


def test_evaluators_without_scores_are_skipped(tmp_path: Path) -> None:
    result = verify(written(tmp_path / "v"))
    assert result.status == "skipped"
    assert result.skipped == "it stores no scores of torchseg, semseg or encoding"


def test_evaluators_of_another_code_base_fail_with_its_name(tmp_path: Path) -> None:
    result = verify(written(tmp_path / "v", mmseg_ss_sum_s2=np.zeros((4, 5, 4))))
    assert result.failed
    assert "mmseg_ss: no evaluator of a code base 'mmseg'" in result.summary()

"""Checks the named protocols against the published evaluators on a toy network whose scores depend on every crop.

Score maps are stored thinned by two in both directions, predictions whole; a map that spans many orders of magnitude is
stored as logarithms too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import CheckpointError
from perpixel.inference.procedures import Procedure
from perpixel.inference.published_protocols import Encoding, Semseg, TorchSeg
from perpixel.inference.segmenter import Segmenter
from perpixel.labels import LabelSpace
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.scores import scores
from perpixel.types import Preprocessing, SegOutput
from perpixel.weights.checkers.vector import Row, Skipped, Vector

__all__ = ["SCORE_TOLERANCE", "check_evaluators"]

SCORE_TOLERANCE = 1e-6
"""max |ours - expected| / max(1, max |expected|): semseg resizes float32 images, whose last bit is OpenCV's own."""

_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_TORCHSEG_SCALES = (0.5, 0.75, 1.0, 1.5, 1.75)
_RAMP = 0.3
_IGNORED = 255
_STORED_MAP = re.compile(r"(?P<name>.+)_(?P<kind>sum|mean|scores)_s(?P<step>\d+)")


class _ToyNetwork(nn.Module):
    """A convolution, and a ramp over the input's width that grows with the class: crops and mirroring matter."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double(), requires_grad=False)
        self.bias = nn.Parameter(bias.double(), requires_grad=False)
        self.num_classes = int(weight.shape[0])
        self.align_corners = True
        self.preprocessing = Preprocessing()
        self.margin = 0
        self.minimum_size = 1

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Any size."""
        return height, width

    def forward(self, images: Tensor) -> SegOutput:
        """Maps (B, 3, H, W) to scores of the same size."""
        y = F.conv2d(images, self.weight, self.bias, padding=self.weight.shape[-1] // 2)
        ramp = torch.linspace(-1, 1, images.shape[-1], dtype=y.dtype) * _RAMP
        return SegOutput(y + ramp * torch.arange(self.num_classes, dtype=y.dtype)[:, None, None])


def check_evaluators(vector: Vector) -> list[Row]:
    """Compares scores and predictions of each stored run, and TorchSeg's metrics of one prediction."""
    network = _ToyNetwork(vector.tensor("conv_w"), vector.tensor("conv_b"))
    scorer = Segmenter(network, LabelSpace.numbered(network.num_classes))
    images = vector.tensor("image").permute(2, 0, 1)[None]
    rows = []
    for stored, match in ((key, _STORED_MAP.fullmatch(key)) for key in sorted(vector.expected)):
        if match is None or "log" in match["kind"]:
            continue
        name, step = match["name"], int(match["step"])
        procedure = _procedure(name, vector.manifest["parameters"])
        ours = procedure(scorer, images).logits[0].permute(1, 2, 0)  # (H, W, K)
        rows.append(_score_row(stored, ours[::step, ::step], vector))
        logarithms = f"{name}_log{match['kind']}_s{step}"
        if logarithms in vector.expected:
            rows.append(_score_row(logarithms, ours[::step, ::step].log(), vector))
        rows.append(_prediction_row(f"{name}_pred", ours.argmax(2).numpy(), vector))
    if not rows:
        raise Skipped("it stores no scores of torchseg, semseg or encoding")
    return rows + _metric_rows(vector)


def _procedure(name: str, parameters: Mapping[str, Any]) -> Procedure:
    """Reads ``<code base>_<ss | ms | msf>[_small]`` beside the manifest's parameters."""
    family, *kinds = name.split("_")
    many, flip = kinds[0] != "ss", kinds[0].endswith("f")
    if family == "torchseg":
        given = parameters["torchseg"]
        crop = next(crop for key, crop in given["crop"].items() if _names(key, "_".join(kinds)))
        scales = _listed(given, kinds[0], _TORCHSEG_SCALES if many else (1.0,))
        return TorchSeg(crop=int(crop), flip=flip, scales=scales)
    scales = _listed(parameters.get(family, {}), kinds[0], _SCALES if many else (1.0,))
    if family == "semseg":
        given = parameters["semseg"]
        return Semseg(base_size=int(given["base_size"]), crop=tuple(given["crop"]), flip=True, scales=scales)
    if family == "encoding":
        given = parameters["encoding"]
        return Encoding(base_size=int(given["base_size"]), crop=int(given["crop_size"]), flip=flip, scales=scales)
    raise CheckpointError(f"{name}: no evaluator of a code base {family!r}; there are torchseg, semseg and encoding")


def _names(patterns: str, kind: str) -> bool:
    return any(fnmatchcase(kind, pattern.strip()) for pattern in patterns.split(","))


def _listed(given: Mapping[str, Any], kind: str, usual: tuple[float, ...]) -> tuple[float, ...]:
    """Reads ``kind [0.5,1,2]`` in the manifest's text; a list that is cut short by dots, or none, is the usual one."""
    found = re.search(rf"\b{kind} \[([\d., ]+)\]", str(given.get("scales", "")))
    if found is None or ".." in found[1]:
        return usual
    return tuple(float(scale) for scale in found[1].split(","))


def _score_row(name: str, ours: Tensor, vector: Vector) -> Row:
    return replace(vector.compare_whole(name, ours), tolerance=SCORE_TOLERANCE)


def _prediction_row(name: str, ours: np.ndarray, vector: Vector) -> Row:
    expected = vector.expected[name]
    if ours.shape != expected.shape:
        return Row(name=name, error=math.inf, tolerance=0.5, note=f"shape {ours.shape}, expected {expected.shape}")
    return Row(name=name, error=float((ours != expected).sum()), tolerance=0.5, note="pixels of another class")


def _metric_rows(vector: Vector) -> list[Row]:
    """TorchSeg's hist_info and compute_score of its single-scale prediction."""
    if "metric_label" not in vector.expected:
        return []
    label, prediction = vector.expected["metric_label"], vector.expected["torchseg_ss_pred"]
    num_classes = len(vector.expected["metric_iu"])
    counts = confusion_matrix(prediction, label, num_classes, ignore_index=_IGNORED)
    values = scores(counts)
    iou = np.array([entry["iou"] for entry in values["per_class"]])
    labelled, correct = counts.sum(), np.trace(counts)
    scalars = [np.nanmean(iou), np.nanmean(iou[1:]), correct / labelled, labelled, correct]
    return [
        vector.compare_whole("metric_hist", torch.from_numpy(counts)),
        vector.compare_whole("metric_iu", torch.from_numpy(iou)),
        vector.compare_whole("metric_scalars", torch.tensor(scalars, dtype=torch.float64)),
    ]

"""The end of a run: scores of the best weights in float32, masks of the validation images, metrics.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perpixel.build.datasets import RunData
from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.config import RunConfig
from perpixel.data import Sample, SegmentationDataset
from perpixel.engine import RunFolder
from perpixel.evaluation import Evaluation, evaluate_network
from perpixel.inference import Segmenter, write_mask
from perpixel.labels import LabelSpace
from perpixel.metrics import to_json
from perpixel.weights import load_artifact

__all__ = ["score_values", "write_scores"]


def write_scores(
    config: RunConfig, run: RunFolder, data: RunData, device: torch.device, on_progress: ProgressCallback | None
) -> Mapping[str, Any]:
    """Evaluates ``best/`` and writes metrics.json and predictions/."""
    artifact = load_artifact(run.path / "best")
    segmenter = Segmenter(artifact.network, data.labels, device=device, precision="fp32")
    most = config.evaluation.save_predictions
    limit = len(data.val) if most is True else int(most)
    with run.replace("predictions") as folder:
        writer = _PredictionWriter(folder, data.val, data.labels, limit)
        evaluation = evaluate_network(
            segmenter,
            data.val,
            border_width_px=config.evaluation.border_width_px,
            batch_size=config.evaluation.batch_size,
            on_image=writer,
            on_progress=Reporter("final evaluation", on_progress),
        )
        writer.write_index(evaluation, run)
    scores = score_values(evaluation, data.labels)
    scores |= {"split": config.data.val_split, "model": config.model_of(len(config.stages) - 1).name}
    if data.test is not None:
        tested = evaluate_network(
            segmenter,
            data.test,
            border_width_px=config.evaluation.border_width_px,
            on_progress=Reporter("test evaluation", on_progress),
        )
        scores["test"] = score_values(tested, data.labels) | {"split": config.data.test_split}
    run.write_json("metrics.json", scores)
    return scores


def score_values(evaluation: Evaluation, labels: LabelSpace) -> dict[str, Any]:
    """Returns the keys of metrics.json: the scores and the split of errors between borders and inside regions."""
    values: dict[str, Any] = to_json(evaluation.scores(labels.names))
    if evaluation.border_errors is not None:
        columns = ("border_wrong", "interior_wrong", "border_pixels", "interior_pixels")
        values["error_split"] = {
            "width_px": evaluation.border_width_px,
            "per_class": [
                {"name": name, **{c: int(v) for c, v in zip(columns, row, strict=True)}}
                for name, row in zip(labels.names, evaluation.border_errors, strict=True)
            ],
        }
    values["seconds"] = round(evaluation.seconds, 3)
    return values


class _PredictionWriter:
    """Writes the masks of the first images and, at the end, the list of them with their scores."""

    def __init__(self, folder: Path, dataset: SegmentationDataset, labels: LabelSpace, limit: int) -> None:
        self.folder, self.labels, self.limit = folder, labels, limit
        self.items = {item.name: item for item in dataset.items}
        self.files: dict[str, str] = {}

    def __call__(self, sample: Sample, prediction: NDArray[np.uint8]) -> None:
        if len(self.files) >= self.limit:
            return
        name = re.sub(r"[/\\:*?\"<>|\x00-\x1f]+", "_", sample.name)  # what file systems refuse
        while f"{name}.png" in self.files.values():
            name += "_"
        write_mask(self.folder / f"{name}.png", prediction, self.labels)
        self.files[sample.name] = f"{name}.png"

    def write_index(self, evaluation: Evaluation, run: RunFolder) -> None:
        rows = []
        for score in evaluation.images:
            if score.name not in self.files:
                continue
            item = self.items[score.name]
            rows.append(
                {
                    "name": score.name,
                    "image": _shown(item.image, run.path),
                    "target": None if item.mask is None else _shown(item.mask, run.path),
                    "prediction": f"predictions/{self.files[score.name]}",
                    "mean_iou": to_json(score.mean_iou),
                    "pixel_accuracy": to_json(score.pixel_accuracy),
                }
            )
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        (self.folder / "images.json").write_text(text, encoding="utf-8")


def _shown(path: Path, run: Path) -> str:
    """A path inside the run folder is kept relative, so that the folder can be moved."""
    resolved = path.resolve()
    return str(resolved.relative_to(run.resolve())) if resolved.is_relative_to(run.resolve()) else str(resolved)

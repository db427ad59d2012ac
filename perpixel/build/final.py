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
from PIL import Image
from torch import Tensor

from perpixel.build.datasets import RunData
from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.build.score_values import score_values
from perpixel.config import RunConfig
from perpixel.data import Sample, SegmentationDataset, image_size
from perpixel.engine import RunFolder
from perpixel.evaluation import Evaluation, Measures, evaluate_network
from perpixel.inference import Segmenter, save_picture, write_mask
from perpixel.labels import LabelSpace
from perpixel.metrics import to_json
from perpixel.weights import load_artifact

__all__ = ["score_values", "write_scores"]

_TRIMAP_PX = (1, 2, 3, 5, 10, 20)
_CALIBRATED_VALUES = 1 << 28  # some ten seconds


def write_scores(
    config: RunConfig, run: RunFolder, data: RunData, device: torch.device, on_progress: ProgressCallback | None
) -> Mapping[str, Any]:
    """Evaluates ``best/`` and writes metrics.json and predictions/."""
    artifact = load_artifact(run.path / "best")
    faster = device.type == "cpu"  # as `evaluate` loads it, so that both give the same numbers
    segmenter = Segmenter(artifact.network, data.labels, device=device, precision="fp32", optimize=faster)
    measures = _measures(data.val)
    most = config.evaluation.save_predictions
    limit = len(data.val) if most is True else int(most)
    with run.replace("predictions") as folder:
        writer = _PredictionWriter(folder, data.val, data.labels, limit)
        evaluation = evaluate_network(
            segmenter,
            data.val,
            border_width_px=config.evaluation.border_width_px,
            measures=measures,
            batch_size=config.evaluation.batch_size,
            on_image=writer,
            on_progress=Reporter("final evaluation", on_progress),
        )
        writer.write_index(evaluation, run)
    scores = score_values(evaluation, data.labels, with_intervals=True)
    scores |= {"split": config.data.val_split, "model": config.model_of(len(config.stages) - 1).name}
    if data.test is not None:
        tested = evaluate_network(
            segmenter,
            data.test,
            border_width_px=config.evaluation.border_width_px,
            measures=measures,
            on_progress=Reporter("test evaluation", on_progress),
        )
        tested_scores = score_values(tested, data.labels, with_intervals=True)
        scores["test"] = tested_scores | {"split": config.data.test_split}
    run.write_json("metrics.json", scores)
    return scores


def _measures(dataset: SegmentationDataset) -> Measures:
    """What the report shows; calibration looks at every score of every pixel, so it is left out of large splits."""
    height, width = image_size(dataset.items[0].image)
    fits = len(dataset) * dataset.labels.num_classes * height * width <= _CALIBRATED_VALUES
    return Measures(
        boundary=True,
        trimap_px=_TRIMAP_PX,
        region_sizes=True,
        calibration=fits and dataset.labels.num_classes > 1,
    )


class _PredictionWriter:
    """Writes the masks of the first images and, at the end, the list of them with their scores."""

    def __init__(self, folder: Path, dataset: SegmentationDataset, labels: LabelSpace, limit: int) -> None:
        self.folder, self.labels, self.limit = folder, labels, limit
        self.items = {item.name: item for item in dataset.items}
        self.files: dict[str, str] = {}
        self.originals: dict[str, tuple[Path, Path | None]] = {}

    def __call__(self, sample: Sample, prediction: NDArray[np.uint8]) -> None:
        if len(self.files) >= self.limit:
            return
        name = re.sub(r"[/\\:*?\"<>|\x00-\x1f]+", "_", sample.name)  # what file systems refuse
        while f"{name}.png" in self.files.values():
            name += "_"
        write_mask(self.folder / f"{name}.png", prediction, self.labels)
        self.files[sample.name] = f"{name}.png"
        self._keep_originals(sample, name)

    def _keep_originals(self, sample: Sample, name: str) -> None:
        """Writes image and target where they lie inside other files: pages show files."""
        item = self.items[sample.name]
        image, target = item.image, item.mask
        if not isinstance(image, Path):
            image = save_picture(self.folder / "originals" / f"{name}.png", _picture(sample.image))
        if target is not None and not isinstance(target, Path) and sample.target is not None:
            target = write_mask(self.folder / "originals" / f"{name}.target.png", sample.target.numpy(), self.labels)
        self.originals[sample.name] = (image, target if isinstance(target, Path) else None)

    def write_index(self, evaluation: Evaluation, run: RunFolder) -> None:
        rows = []
        for score in evaluation.images:
            if score.name not in self.files:
                continue
            image, target = self.originals[score.name]
            rows.append(
                {
                    "name": score.name,
                    "image": _shown(image, run.path),
                    "target": None if target is None else _shown(target, run.path),
                    "prediction": f"predictions/{self.files[score.name]}",
                    "mean_iou": to_json(score.mean_iou),
                    "pixel_accuracy": to_json(score.pixel_accuracy),
                }
            )
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        (self.folder / "images.json").write_text(text, encoding="utf-8")
        totals = evaluation.totals  # of all images, saved or not: two runs are compared by them
        np.savez_compressed(self.folder / "counts.npz", names=np.array(totals.names), counts=totals.counts)


def _picture(pixels: Tensor) -> Image.Image:
    """Three or one channels (C, H, W) as eight bits."""
    eight_bits = pixels if pixels.dtype == torch.uint8 else (pixels >> 8).to(torch.uint8)
    channels = eight_bits[:3] if len(pixels) >= 3 else eight_bits[:1].expand(3, -1, -1)
    return Image.fromarray(channels.permute(1, 2, 0).contiguous().numpy())


def _shown(path: Path, run: Path) -> str:
    """A path inside the run folder is kept relative, so that the folder can be moved."""
    resolved = path.resolve()
    return str(resolved.relative_to(run.resolve())) if resolved.is_relative_to(run.resolve()) else str(resolved)

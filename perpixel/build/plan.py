"""The plan for somebody's own folder: a configuration with a reason for every number."""

from __future__ import annotations

from pathlib import Path

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)
from perpixel.data import image_size, open_data, open_folders
from perpixel.weights import read_description

__all__ = ["config_for_data"]

_LONGEST_CROP = 320
_UNIT = 32
_SMALL_DFN = ModelChoice(
    name="dfn",
    backbone=BackboneChoice(name="resnet18"),
    options={"width": 64, "border_width": 16, "head_expansion": 4, "align_corners": False},
)


def config_for_data(
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    data: str | None = None,
    labels: str | None = None,
    source: str | Path | None = None,
) -> RunConfig:
    """Plans a DFN that two CPU cores can train, for two folders or any ``[format:]path``.

    With ``source``, the artifact to fine-tune from, the network is the artifact's.
    The crop is as large as the images, at most 320 on a side and a multiple of 32; there are steps for 40 epochs, at
    least 400; rare classes weigh more by the square root of median frequency; a running mean of the weights is scored.

    Raises:
        DataError: the data cannot be opened.
        CheckpointError: ``source`` is no artifact.
    """
    if images is not None and masks is not None:
        found = open_folders(images, masks)
        place = DataChoice(images=str(images), masks=str(masks))
    else:
        found = open_data(str(data))
        place = DataChoice(source=str(data))
    items = found.splits.get("train") or next(iter(found.splits.values()))
    height, width = image_size(items[0].image)
    batch_size = 8 if len(items) >= 16 else 4
    crop = tuple(max(_UNIT, min(_LONGEST_CROP, side // _UNIT * _UNIT)) for side in (height, width))
    return RunConfig(
        name=_safe_name(Path(images or str(data).rpartition(":")[2]).resolve()),
        labels=labels,
        data=place.model_copy(
            update={
                "crop_size": crop,
                "scale_range": (0.5, 2.0),
                "brightness": 0.3,
                "contrast": 0.3,
                "saturation": 0.3,
                "batch_size": batch_size,
            }
        ),
        stages=(
            Stage(
                model=_SMALL_DFN if source is None else _network_of(Path(source)),
                class_weights="sqrt_median_frequency",
                optimizer=OptimizerChoice(name="adamw", lr=1e-3, weight_decay=1e-2),
                schedule=ScheduleChoice(name="poly", power=0.9),
                ema_decay=0.99,
                steps=max(400, 40 * len(items) // batch_size),
            ),
        ),
    )


def _network_of(artifact: Path) -> ModelChoice:
    folder = artifact / "best" if (artifact / "best" / "model.yaml").exists() else artifact
    description = read_description(folder)["network"]
    backbone = BackboneChoice(**{**description["backbone"], "weights": "none"})
    return ModelChoice(name=description["name"], backbone=backbone, options=description["options"])


def _safe_name(path: Path) -> str:
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in path.name).strip("-")
    return kept or "run"

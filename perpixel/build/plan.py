"""The plan for somebody's own data: a configuration with a reason for every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perpixel.build.batch_choice import fitting_batch
from perpixel.build.own_data import look_at
from perpixel.build.progress import ProgressCallback
from perpixel.config import (
    BackboneChoice,
    DataChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
    apply_overrides,
)
from perpixel.data.advice import advise
from perpixel.weights import read_description

__all__ = ["Decision", "Plan", "config_for_data", "plan_for_data"]

LONGEST_CROP = {"cpu": 320}
LONGEST_CROP_ELSEWHERE = 512
EPOCHS = 40
FEWEST_STEPS = 400
_MANY_IMAGES = 16
_SMALL_DFN = ModelChoice(
    name="dfn",
    backbone=BackboneChoice(name="resnet18"),
    options={"width": 64, "border_width": 16, "head_expansion": 4, "align_corners": False},
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One choice that was made for the user."""

    what: str
    choice: str
    reason: str
    value: Callable[[RunConfig], object]
    """What the configuration holds of it; a user who changes that has decided otherwise."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A configuration for some data, and why it is so."""

    config: RunConfig
    decisions: tuple[Decision, ...]

    def kept(self, config: RunConfig) -> tuple[tuple[str, str, str], ...]:
        """Returns (what, choice, reason) of the decisions that ``config``, this plan with overrides, still follows."""
        return tuple(
            (decision.what, decision.choice, decision.reason)
            for decision in self.decisions
            if decision.value(config) == decision.value(self.config)
        )


def config_for_data(**given: Any) -> RunConfig:
    """Returns the configuration of `plan_for_data`, whose arguments it takes."""
    return plan_for_data(**given).config


def plan_for_data(
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    data: str | None = None,
    labels: str | None = None,
    source: str | Path | None = None,
    overrides: Sequence[str] = (),
    check: bool = True,
    on_progress: ProgressCallback | None = None,
) -> Plan:
    """Plans a training for two folders or any ``[format:]path``, from what the masks of its training part hold.

    Every file is checked first, and the masks are counted. The network is a DFN that two CPU cores can train, or that
    of ``source``, the artifact to fine-tune from. Loss weights, crop and windows follow `perpixel.data.advice`; the
    batch is what this machine's memory holds, at most 8; there are steps for 40 epochs, at least 400; a running mean of
    the weights is scored.

    Args:
        images: Folder of images, with ``masks``.
        masks: Folder of masks.
        data: ``[format:]path`` instead.
        labels: What `LabelSpace.load` takes.
        source: An artifact.
        overrides: What the user asks for beside; here only how the data is read counts (``data.…``).
        check: Whether `perpixel.data.inspection` looks at every file first; errors stop the plan.
        on_progress: Called while files are read.

    Raises:
        DataError: the data cannot be opened, or a mask cannot be used.
        ConfigError: there is no such label space, or an override does not fit.
        CheckpointError: ``source`` is no artifact.
    """
    if images is not None and masks is not None:
        place = DataChoice(images=str(images), masks=str(masks))
    else:
        place = DataChoice(source=str(data))
    found = look_at(_as_asked(place, overrides), labels, check=check, on_progress=on_progress)
    images_count, device = len(found.items), "cuda" if torch.cuda.is_available() else "cpu"
    model = _SMALL_DFN if source is None else _network_of(Path(source))
    name = _safe_name(Path(images or str(data).rpartition(":")[2]).resolve())
    base = _base(RunConfig(name=name, labels=labels, data=place, stages=(Stage(model=model, steps=1),)), images_count)
    advice = advise(found.summary, found.labels, longest_crop=LONGEST_CROP.get(device, LONGEST_CROP_ELSEWHERE))
    # A loss of other terms would take the network's own auxiliary ones away, so that advice is left to the user.
    followed = [entry for entry in advice if entry.what != "loss"]
    config = apply_overrides(base, [token for entry in followed for token in entry.overrides])
    config, batch = _with_fitting_batch(config, found.labels.num_classes, images_count, device)
    decisions = (
        Decision(what="data check", choice="passed" if check else "not made", reason=found.check, value=_data),
        _network_decision(model, source),
        *(
            Decision(what=entry.what, choice=entry.choice, reason=entry.reason, value=_VALUES[entry.what])
            for entry in followed
        ),
        batch,
        *_schedule_decisions(config, images_count),
    )
    return Plan(config=config, decisions=decisions)


def _base(config: RunConfig, images: int) -> RunConfig:
    """Returns the configuration with everything that does not follow from the masks."""
    batch_size = 8 if images >= _MANY_IMAGES else 4
    augmentation = {"scale_range": (0.5, 2.0), "brightness": 0.3, "contrast": 0.3, "saturation": 0.3}
    stage = Stage(
        model=config.stages[0].model,
        optimizer=OptimizerChoice(name="adamw", lr=1e-3, weight_decay=1e-2),
        schedule=ScheduleChoice(name="poly", power=0.9),
        ema_decay=0.99,
        steps=_steps(images, batch_size),
    )
    data = config.data.model_copy(update={**augmentation, "batch_size": batch_size})
    return config.model_copy(update={"data": data, "stages": (stage,)})


def _with_fitting_batch(config: RunConfig, num_classes: int, images: int, device: str) -> tuple[RunConfig, Decision]:
    wanted = config.data.batch_size
    because = "noise of single images evens out" if images >= _MANY_IMAGES else "there are few images"
    fitting, reason = fitting_batch(config, num_classes, device=device, wanted_because=because)
    if fitting != wanted:
        config = apply_overrides(config, [f"data.batch_size={fitting}", f"steps={_steps(images, fitting)}"])
    return config, Decision(
        what="batch size",
        choice=f"{fitting} images",
        reason=reason,
        value=lambda c: (c.data.batch_size, c.data.crop_size, c.stages[0].model),
    )


def _steps(images: int, batch_size: int) -> int:
    return max(FEWEST_STEPS, EPOCHS * images // batch_size)


def _as_asked(place: DataChoice, overrides: Sequence[str]) -> DataChoice:
    """Returns the data as the user's overrides have it read: by another split, as colours, mended."""
    about_data = [token for token in overrides if token.partition(".")[0].strip() == "data"]
    stage = Stage(model=_SMALL_DFN, steps=1)
    return apply_overrides(RunConfig(data=place, stages=(stage,)), about_data).data


def _data(config: RunConfig) -> object:
    return config.data.source, config.data.images, config.data.masks


def _model(config: RunConfig) -> object:
    return config.stages[0].model


_VALUES: dict[str, Callable[[RunConfig], object]] = {
    "class weights": lambda config: config.stages[0].class_weights,
    "crop size": lambda config: config.data.crop_size,
    "sampler": lambda config: config.data.class_crop,
}


def _network_decision(model: ModelChoice, source: str | Path | None) -> Decision:
    if source is not None:
        return Decision(what="network", choice=model.name, reason=f"that of {source}, to go on with", value=_model)
    backbone = "" if model.backbone is None else f" on {model.backbone.name}"
    return Decision(
        what="network",
        choice=f"{model.name}{backbone}, {model.options['width']} channels wide",
        reason="two CPU cores train it in minutes and a GPU does not need more for a first model; model.name=… and "
        "model.backbone.name=… take others",
        value=_model,
    )


def _schedule_decisions(config: RunConfig, images: int) -> tuple[Decision, ...]:
    stage, batch = config.stages[0], config.data.batch_size
    epochs = stage.steps * batch / images
    enough = f"{EPOCHS} epochs" if stage.steps > FEWEST_STEPS else f"at least {FEWEST_STEPS} steps"
    return (
        Decision(
            what="schedule",
            choice=f"{stage.steps} steps of {batch} images, AdamW from {stage.optimizer.lr:g} down by a power of 0.9",
            reason=f"{enough}: {epochs:.0f} epochs of {images} images",
            value=lambda c: (c.stages[0].steps, c.stages[0].optimizer, c.stages[0].schedule, c.data.batch_size),
        ),
        Decision(
            what="augmentation",
            choice="scale 0.5 to 2, mirroring, brightness, contrast and saturation by up to 0.3",
            reason="few images are seen many times; what published recipes of this field do",
            value=lambda c: (c.data.scale_range, c.data.scales, c.data.flip, c.data.brightness, c.data.contrast),
        ),
        Decision(
            what="scored weights",
            choice="their running mean with decay 0.99",
            reason="single steps jump at this learning rate; the mean does not",
            value=lambda c: c.stages[0].ema_decay,
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

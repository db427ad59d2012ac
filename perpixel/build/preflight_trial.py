"""The short run within a pre-flight check: two steps of every stage, and the same with an interruption in between."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perpixel.build.datasets import RunData
from perpixel.build.networks import build_criterion, build_network
from perpixel.build.progress import ProgressCallback
from perpixel.build.run_job import RunJob
from perpixel.config import ModelChoice, RunConfig, Stage
from perpixel.engine import PrecisionChoice, RunFolder
from perpixel.engine.checkpoints import load_checkpoint
from perpixel.engine.randomness import kept_random_state
from perpixel.engine.step import forward_loss

__all__ = [
    "TrialSize",
    "choose_size",
    "resume_trial",
    "run_trial",
    "same_bits",
    "stage_folders",
    "step_seconds",
    "train_trial",
    "trial_config",
]

STEPS = 2
_LEAST_SIDE = 128
_UNIT = 32


@dataclass(frozen=True, kw_only=True)
class TrialSize:
    """Batch and crop of a stage's two steps."""

    batch_size: int
    crop_size: tuple[int, int]
    full_pixels: int
    """Pixels of the batch that the configuration asks for."""

    @property
    def share(self) -> float:
        """Trained pixels per pixel of the configured batch."""
        return self.batch_size * math.prod(self.crop_size) / self.full_pixels


def step_seconds(config: RunConfig, num_classes: int, stage: int) -> float:
    """Estimates the CPU seconds of one batch of a stage from a small one: work grows with the pixels."""
    choice = config.data_of(stage)
    network = build_network(without_weights(config.model_of(stage)), num_classes).train()
    criterion = build_criterion(config.stages[stage], network, None)
    least = max(_LEAST_SIDE, network.minimum_size)
    sides = [min(side, least) for side in choice.crop_size]
    images = torch.zeros(2, len(network.preprocessing.mean), *sides)
    target = torch.zeros(2, *sides, dtype=torch.uint8)
    seconds = math.inf
    with kept_random_state():
        for _ in range(2):  # the first one lays out kernels
            started = time.perf_counter()
            torch.autograd.backward(forward_loss(network, criterion, images, target, "fp32").total)
            seconds = min(seconds, time.perf_counter() - started)
    return seconds * choice.batch_size * math.prod(choice.crop_size) / (2 * math.prod(sides))


def choose_size(config: RunConfig, num_classes: int, stage: int, share: float) -> TrialSize:
    """Reduces the batch first, to two images at least, then the crop, until ``share`` of the pixels is left.

    Args:
        config: The real run.
        num_classes: K.
        stage: Which one.
        share: Of the pixels of the configured batch; from 1 on nothing is reduced.
    """
    choice = config.data_of(stage)
    batch, crop = choice.batch_size, choice.crop_size
    full = batch * math.prod(crop)
    if share < 1:
        batch = max(min(2, batch), int(batch * share))
        left = share * full / (batch * math.prod(crop))
        if left < 1:
            network = build_network(without_weights(config.model_of(stage)), num_classes)
            least = max(_LEAST_SIDE, network.minimum_size)
            sides = [max(min(side, least), int(side * math.sqrt(left)) // _UNIT * _UNIT) for side in crop]
            fitting = network.valid_size(sides[0], sides[1])
            crop = fitting if math.prod(fitting) < math.prod(crop) else crop
    return TrialSize(batch_size=batch, crop_size=crop, full_pixels=full)


def trial_config(
    config: RunConfig, sizes: Mapping[int, TrialSize], *, precision: str, random_backbones: bool, steps: int = STEPS
) -> RunConfig:
    """Returns the run with few steps per stage on the CPU; network, loss, optimiser and augmentation stay.

    Args:
        config: The real run.
        sizes: Batch and crop of each stage.
        precision: What the CPU computes in.
        random_backbones: Takes random weights where published ones would have to be fetched.
        steps: Of each stage.
    """
    stages = tuple(
        _trial_stage(stage, sizes[index], random_backbones=random_backbones, steps=steps)
        for index, stage in enumerate(config.stages)
    )
    return config.model_copy(
        update={
            "stages": stages,
            "device": "cpu",
            "precision": precision,
            "tensorboard": False,
            "checkpoint_every": 1,
            "keep_checkpoints": steps,
            "evaluation": config.evaluation.model_copy(update={"every": steps}),
        }
    )


def run_trial(
    config: RunConfig, data: RunData, folder: Path, on_progress: ProgressCallback | None
) -> list[dict[str, Any]]:
    """Trains the stages of a trial configuration without interruption and returns the events of training.

    Raises:
        PerpixelError: whatever the real run would raise.
        KeyboardInterrupt: it was interrupted.
    """
    run = RunFolder(folder)
    train_trial(config, data, run, on_progress, resume=False)
    return [event for event in run.events() if event["event"] == "train"]


def resume_trial(
    config: RunConfig, data: RunData, finished: Path, folder: Path, on_progress: ProgressCallback | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Goes on in a copy of a finished trial as if every stage had been interrupted after its first step.

    Returns:
        Names of weights that differ from the uninterrupted run's in any bit, and the events of training.
    """
    shutil.copytree(finished, folder)
    for path, stage in zip(stage_folders(config, folder), config.stages, strict=True):
        shutil.rmtree(path / "checkpoints" / f"step-{STEPS}")
        RunFolder(path, resume=True).rewind(1, stage.name)
    run = RunFolder(folder, resume=True)
    train_trial(config, data, run, on_progress, resume=True)
    different = []
    places = zip(stage_folders(config, finished), stage_folders(config, folder), config.stages, strict=True)
    for whole, resumed, stage in places:
        one, other = (load_checkpoint(path / "checkpoints" / f"step-{STEPS}")["tensors"] for path in (whole, resumed))
        different += [f"{stage.name}: {name}" for name in one if not same_bits(one[name], other[name])]
    return different, [event for event in run.events() if event["event"] == "train" and event["step"] == STEPS]


def without_weights(model: ModelChoice) -> ModelChoice:
    """Returns the network with a random backbone."""
    if model.backbone is None:
        return model
    return model.model_copy(update={"backbone": model.backbone.model_copy(update={"weights": "none"})})


def train_trial(
    config: RunConfig,
    data: RunData,
    run: RunFolder,
    on_progress: ProgressCallback | None,
    *,
    resume: bool,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
) -> None:
    """Trains the stages of a trial configuration, without final scores.

    Raises:
        PerpixelError: whatever the real run would raise.
        KeyboardInterrupt: it was interrupted.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        job = RunJob(
            config,
            run,
            data,
            device=(device, f"a check runs on the {device.type.upper()}"),
            precision=PrecisionChoice(config.precision, f"what the {device.type.upper()} computes in"),
            resume=resume,
            on_progress=on_progress,
        )
        result = job.train_stages()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    if result is not None and result.interrupted is not None:
        raise KeyboardInterrupt


def _trial_stage(stage: Stage, size: TrialSize, *, random_backbones: bool, steps: int) -> Stage:
    milestones = (1,) if stage.schedule.name == "step" else ()
    warmup = min(stage.schedule.warmup_steps, 1)
    model = stage.model
    if random_backbones and model is not None and model.backbone is not None and model.backbone.weights == "timm":
        model = without_weights(model)
    return stage.model_copy(
        update={
            "steps": steps,
            "accumulate": min(stage.accumulate, 2),
            "patience": None,
            "schedule": stage.schedule.model_copy(update={"milestones": milestones, "warmup_steps": warmup}),
            "model": model,
            "data": {**stage.data, "batch_size": size.batch_size, "crop_size": list(size.crop_size)},
        }
    )


def stage_folders(config: RunConfig, run: Path) -> list[Path]:
    """Returns where the stages of a run work."""
    if len(config.stages) == 1:
        return [run]
    return [run / "stages" / f"{index + 1}-{stage.name}" for index, stage in enumerate(config.stages)]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree in shape, kind and every bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))

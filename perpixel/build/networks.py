"""Choices of a configuration → network, loss, optimiser and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from perpixel.backbones import BackboneConfig
from perpixel.config import ModelChoice, Stage
from perpixel.engine import Schedule, ScheduleOptions, create_optimizer, create_schedule, parameter_groups
from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss, with_class_weights
from perpixel.models import MODELS, Network, create_model

__all__ = [
    "build_criterion",
    "build_network",
    "build_optimizer",
    "build_schedule",
    "check_batch_norm",
    "choose_device",
    "in_channels",
]


def build_network(choice: ModelChoice, num_classes: int) -> Network:
    """Builds the network that a configuration chooses.

    Raises:
        InvalidValue: the model, an option or the backbone is unknown.
        CheckpointError: the backbone's weights cannot be had.
    """
    backbone = None if choice.backbone is None else BackboneConfig(**choice.backbone.model_dump())
    return create_model(choice.name, choice.options, num_classes=num_classes, backbone=backbone)


def check_batch_norm(network: Network, crop_size: tuple[int, int], batch_size: int, *, frozen: bool) -> None:
    """Makes sure that batch norm sees more than one value per channel in the coarsest map.

    Raises:
        InvalidValue: a batch of one and a crop of one cell leave it nothing to normalise over.
    """
    stride = max(getattr(network.backbone, "strides", (network.minimum_size - 1,)))
    one_cell = max(crop_size) <= stride
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if batch_size == 1 and one_cell and norms and not frozen:
        raise InvalidValue(
            f"data.batch_size = 1 with data.crop_size = {list(crop_size)} leaves batch norm one value per channel "
            f"in the coarsest map: take crops over {stride} pixels, larger batches, or freeze_batch_norm = true"
        )


def in_channels(choice: ModelChoice) -> int:
    """Returns the image channels that the chosen network takes."""
    if choice.backbone is not None:
        return choice.backbone.in_channels
    entry = MODELS.get(choice.name)
    if entry is None or entry.backbone is None:
        usual = 3 if entry is None else getattr(entry.config, "in_channels", 3)
        stated = choice.options.get("in_channels", usual)
        return stated if isinstance(stated, int) else 3
    return entry.backbone.in_channels


def build_criterion(stage: Stage, network: Network, class_weights: Sequence[float] | None) -> SegmentationLoss:
    """Builds the stage's loss: its own terms or the network's published ones, with class weights where chosen."""
    terms = network.default_terms() if stage.terms is None else tuple(t.to_term() for t in stage.terms)
    if class_weights is not None:
        terms = with_class_weights(terms, class_weights)
    return SegmentationLoss(
        terms, num_classes=network.num_classes, align_corners=network.align_corners, margin=network.margin
    )


def build_optimizer(stage: Stage, network: nn.Module) -> Optimizer:
    """Builds the stage's optimiser over its parameter groups; parameters that do not train are frozen here."""
    choice = stage.optimizer
    groups = parameter_groups(
        network,
        base_lr=choice.lr,
        weight_decay=choice.weight_decay,
        rules=stage.groups,
        new_layers_lr_factor=stage.new_layers_lr_factor,
        no_decay_norm_bias=stage.no_decay_norm_bias,
        trainable=stage.trainable,
        frozen=stage.frozen,
    )
    return create_optimizer(
        choice.name,
        groups,
        lr=choice.lr,
        momentum=choice.momentum,
        nesterov=choice.nesterov,
        betas=choice.betas,
        eps=choice.eps,
    )


def build_schedule(stage: Stage) -> Schedule:
    """Builds the stage's learning-rate schedule."""
    known = {f.name for f in fields(ScheduleOptions)}
    values: dict[str, Any] = {k: v for k, v in stage.schedule.model_dump().items() if k in known}
    return create_schedule(stage.schedule.name, ScheduleOptions(**{**values, "steps": stage.steps}))


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """Returns the device for ``auto``, ``cpu`` or ``cuda``, and why.

    Raises:
        InvalidValue: ``cuda`` is wanted and PyTorch sees no GPU, or PyTorch knows no such device.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise InvalidValue("device 'cuda' was asked for and PyTorch sees no GPU here; use device auto or cpu")
    if wanted == "auto":
        return torch.device("cuda" if found else "cpu"), "a GPU was found" if found else "no GPU was found"
    try:
        return torch.device(wanted), "asked for"
    except RuntimeError as error:
        raise InvalidValue(f"no device {wanted!r}; known: auto, cpu, cuda, or one of several GPUs: cuda:1") from error

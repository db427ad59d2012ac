"""Filling of trunks that are not timm's from weight files: every tensor accounted for, or an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.weight_files import read_checkpoint
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.types import Preprocessing

__all__ = ["fill_trunk", "fill_trunk_with", "refuse_variants", "trunk_preprocessing"]

_SHOWN = 10


def fill_trunk(
    trunk: nn.Module, config: BackboneConfig, *, first: str, rename: Callable[[str], str], aside: tuple[str, ...]
) -> tuple[str, ...]:
    """Loads the file ``config.weights`` into a trunk, and returns what was adapted on the way.

    Args:
        trunk: What is filled.
        config: Names the file, and the trunk in messages.
        first: Our key of the first convolution, whose image channels are adapted where the file's are three.
        rename: Their name -> ours.
        aside: Prefixes of their names that belong to the classifier and are left aside.

    Raises:
        CheckpointError: the file cannot be read, or a tensor is missing, left over or of another shape.
    """
    found = {rename(key): value for key, value in read_checkpoint(config.weights).items() if not key.startswith(aside)}
    return fill_trunk_with(trunk, found, config, first=first)


def fill_trunk_with(
    trunk: nn.Module,
    found: Mapping[str, Tensor],
    config: BackboneConfig,
    *,
    first: str,
    advice: str = "Choose the backbone that the file was made with.",
) -> tuple[str, ...]:
    """Does `fill_trunk`'s work with tensors that were read and renamed already; ``advice`` ends the error's message.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    wanted = trunk.state_dict()
    notes: list[str] = []
    problems: list[str] = []
    for key, own in wanted.items():
        value = found.get(key)
        if value is None:
            if not key.endswith("num_batches_tracked"):
                problems.append(f"missing: {key} {tuple(own.shape)}")
            continue
        if key == first and value.shape[1] == 3 != own.shape[1]:
            value = torch.as_tensor(adapt_input_conv(own.shape[1], value))
            notes.append(f"{key} was adapted from 3 to {own.shape[1]} input channels")
        if value.shape != own.shape:
            problems.append(f"shape: {key} is {tuple(value.shape)}, the trunk wants {tuple(own.shape)}")
            continue
        wanted[key] = value
    problems += [f"left over: {key} {tuple(value.shape)}" for key, value in found.items() if key not in wanted]
    if problems:
        shown = "\n  ".join(problems[:_SHOWN])
        raise CheckpointError(
            f"{config.weights}: {len(problems)} tensors do not fit backbone {config.name!r}:\n  {shown}\n{advice}"
        )
    trunk.load_state_dict(wanted)
    return tuple(notes)


def refuse_variants(config: BackboneConfig) -> None:
    """Refuses the variants of timm's trunks that a trunk of one form does not have.

    Raises:
        InvalidValue: dilation, stem, multi-grid or cut stages are not the defaults.
    """
    if (config.dilation, config.stem, config.multi_grid, config.cut_stages) != ("half", "default", (), 0):
        raise InvalidValue(
            f"{config.name} has its own stem, dilation and stages, got dilation {config.dilation!r}, stem "
            f"{config.stem!r}, multi_grid {config.multi_grid} and cut_stages {config.cut_stages}; leave them away"
        )


def trunk_preprocessing(config: BackboneConfig) -> Preprocessing:
    """ImageNet's mean and deviation for RGB; for other channels the middle of the range and a quarter of it."""
    if config.in_channels == 3:
        return Preprocessing()
    return Preprocessing(mean=(0.5,) * config.in_channels, std=(0.25,) * config.in_channels)

"""Checks a trunk: the published weights in, its feature maps out."""

from __future__ import annotations

import torch

from perpixel.backbones import create_backbone
from perpixel.weights.checkers.vector import Row, Skipped, Vector
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["check_backbone"]


def check_backbone(vector: Vector) -> list[Row]:
    """Compares the outputs ``stage1`` to ``stage4`` of a ResNet in TorchSeg's layout.

    Raises:
        Skipped: the keys are of another layout.
        CheckpointError: no backbone has these sizes.
    """
    tensors = vector.state_dict()
    if not any(key.startswith("layer1.") for key in tensors):
        raise Skipped(f"no backbone with keys such as {next(iter(tensors), 'none')!r}")
    backbone = create_backbone(read_resnet(tensors)).double().eval()
    backbone.net.load_state_dict(tensors, strict=True)
    with torch.no_grad():
        maps = backbone(vector.input("image"))
    return [vector.compare_sampled(f"stage{i}", stage) for i, stage in enumerate(maps, start=1)]

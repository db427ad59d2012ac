"""Every network, in its small form, learns the generated scenes better than to name the commonest class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightest_trunks import lightest_trunk

from perpixel.data.scenes import SCENE_CLASSES, SceneConfig, generate_scene
from perpixel.inference import Segmenter
from perpixel.labels import LabelSpace
from perpixel.losses import SegmentationLoss
from perpixel.metrics import confusion_matrix, scores
from perpixel.models import MODELS, create_model, list_models
from perpixel.ops.normalize import normalize

STEPS = 200
MARGIN = 0.10
"""Mean IoU above that of the majority class; the least of the networks reached is in docs/results.md."""
TRAINED, HELD_OUT, BATCH = 48, 8, 4


def scenes(count: int, first: int, size: tuple[int, int], channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    config = SceneConfig(height=size[0], width=size[1], inconsistency=0.0, indistinction=0.0)
    pairs = [generate_scene(config, first + i) for i in range(count)]
    images = torch.stack([torch.from_numpy(image).movedim(-1, 0) for image, _ in pairs])
    return images[:, :channels].contiguous(), torch.stack([torch.from_numpy(mask) for _, mask in pairs])


def mirrored(maps: torch.Tensor, margin: int) -> torch.Tensor:
    """Extends (…, H, W) by its mirror image on every side, as the Segmenter does for networks that lose a margin."""
    sides = [(0, 0)] * (maps.ndim - 2) + [(margin, margin)] * 2
    return torch.from_numpy(np.pad(maps.numpy(), sides, mode="reflect"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_network_learns_scenes_better_than_the_majority(name: str) -> None:
    reached, majority = trained_scores(name)
    assert reached > majority + MARGIN


def trained_scores(name: str) -> tuple[float, float]:
    """Trains a network and returns the mean IoU of it and of the commonest class, on scenes that it has not seen."""
    torch.manual_seed(0)
    classes = len(SCENE_CLASSES)
    network = create_model(name, MODELS[name].config.small(), num_classes=classes, backbone=lightest_trunk(name))
    margin = network.margin
    height, width = network.valid_size(64 + 2 * margin, 64 + 2 * margin)
    size = (height - 2 * margin, width - 2 * margin)
    channels = network.preprocessing.num_channels
    images, target = scenes(TRAINED, 0, size, channels)
    seen, labelled = mirrored(images, margin), mirrored(target, margin)
    criterion = SegmentationLoss(
        network.default_terms(), num_classes=classes, align_corners=network.align_corners, margin=margin
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    network.train()
    for step in range(STEPS):
        picked = torch.randperm(TRAINED)[:BATCH]
        loss = criterion(network(normalize(seen[picked], network.preprocessing)), labelled[picked]).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / STEPS) ** 0.9
    held_images, held_target = scenes(HELD_OUT, TRAINED, size, channels)
    segmenter = Segmenter(network.eval(), LabelSpace.numbered(classes))
    predicted = segmenter.classes(held_images)
    reached = scores(confusion_matrix(predicted, held_target, classes))["mean_iou"]
    commonest = target[target != 255].mode().values
    majority = scores(confusion_matrix(torch.full_like(held_target, int(commonest)), held_target, classes))["mean_iou"]
    return reached, majority

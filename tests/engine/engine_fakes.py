"""The smallest network, criterion, data and task that the engine can train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.data.batches import Batch
from perpixel.engine.fit import FitSettings, FitTask
from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.schedules import ScheduleOptions, create_schedule
from perpixel.ops.normalize import normalize
from perpixel.types import Preprocessing, SegOutput

NUM_CLASSES = 3


class TinyNetwork(nn.Module):
    """Two convolutions with batch norm and dropout, so that buffers and generators matter."""

    def __init__(self, *, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(width, NUM_CLASSES, 1)

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(logits=self.head(self.dropout(self.backbone(images))))


class Loss(NamedTuple):
    total: Tensor
    parts: Mapping[str, Tensor]


def criterion(output: SegOutput, target: Tensor) -> Loss:
    loss = F.cross_entropy(output.logits, target.long(), ignore_index=255)
    return Loss(loss, {"main": loss})


def make_batch(index: int, *, size: int = 8, batch_size: int = 2) -> Batch:
    """The batch of a step: a function of its index alone; bright pixels are class 2, dark ones class 0."""
    generator = torch.Generator().manual_seed(1000 + index)
    images = torch.randint(0, 256, (batch_size, 3, size, size), generator=generator, dtype=torch.uint8)
    level = images.float().mean(1)
    target = ((level > 100).long() + (level > 150).long()).to(torch.uint8)
    jitter = 0.8 + 0.4 * torch.rand(batch_size, 3, generator=generator)
    return Batch(images, target, jitter, tuple(f"image-{index}-{i}" for i in range(batch_size)))


def batches(count: int) -> Callable[[int], Iterator[Batch]]:
    """A factory of ``count`` batches that also draws from the global generator when it starts, as a DataLoader does."""

    def make(start: int) -> Iterator[Batch]:
        torch.rand(3)
        for index in range(start, count):
            yield make_batch(index)

    return make


def save_artifact(network: nn.Module, folder: Path, facts: dict[str, Any]) -> None:
    torch.save({"weights": network.state_dict(), "facts": facts}, folder / "weights.pt")


def evaluate(network: nn.Module) -> dict[str, Any]:
    """Scores the network on three fixed batches."""
    assert not network.training
    right = total = 0
    preprocessing = Preprocessing()
    with torch.no_grad():
        for index in range(900, 903):
            batch = make_batch(index)
            found = network(normalize(batch.images, preprocessing)).logits.argmax(1)
            right += int((found == batch.target).sum())
            total += batch.target.numel()
    return {"mean_iou": right / total, "pixel_accuracy": right / total, "per_class_iou": [0.5, float("nan"), 1.0]}


def make_task(settings: FitSettings, *, optimizer: str = "sgd", seed: int = 3, **changes: Any) -> FitTask:
    torch.manual_seed(seed)
    network = changes.pop("network", None) or TinyNetwork()
    lr = 0.1 if optimizer == "sgd" else 0.01
    groups = parameter_groups(network, base_lr=lr, weight_decay=1e-3, new_layers_lr_factor=2.0)
    values: dict[str, Any] = {
        "network": network,
        "criterion": criterion,
        "make_batches": batches(settings.steps * settings.accumulate),
        "optimizer": create_optimizer(optimizer, groups, lr=lr),
        "schedule": create_schedule("poly", ScheduleOptions(steps=settings.steps)),
        "preprocessing": Preprocessing(),
        "evaluate": evaluate,
        "save_artifact": save_artifact,
    }
    return FitTask(**{**values, **changes})

"""Recipe of the U-Net on a classification network, the form of segmentation_models.pytorch.

That library trains nothing itself and publishes no settings: the numbers here are perpixel's own.
"""

from __future__ import annotations

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)

__all__ = ["unet_backbone_camvid"]


def unet_backbone_camvid() -> RunConfig:
    """A U-Net on ResNet-34 for CamVid (11 classes, 360x480), from ImageNet weights.

    Command: ``perpixel train --recipe unet_backbone_camvid --data camvid:FOLDER``.
    Hardware: one GPU with 12 GB. Time: not measured here.
    Score: not measured here; none is published.
    Assumed, all of it: AdamW with rate 1e-3, a tenth of it for the pretrained trunk, weight decay 1e-2, poly 0.9,
    12,000 steps of batch 16, crops of 352x480 at scales 0.5 to 2, mirror, colour jitter.
    """
    return RunConfig(
        name="unet_backbone_camvid",
        recipe="unet_backbone_camvid",
        labels="camvid11",
        data=DataChoice(
            crop_size=(352, 480),
            scale_range=(0.5, 2.0),
            flip=0.5,
            brightness=0.2,
            contrast=0.2,
            saturation=0.2,
            batch_size=16,
        ),
        evaluation=EvaluationChoice(every=1000),
        stages=(
            Stage(
                model=ModelChoice(
                    name="unet_backbone", backbone=BackboneChoice(name="resnet34", weights="timm", num_stages=5)
                ),
                optimizer=OptimizerChoice(name="adamw", lr=1e-4, weight_decay=1e-2),
                schedule=ScheduleChoice(name="poly", power=0.9),
                new_layers_lr_factor=10.0,
                steps=12_000,
            ),
        ),
    )

"""Recipe of Zoom-out, "Feedforward Semantic Segmentation with Zoom-out Features" (Mostajabi et al., CVPR 2015).

The paper is arXiv 1412.0774. Scores are mean IoU in per cent.
"""

from __future__ import annotations

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)

__all__ = ["zoomout_voc"]


def zoomout_voc() -> RunConfig:
    """Zoom-out on PASCAL VOC 2012: a classifier of superpixels on the features of a fixed VGG16.

    Command: ``perpixel train --recipe zoomout_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 64.4 (first version) and 69.6 (CVPR) on VOC 2012 test; 70 without and 72 with
    dense CRF (the Torch release).
    Stated: features of a network trained on ImageNet, classes weighed by one over their frequency (here the median
    frequency over it, the same up to a factor), mirroring alone, momentum 0.9.
    Assumed: about 500 superpixels, whole images in batches of four, 60,000 steps, rate 1e-2 falling to zero, weight
    decay 5e-4.
    """
    return RunConfig(
        name="zoomout_voc",
        recipe="zoomout_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(500, 500), flip=0.5, batch_size=4),
        precision="fp32",
        stages=(
            Stage(
                model=ModelChoice(name="zoomout", backbone=BackboneChoice(name="vgg16", weights="timm")),
                class_weights="median_frequency",
                optimizer=OptimizerChoice(name="sgd", lr=1e-2, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="poly", power=0.9),
                frozen=(r"^backbone\.",),
                steps=60_000,
            ),
        ),
    )

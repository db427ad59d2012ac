"""Recipes of FCN on VGG16, "Fully Convolutional Networks for Semantic Segmentation" (Long et al., CVPR 2015).

The paper is arXiv 1411.4038, the longer one arXiv 1605.06211. The settings are those of the authors' release (its
"heavy" training): whole images one by one without augmentation, the loss summed over the pixels, momentum 0.99. The
papers state batches of 20 images, a rate of 1e-4 and momentum 0.9 instead. Scores are mean IoU in per cent.
"""

from __future__ import annotations

from typing import Any

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    GroupRule,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)

__all__ = ["fcn8s_at_once_voc", "fcn_voc"]

_WHOLE_IMAGES = DataChoice(train_split="train_aug", crop_size=(500, 500), flip=0.0, batch_size=1)


def fcn_voc() -> RunConfig:
    """FCN on PASCAL VOC with the settings of the authors' release: FCN-32s, then FCN-16s, then FCN-8s.

    Command: ``perpixel train --recipe fcn_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 63.6, 65.0 and 65.5 for 32s, 16s and 8s on 736 images of VOC 2011 val
    (release), 59.4, 62.4 and 62.7 (paper); 67.2 for 8s on the VOC 2012 test set (release).
    The release trains on the 8,498 images of SBD's train split, some of which are in VOC's val, and scores the rest of
    val; train_aug has none of val. The first stage starts from timm's VGG16. The published start is the Caffe weights,
    for whose features the rates were found: give their file as ``stages.0.model.backbone.weights``.
    The window of 500x500 pixels holds every image of VOC whole; what it pads is mean colour without a label.
    """
    return RunConfig(
        name="fcn_voc",
        recipe="fcn_voc",
        labels="voc",
        data=_WHOLE_IMAGES,
        evaluation=EvaluationChoice(every=4000),
        precision="fp32",
        stages=(
            _stage("fcn32s", lr=1e-10, steps=100_000, weights="timm", options={"stride": 32}),
            _stage("fcn16s", lr=1e-12, steps=100_000, start="previous", options={"stride": 16}),
            _stage("fcn8s", lr=1e-14, steps=100_000, start="previous", options={"stride": 8}),
        ),
    )


def fcn8s_at_once_voc() -> RunConfig:
    """FCN-8s on PASCAL VOC in one stage, pool4 and pool3 scaled down before they are scored (authors' release).

    Command: ``perpixel train --recipe fcn8s_at_once_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 65.4 on 736 images of VOC 2011 val (release).
    Data and start are those of ``fcn_voc``.
    """
    return RunConfig(
        name="fcn8s_at_once_voc",
        recipe="fcn8s_at_once_voc",
        labels="voc",
        data=_WHOLE_IMAGES,
        evaluation=EvaluationChoice(every=4000),
        precision="fp32",
        stages=(_stage("main", lr=1e-10, steps=300_000, weights="timm", options={"stride": 8, "at_once": True}),),
    )


def _stage(
    name: str, *, lr: float, steps: int, options: dict[str, Any], weights: str = "none", start: str = "scratch"
) -> Stage:
    """The release's solver: a constant rate, doubled for biases, which do not decay; deconvolutions are fixed."""
    return Stage(
        name=name,
        start=start,
        model=ModelChoice(name="fcn_vgg16", backbone=BackboneChoice(name="vgg16", weights=weights), options=options),
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.99, weight_decay=5e-4),
        schedule=ScheduleChoice(name="constant"),
        groups=(GroupRule(pattern=r"\.bias$", lr_factor=2.0, weight_decay=0.0),),
        steps=steps,
    )

"""Recipes of ICNet, "ICNet for Real-Time Semantic Segmentation on High-Resolution Images" (Zhao et al., ECCV 2018).

The paper is arXiv 1704.08545, the authors' code hszhao/ICNet, which holds networks and weights but no training. Of that
are known the steps, the weights of the three losses, and that half of the kernels go by their L1 norm, in rounds. What
else these recipes state is PSPNet's (the same authors, the same data) and named as assumed. Scores are mean IoU on
Cityscapes in per cent, single scale.
"""

from __future__ import annotations

from typing import Any

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)

__all__ = ["icnet_cityscapes", "icnet_pruned_cityscapes", "icnet_resnet50_cityscapes"]

_CITYSCAPES = DataChoice(crop_size=(833, 833), scale_range=(0.5, 2.0), flip=0.5, batch_size=16)
"""32n + 1 pixels, at which the three branches meet exactly."""


def icnet_cityscapes() -> RunConfig:
    """ICNet on Cityscapes (fine annotations) at its published width, in one stage.

    Command: ``perpixel train --recipe icnet_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks; ``--from MODEL`` starts it from a pruned one.
    Hardware: one GPU with 24 GB. Time: not measured here.
    Score: not measured here; published: 67.7 on val (authors' release, 30,000 steps on train, pruned from the full
    width), 69.5 on test (90,000 steps on train and val).
    Stated: 30,000 steps, loss weights 0.16, 0.4 and 1. Assumed: batch 16, crop 833, rate 0.01 by poly 0.9, momentum
    0.9, weight decay 1e-4 on all parameters, mirror and scales 0.5 to 2. It begins at random: no ImageNet weights exist
    at this width.
    """
    return RunConfig(
        name="icnet_cityscapes",
        recipe="icnet_cityscapes",
        labels="cityscapes",
        data=_CITYSCAPES,
        stages=(_stage("main", width=32, steps=30_000),),
    )


def icnet_pruned_cityscapes() -> RunConfig:
    """ICNet on Cityscapes as its authors made it: trained at full width, pruned to a half in two rounds, tuned.

    Command: ``perpixel train --recipe icnet_pruned_cityscapes --data list:FOLDER``.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 67.7 on val, 69.5 on test (authors' release).
    Stated: the full width first, half of the kernels removed by L1 norm in several rounds, trained again; 30,000 steps;
    loss weights. Assumed: three quarters, then a half; 15,000 steps between; all that ``icnet_cityscapes`` assumes. The
    trunk begins with timm's ImageNet weights, whose third stage strides in the 3x3; the authors' in the 1x1.
    """
    timm: dict[str, Any] = {"stride_on_1x1": False}
    return RunConfig(
        name="icnet_pruned_cityscapes",
        recipe="icnet_pruned_cityscapes",
        labels="cityscapes",
        data=_CITYSCAPES,
        stages=(
            _stage("full", width=64, steps=30_000, options=timm, weights="timm"),
            _stage("three_quarters", width=48, steps=15_000, options=timm, start="pruned"),
            _stage("half", width=32, steps=30_000, options=timm, start="pruned"),
        ),
    )


def icnet_resnet50_cityscapes() -> RunConfig:
    """ICNet on a whole ResNet-50 run at two scales, on Cityscapes, with the settings of liminn/ICNet-pytorch.

    Command: ``perpixel train --recipe icnet_resnet50_cityscapes --data list:FOLDER``.
    Hardware: one GPU with 40 GB. Time: not measured here.
    Score: not measured here; published: 71.0 on val (that code's page).
    Stated: crop 960, batch 7, rate 0.01 and ten times that for new layers, 200 epochs, loss weights 0.4, 0.4 and 1.
    Assumed: poly 0.9, momentum 0.9, weight decay 1e-4, scales 0.5 to 2. That code shrinks label maps bilinearly, which
    invents classes at borders; here they are sampled.
    """
    model = ModelChoice(
        name="icnet",
        backbone=BackboneChoice(name="resnet50", stem="deep64", output_stride=8, weights="timm"),
        options={
            "pooling": "adaptive",
            "context_projection": False,
            "guidance": "dilated",
            "classifier_bias": False,
            "loss_weights": (0.4, 0.4, 1.0),
            "norm_momentum": 0.1,
        },
    )
    return RunConfig(
        name="icnet_resnet50_cityscapes",
        recipe="icnet_resnet50_cityscapes",
        labels="cityscapes",
        data=DataChoice(crop_size=(960, 960), scale_range=(0.5, 2.0), flip=0.5, batch_size=7),
        stages=(
            Stage(
                model=model,
                optimizer=OptimizerChoice(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4),
                schedule=ScheduleChoice(name="poly", power=0.9),
                new_layers_lr_factor=10.0,
                no_decay_norm_bias=False,
                steps=200 * (2975 // 7),
            ),
        ),
    )


def _stage(
    name: str,
    *,
    width: int,
    steps: int,
    options: dict[str, Any] | None = None,
    start: str = "scratch",
    weights: str = "none",
) -> Stage:
    """The authors' network at a width, trained as PSPNet is."""
    backbone = BackboneChoice(name="icnet_resnet50", weights=weights)
    return Stage(
        name=name,
        start=start,
        model=ModelChoice(name="icnet", backbone=backbone, options={"width": width, **(options or {})}),
        optimizer=OptimizerChoice(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        no_decay_norm_bias=False,
        steps=steps,
    )

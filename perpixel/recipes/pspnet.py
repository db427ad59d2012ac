"""Recipes of PSPNet, "Pyramid Scene Parsing Network" (Zhao et al., CVPR 2017, arXiv:1612.01105).

The settings are those of hszhao/semseg, by the paper's author, which agree with the paper's in all that both state:
rate 0.01 with poly decay of power 0.9, momentum 0.9, weight decay 1e-4 on every parameter, 16 images, 0.4 times the
auxiliary loss, scales 0.5 to 2, mirroring. New layers learn ten times as fast. Left out is what semseg adds with
probability one half each: rotation by up to 10 degrees and a blur. Scores are mean IoU in per cent on val; semseg's
count an absent class as 0 and mirror the image even at a single scale.
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

__all__ = ["pspnet_r50_ade20k", "pspnet_r101_cityscapes", "pspnet_r101_voc"]

_BATCH = 16


def pspnet_r50_ade20k() -> RunConfig:
    """PSPNet on ResNet-50 for ADE20K (150 classes).

    Command: ``perpixel train --recipe pspnet_r50_ade20k --data list:FOLDER``, with train.txt and val.txt that pair
    images with masks; train holds 20,210 images.
    Hardware: one GPU with 48 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 41.68, multi-scale 42.78 (paper); 41.89, multi-scale 42.84 (semseg).
    100 epochs of 1,263 batches. The published code starts from ImageNet weights of its own for the same trunk (top-1
    76.63), here it is timm's; it normalises over all its GPUs, so split batches want synchronised batch norm.
    """
    return _run("pspnet_r50_ade20k", labels="ade20k150", depth=50, data=_data(473), steps=126_300)


def pspnet_r101_voc() -> RunConfig:
    """PSPNet on ResNet-101 for PASCAL VOC 2012 (21 classes).

    Command: ``perpixel train --recipe pspnet_r101_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 48 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 79.07, multi-scale 79.63 (semseg); 82.6 on the test set, 85.4 with COCO
    (paper).
    50 epochs of 661 batches. What ``pspnet_r50_ade20k`` says of the start holds here.
    """
    data = _data(473).model_copy(update={"train_split": "train_aug"})
    return _run("pspnet_r101_voc", labels="voc", depth=101, data=data, steps=33_050)


def pspnet_r101_cityscapes() -> RunConfig:
    """PSPNet on ResNet-101 for Cityscapes (19 classes, fine annotations).

    Command: ``perpixel train --recipe pspnet_r101_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks; train holds 2,975 images.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 78.63, multi-scale 79.29 (semseg); 79.70, multi-scale 80.91 (Caffe release);
    78.4 on the test set, 80.2 with coarse annotations (paper).
    200 epochs of 185 batches. What ``pspnet_r50_ade20k`` says of the start holds here.
    """
    return _run("pspnet_r101_cityscapes", labels="cityscapes", depth=101, data=_data(713), steps=37_000)


def _data(crop: int) -> DataChoice:
    """Windows of 8n + 1 pixels, over which cells of stride 8 lie with aligned corners."""
    return DataChoice(crop_size=(crop, crop), scale_range=(0.5, 2.0), flip=0.5, batch_size=_BATCH)


def _run(name: str, *, labels: str, depth: int, data: DataChoice, steps: int) -> RunConfig:
    trunk = BackboneChoice(name=f"resnet{depth}", stem="deep64", weights="timm", output_stride=8, dilation="full")
    return RunConfig(
        name=name,
        recipe=name,
        labels=labels,
        data=data,
        evaluation=EvaluationChoice(every=steps // 20),
        precision="fp32",
        stages=(
            Stage(
                model=ModelChoice(name="pspnet", backbone=trunk),
                optimizer=OptimizerChoice(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4),
                schedule=ScheduleChoice(name="poly", power=0.9),
                new_layers_lr_factor=10.0,
                no_decay_norm_bias=False,
                steps=steps,
            ),
        ),
    )

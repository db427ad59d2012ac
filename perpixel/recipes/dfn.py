"""Recipes of DFN, "Learning a Discriminative Feature Network for Semantic Segmentation" (Yu et al., CVPR 2018).

The paper is arXiv 1804.09337. The published code is TorchSeg, whose settings differ from the paper's in learning rate,
weight decay and scales. Its border loss has a known fault (TorchSeg issue 16: it pushes every border score up, whatever
the target); the recipes here train borders with the focal loss of the paper.
Scores are mean IoU in per cent, single scale unless said.
"""

from __future__ import annotations

from typing import Any

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    SceneChoice,
    ScheduleChoice,
    Stage,
    TermChoice,
)

__all__ = ["dfn_camvid", "dfn_camvid_small", "dfn_cityscapes", "dfn_demo", "dfn_voc", "dfn_voc_paper"]

_PAPER_SCALES = (0.5, 0.75, 1.0, 1.5, 1.75)
_TORCHSEG_SCALES = (*_PAPER_SCALES, 2.0)


def dfn_demo() -> RunConfig:
    """A small DFN on generated street scenes: no data, no download, minutes on a CPU.

    Command: ``perpixel demo``, or ``perpixel train --recipe dfn_demo``.
    Hardware: two CPU cores. Time: 2.5 minutes (measured); ``perpixel demo`` trains an FCN beside it, 4 minutes in all.
    Score: 75.4 on 40 held-out scenes (measured), the FCN 55.9; none is published, the scenes are perpixel's own.
    The backbone is the smallest residual network of timm (0.5 million parameters); every scene is new enough that no
    augmentation but windows and mirroring is needed.
    """
    return RunConfig(
        name="dfn_demo",
        recipe="dfn_demo",
        data=DataChoice(
            source="scenes",
            scenes=SceneChoice(train=480, val=40, height=256, width=256, inconsistency=0.3, indistinction=0.3),
            crop_size=(192, 192),
            batch_size=8,
        ),
        evaluation=EvaluationChoice(every=200),
        stages=(
            Stage(
                model=ModelChoice(
                    name="dfn",
                    backbone=BackboneChoice(name="test_resnet"),
                    options={"width": 48, "border_width": 8, "head_expansion": 4, "align_corners": False},
                ),
                terms=_terms_at_their_own_resolution(border_weight=0.1),
                class_weights="sqrt_median_frequency",
                max_class_weight=5.0,
                optimizer=OptimizerChoice(name="adamw", lr=3e-3, weight_decay=1e-2),
                schedule=ScheduleChoice(name="poly", power=0.9),
                ema_decay=0.99,
                steps=800,
            ),
        ),
    )


def dfn_camvid_small() -> RunConfig:
    """A DFN on ResNet-18 for CamVid (11 classes, 360x480) that two CPU cores can train, from random weights.

    Command: ``perpixel train --recipe dfn_camvid_small --data camvid:FOLDER``.
    Hardware: two CPU cores. Time: 59 minutes (measured), report and predictions included.
    Score: 67.1 on the 101 validation images (measured); none is published for this size.
    Two stages, because from scratch and in this time it is steps that are wanting: first half the resolution, where a
    crop of as much street costs a quarter, then the whole. Rare classes are found by the coarse heads, which learn
    with the square root of median frequency; the finest head, whose scores count, learns without weights, which would
    have it call too much fence and pole, and with Lovasz-softmax beside cross-entropy. Corners are not aligned:
    aligned ones move scores by up to 3 pixels, the width of a pole.
    """
    half = _camvid_small_stage(
        "half",
        start="scratch",
        model=ModelChoice(
            name="dfn",
            backbone=BackboneChoice(name="resnet18", stem="deep32"),
            options={"width": 64, "border_width": 16, "head_expansion": 4, "align_corners": False},
        ),
        data={"crop_size": (128, 160), "scale_range": (0.35, 0.75), "batch_size": 16},
        schedule=ScheduleChoice(name="poly", power=0.9, min_factor=0.3),
        steps=2000,
    )
    whole = _camvid_small_stage("whole", start="previous", schedule=ScheduleChoice(name="poly", power=0.9), steps=2250)
    return RunConfig(
        name="dfn_camvid_small",
        recipe="dfn_camvid_small",
        labels="camvid11",
        data=DataChoice(
            crop_size=(256, 320),
            scale_range=(0.7, 1.5),
            flip=0.5,
            brightness=0.3,
            contrast=0.3,
            saturation=0.3,
            batch_size=8,
        ),
        evaluation=EvaluationChoice(every=1125),
        stages=(half, whole),
    )


def _camvid_small_stage(
    name: str,
    *,
    start: str,
    schedule: ScheduleChoice,
    steps: int,
    model: ModelChoice | None = None,
    data: dict[str, Any] | None = None,
) -> Stage:
    terms = _terms_at_their_own_resolution(border_weight=1.0, main_options={"class_weights": [1.0] * 11})
    return Stage(
        name=name,
        start=start,
        model=model,
        data=data or {},
        terms=(*terms, TermChoice(name="lovasz", loss="lovasz_softmax", at="logits")),
        class_weights="sqrt_median_frequency",
        max_class_weight=5.0,
        optimizer=OptimizerChoice(name="adamw", lr=1e-3, weight_decay=1e-2),
        schedule=schedule,
        ema_decay=0.995,
        steps=steps,
    )


def _terms_at_their_own_resolution(
    *, border_weight: float, main_options: dict[str, Any] | None = None
) -> tuple[TermChoice, ...]:
    """DFN's loss with the finest class scores compared at the mask's resolution, everything else at its own."""
    return (
        TermChoice(name="main", options=main_options or {}),
        *(TermChoice(name=f"deep{i}", output="deep", index=i, at="logits") for i in range(3)),
        *(
            TermChoice(
                name=f"border{i}", output="border", index=i, loss="border_focal", at="logits", weight=border_weight
            )
            for i in range(4)
        ),
    )


def dfn_camvid() -> RunConfig:
    """The full DFN (ResNet-101, width 512) for CamVid (11 classes, 360x480), from ImageNet weights.

    Command: ``perpixel train --recipe dfn_camvid --data camvid:FOLDER``.
    Hardware: one GPU with 24 GB. Time: not measured here.
    Score: not measured here; published: 60.1 on the test split, a re-run by others with settings of their own.
    Length, crop and learning rate are perpixel's: TorchSeg's for VOC, halved with the batch; the paper has no CamVid.
    """
    return RunConfig(
        name="dfn_camvid",
        recipe="dfn_camvid",
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
        stages=(_resnet101_stage(lr=4e-4, weight_decay=1e-4, steps=12_000),),
    )


def dfn_voc() -> RunConfig:
    """DFN on PASCAL VOC 2012 with the settings of the published code (TorchSeg).

    Command: ``perpixel train --recipe dfn_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 80 GB, or several with 32 images between them. Time: not measured here.
    Score: not measured here; published: 79.40, multi-scale and flip 81.40 (TorchSeg); 79.67 (paper), on val.
    120 epochs of 330 batches. TorchSeg normalises over all its GPUs, so split batches want synchronised batch norm.
    """
    return RunConfig(
        name="dfn_voc",
        recipe="dfn_voc",
        labels="voc",
        data=DataChoice(
            train_split="train_aug", crop_size=(512, 512), scales=_TORCHSEG_SCALES, flip=0.5, batch_size=32
        ),
        precision="fp32",
        stages=(_resnet101_stage(lr=8e-4, weight_decay=1e-5, steps=39_600),),
    )


def dfn_voc_paper() -> RunConfig:
    """DFN on PASCAL VOC 2012 with the settings that the paper states, and assumptions where it states none.

    Command: ``perpixel train --recipe dfn_voc_paper --data voc:FOLDER``.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 79.67 on val (paper); 80.6 multi-scale after further training on train.
    Stated: learning rate 4e-3, power 0.9, momentum 0.9, weight decay 1e-4, batch 32, mirror, scales 0.5 to 1.75.
    Assumed: crop 512x512, 39,600 steps, the same rate for new layers, no weight decay on norm layers and biases,
    the backbone's stem and weights (all but the rate of new layers as in TorchSeg).
    """
    return RunConfig(
        name="dfn_voc_paper",
        recipe="dfn_voc_paper",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(512, 512), scales=_PAPER_SCALES, flip=0.5, batch_size=32),
        precision="fp32",
        stages=(_resnet101_stage(lr=4e-3, weight_decay=1e-4, steps=39_600, new_layers_lr_factor=1.0),),
    )


def dfn_cityscapes() -> RunConfig:
    """DFN on Cityscapes (fine annotations) with the settings of the published code (TorchSeg).

    Command: ``perpixel train --recipe dfn_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 79.09, multi-scale and flip 80.41 (TorchSeg); 78.5 and 79.3 (paper), on val.
    """
    return RunConfig(
        name="dfn_cityscapes",
        recipe="dfn_cityscapes",
        labels="cityscapes",
        data=DataChoice(crop_size=(800, 800), scales=_TORCHSEG_SCALES, flip=0.5, batch_size=16),
        precision="fp32",
        stages=(_resnet101_stage(lr=7e-4, weight_decay=1e-4, steps=80_000),),
    )


def _resnet101_stage(*, lr: float, weight_decay: float, steps: int, new_layers_lr_factor: float = 10.0) -> Stage:
    """The published network and optimiser; the numbers are what the data sets differ in."""
    return Stage(
        model=ModelChoice(
            name="dfn",
            backbone=BackboneChoice(name="resnet101", stem="deep64", weights="timm"),
            options={"width": 512, "border_width": 21},
        ),
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=weight_decay),
        schedule=ScheduleChoice(name="poly", power=0.9),
        new_layers_lr_factor=new_layers_lr_factor,
        no_decay_norm_bias=True,
        steps=steps,
    )

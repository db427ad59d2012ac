"""Recipes of GCN, "Large Kernel Matters" (Peng et al., CVPR 2017, arXiv 1703.02719).

The authors published no code, and their learning rate and number of steps are not known here. Scores are mean IoU in
per cent, single scale unless said.
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

__all__ = ["gcn_cityscapes", "gcn_voc"]

_TRAIN_AUG, _TRAIN, _CITYSCAPES = 10_582, 1_464, 2_975
"""Images in each training set."""
_EPOCHS = 20


def gcn_voc() -> RunConfig:
    """GCN on PASCAL VOC 2012: ResNet-152, k = 15, first on the augmented training set, then on VOC's own images.

    Command: ``perpixel train --recipe gcn_voc --data voc:FOLDER``; train_aug holds 10,582 images, train 1,464.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 80.3 on val, 80.4 multi-scale, 81.0 with CRF, 82.2 on the test set, all after a
    stage on COCO; without COCO the paper's ablation has 74.5 for k = 15 and 74.7 with boundary refinement.
    Stated: batch 1, momentum 0.99, weight decay 5e-4, mirror, images padded to 512x512, these two stages after one on
    COCO, SBD and VOC (109,892 images, padded to 640x640).
    Assumed: learning rate 1e-4 with poly 0.9, 20 epochs per stage, batch norm frozen (single images), the same rate for
    new layers, timm's ImageNet weights. The stage on COCO is not here: give a network trained on it as
    ``stages.0.start``.
    """
    return RunConfig(
        name="gcn_voc",
        recipe="gcn_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(512, 512), flip=0.5, batch_size=1),
        evaluation=EvaluationChoice(every=_TRAIN_AUG),
        precision="fp32",
        stages=(
            _stage("augmented", steps=_EPOCHS * _TRAIN_AUG, model=_model(15)),
            _stage("voc", steps=_EPOCHS * _TRAIN, start="previous", train_split="train"),
        ),
    )


def gcn_cityscapes() -> RunConfig:
    """GCN on Cityscapes (fine annotations): ResNet-152, k = 25, crops of 800.

    Command: ``perpixel train --recipe gcn_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair images
    with labelIds masks.
    Hardware: one GPU with 24 GB. Time: not measured here.
    Score: not measured here; published: 76.9 on val, 77.2 multi-scale, 77.4 with CRF; 76.9 on the test set.
    Stated: k = 25, crops of 800x800, batch 1, momentum 0.99, weight decay 5e-4, mirror; a first stage on the coarse
    annotations too (22,973 images), then this one; evaluated on four crops of 1024x1024 whose scores are joined.
    Assumed: learning rate 1e-4 with poly 0.9, 20 epochs, batch norm frozen, the same rate for new layers, timm's
    ImageNet weights. The stage on the coarse annotations is not here.
    """
    return RunConfig(
        name="gcn_cityscapes",
        recipe="gcn_cityscapes",
        labels="cityscapes",
        data=DataChoice(crop_size=(800, 800), flip=0.5, batch_size=1),
        evaluation=EvaluationChoice(every=_CITYSCAPES),
        precision="fp32",
        stages=(_stage("main", steps=_EPOCHS * _CITYSCAPES, model=_model(25)),),
    )


def _model(kernel_size: int) -> ModelChoice:
    return ModelChoice(
        name="gcn",
        backbone=BackboneChoice(name="resnet152", weights="timm"),
        options={"kernel_sizes": (kernel_size,)},
    )


def _stage(
    name: str, *, steps: int, model: ModelChoice | None = None, start: str = "scratch", train_split: str | None = None
) -> Stage:
    return Stage(
        name=name,
        start=start,
        model=model,
        data={} if train_split is None else {"train_split": train_split},
        optimizer=OptimizerChoice(name="sgd", lr=1e-4, momentum=0.99, weight_decay=5e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        no_decay_norm_bias=False,
        freeze_batch_norm=True,
        steps=steps,
    )

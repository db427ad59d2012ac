"""Recipes of EncNet, "Context Encoding for Semantic Segmentation" (Zhang et al., CVPR 2018, arXiv 1803.08904).

The settings are those of the authors' PyTorch-Encoding, for batches of 16: SGD with momentum 0.9 and weight decay 1e-4
on every parameter, norms and biases too, head and auxiliary head at ten times the rate, poly schedule per step.
Scores are pixel accuracy and mean IoU in per cent; that code scores six scales and their mirror images.

Where it differs: that code draws the long side of an image, uniformly from 0.5 to 2 times a base of 520 pixels, here
the factor of the image's own size is drawn. Images of PASCAL have a long side of 500 pixels, and the range is changed
to match; on ADE20K, whose sizes vary, it is not the same draw. That code fills what a window lacks with label 0, which
on VOC trains the filling as background; here it is ignored. The paper also rotates by up to 10 degrees, the code not.
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

__all__ = ["encnet_ade20k", "encnet_pcontext", "encnet_r50_ade20k", "encnet_voc", "encnet_voc_finetune"]

_BATCH = 16
_PASCAL_SCALES = (0.5 * 520 / 500, 2.0 * 520 / 500)
_ADE_IMAGES = 20_210
_CONTEXT_IMAGES = 4_998
_VOC_IMAGES = {"train": 1_464, "train_aug": 10_582}


def encnet_pcontext() -> RunConfig:
    """EncNet (ResNet-101, lateral connections) on PASCAL-Context, 59 classes, with the settings of its code.

    Command: ``perpixel train --recipe encnet_pcontext --data list:FOLDER``, with train.txt (4,998 images) and val.txt
    (5,105) that pair images with masks; masks hold 0 for the background, which is ignored, and 1 to 59.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 80.4 and 51.7, several scales 81.2 and 52.6 (paper); several scales 80.7 and
    54.1 (the code's own page), on val. With the background as a 60th class the paper states 51.7.
    The classes are in the order of the code's masks, which is alphabetical. 80 epochs.
    """
    return RunConfig(
        name="encnet_pcontext",
        recipe="encnet_pcontext",
        labels="pascal_context59",
        data=DataChoice(crop_size=(480, 480), scale_range=_PASCAL_SCALES, flip=0.5, batch_size=_BATCH),
        evaluation=EvaluationChoice(every=2496),
        precision="fp32",
        stages=(_stage("resnet101", lr=1e-3, epochs=80, images=_CONTEXT_IMAGES, lateral=True),),
    )


def encnet_ade20k() -> RunConfig:
    """EncNet (ResNet-101) on ADE20K, 150 classes, with the settings of its code: windows of 576 pixels.

    Command: ``perpixel train --recipe encnet_ade20k --data list:FOLDER``, with train.txt (20,210 images) and val.txt
    (2,000) that pair images with masks; masks hold 0 for what is ignored, and 1 to 150.
    Hardware: one GPU with 141 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: several scales 81.69 and 44.65 (paper), 81.3 and 44.4 (the code's own page).
    120 epochs. The code's base for these windows is 640 pixels; no lateral connections, as in the code.
    """
    return RunConfig(
        name="encnet_ade20k",
        recipe="encnet_ade20k",
        labels="ade20k150",
        data=DataChoice(crop_size=(576, 576), scale_range=(0.5, 2.0), flip=0.5, batch_size=_BATCH),
        evaluation=EvaluationChoice(every=12_630),
        precision="fp32",
        stages=(_stage("resnet101", lr=1e-2, epochs=120, images=_ADE_IMAGES),),
    )


def encnet_r50_ade20k() -> RunConfig:
    """EncNet (ResNet-50) on ADE20K, 150 classes, with the settings of its code: windows of 480 pixels.

    Command: ``perpixel train --recipe encnet_r50_ade20k --data list:FOLDER``, as for ``encnet_ade20k``.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: several scales 79.73 and 41.11 (paper), 80.1 and 41.5 (the code's own page).
    120 epochs.
    """
    return RunConfig(
        name="encnet_r50_ade20k",
        recipe="encnet_r50_ade20k",
        labels="ade20k150",
        data=DataChoice(crop_size=(480, 480), scale_range=(0.5, 2.0), flip=0.5, batch_size=_BATCH),
        evaluation=EvaluationChoice(every=12_630),
        precision="fp32",
        stages=(_stage("resnet50", lr=1e-2, epochs=120, images=_ADE_IMAGES),),
    )


def encnet_voc() -> RunConfig:
    """EncNet (ResNet-101, lateral connections) on the augmented PASCAL VOC 2012 with the settings of its code.

    Command: ``perpixel train --recipe encnet_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published, after ``encnet_voc_finetune``: 82.9 mean IoU on the test set, 85.9 with COCO
    before it. For that, the code trains COCO's images of VOC's classes first (30 epochs, rate 4e-3), without lateral
    connections, whatever its own settings say; no recipe here does. 80 epochs.
    """
    return RunConfig(
        name="encnet_voc",
        recipe="encnet_voc",
        labels="voc",
        data=DataChoice(
            train_split="train_aug", crop_size=(480, 480), scale_range=_PASCAL_SCALES, flip=0.5, batch_size=_BATCH
        ),
        evaluation=EvaluationChoice(every=5288),
        precision="fp32",
        stages=(_stage("resnet101", lr=1e-3, epochs=80, images=_VOC_IMAGES["train_aug"], lateral=True),),
    )


def encnet_voc_finetune() -> RunConfig:
    """EncNet (ResNet-101) from ``encnet_voc`` on VOC's own masks: the last step to the published network.

    Command: ``perpixel train --recipe encnet_voc_finetune --data voc:FOLDER --from ARTIFACT`` with ARTIFACT the
    ``best`` folder of a run of ``encnet_voc``.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 82.9 mean IoU on the test set, 85.9 with COCO before ``encnet_voc``.
    50 epochs at a tenth of the rate. That they are epochs of the split train (1,464 images), which leaves val to be
    scored, is assumed; networks for the test set are trained on trainval.
    """
    return RunConfig(
        name="encnet_voc_finetune",
        recipe="encnet_voc_finetune",
        labels="voc",
        data=DataChoice(crop_size=(480, 480), scale_range=_PASCAL_SCALES, flip=0.5, batch_size=_BATCH),
        evaluation=EvaluationChoice(every=910),
        precision="fp32",
        stages=(_stage("resnet101", lr=1e-4, epochs=50, images=_VOC_IMAGES["train"], lateral=True),),
    )


def _stage(backbone: str, *, lr: float, epochs: int, images: int, lateral: bool = False) -> Stage:
    """The network and its optimiser; the code gives lateral connections to data sets of PASCAL alone."""
    return Stage(
        model=ModelChoice(
            name="encnet",
            backbone=BackboneChoice(name=backbone, stem="deep64", weights="timm", output_stride=8),
            options={"lateral": lateral},
        ),
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        new_layers_lr_factor=10.0,
        no_decay_norm_bias=False,
        steps=epochs * (images // _BATCH),
    )

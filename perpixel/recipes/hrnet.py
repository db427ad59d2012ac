"""Recipes of HRNet and OCRNet on HRNet W48 (Sun et al., 2019, arXiv 1904.04514; Yuan et al., ECCV 2020, 1909.11065).

The settings are those of the authors' code, HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR: plain SGD, poly at
every step, weight decay on everything, ImageNet weights. Scores are mean IoU in per cent.

Two of its habits are not repeated. Factors of size are of the image itself; that code first brings the longer side to
520 pixels (473 for LIP). Where a window leaves the image it is filled with the mean colour, in that code with black.
An epoch counts whole batches only: 247 for Cityscapes, 312 for PASCAL-Context, 761 for LIP, 1263 for ADE20K, 562 for
COCO-Stuff.
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

__all__ = [
    "CITYSCAPES_CLASS_WEIGHTS",
    "hrnet_ade20k",
    "hrnet_cityscapes",
    "hrnet_coco_stuff",
    "hrnet_lip",
    "hrnet_pascal_context",
    "ocrnet_ade20k",
    "ocrnet_cityscapes",
    "ocrnet_coco_stuff",
    "ocrnet_lip",
    "ocrnet_pascal_context",
]

CITYSCAPES_CLASS_WEIGHTS = (
    *(0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)
"""The authors' numbers, in the order of label space cityscapes; by which rule they came about is not stated."""

_UP_TO_2_1 = tuple(round(0.5 + 0.1 * i, 1) for i in range(17))
_UP_TO_1_6 = _UP_TO_2_1[:12]
_HRNET: dict[str, Any] = {"align_corners": False}
_OCRNET: dict[str, Any] = {"align_corners": True}
_UNSTATED: dict[str, Any] = {"align_corners": True}
"""HRNet's where its settings do not mention it: the code's default."""


def hrnet_cityscapes() -> RunConfig:
    """HRNet W48 on Cityscapes (fine annotations) with the settings of the authors' code.

    Command: ``perpixel train --recipe hrnet_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks.
    Hardware: four GPUs with three images on each, as published. Time: not measured here.
    Score: not measured here; published: 80.9 on val, 81.2 with hard pixels (``model.options.ohem=true``), 81.5 on test,
    81.9 there when trained on val too.
    """
    return _cityscapes("hrnet_cityscapes", "hrnet", _HRNET)


def ocrnet_cityscapes() -> RunConfig:
    """OCRNet on HRNet W48 on Cityscapes (fine annotations) with the settings of the authors' code.

    Command: ``perpixel train --recipe ocrnet_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks.
    Hardware: four GPUs with three images on each, as published. Time: not measured here.
    Score: not measured here; published: 81.6 on val; 82.3 on test, trained on val too, multi-scale and flip.
    """
    return _cityscapes("ocrnet_cityscapes", "ocrnet", _OCRNET)


def hrnet_pascal_context() -> RunConfig:
    """HRNet W48 on PASCAL-Context (59 classes, or 60) with the settings of the authors' code.

    Command: ``perpixel train --recipe hrnet_pascal_context --data list:FOLDER --labels 59``, with train.txt (4,998
    images) and val.txt, and masks of ids 0 to 58 and 255.
    Hardware: several GPUs, 16 images between them. Time: not measured here.
    Score: not measured here; published: 54.1 with 59 classes, 48.3 with 60, both multi-scale and flip.
    """
    return _pascal_context("hrnet_pascal_context", "hrnet", _HRNET)


def ocrnet_pascal_context() -> RunConfig:
    """OCRNet on HRNet W48 on PASCAL-Context (59 classes, or 60) with the settings of the authors' code.

    Command: ``perpixel train --recipe ocrnet_pascal_context --data list:FOLDER --labels 59``, with train.txt (4,998
    images) and val.txt, and masks of ids 0 to 58 and 255.
    Hardware: several GPUs, 16 images between them. Time: not measured here.
    Score: not measured here; published: 56.2 with 59 classes, 50.1 with 60, both multi-scale and flip.
    """
    return _pascal_context("ocrnet_pascal_context", "ocrnet", _OCRNET)


def hrnet_lip() -> RunConfig:
    """HRNet W48 on LIP (20 classes of body parts and clothes) with the settings of the authors' code.

    Command: ``perpixel train --recipe hrnet_lip --data list:FOLDER --labels 20``, with train.txt (30,462 images) and
    val.txt.
    Hardware: several GPUs, 40 images between them. Time: not measured here.
    Score: not measured here; published: 56.04, and 55.83 in another row of the authors' table.
    Nothing is mirrored: that would need left and right arms, legs and shoes exchanged in the masks, as that code does.
    """
    return _lip("hrnet_lip", "hrnet", _HRNET)


def ocrnet_lip() -> RunConfig:
    """OCRNet on HRNet W48 on LIP (20 classes of body parts and clothes) with the settings of the authors' code.

    Command: ``perpixel train --recipe ocrnet_lip --data list:FOLDER --labels 20``, with train.txt (30,462 images) and
    val.txt.
    Hardware: several GPUs, 40 images between them. Time: not measured here.
    Score: not measured here; published: 56.48.
    Nothing is mirrored, as in ``hrnet_lip``. That the rest is that of HRNet alone is assumed.
    """
    return _lip("ocrnet_lip", "ocrnet", _OCRNET)


def hrnet_ade20k() -> RunConfig:
    """HRNet W48 on ADE20K (150 classes) with the settings of the authors' code.

    Command: ``perpixel train --recipe hrnet_ade20k --data list:FOLDER``, with train.txt (20,210 images) and val.txt.
    Hardware: several GPUs, 16 images between them. Time: not measured here.
    Score: not measured here; published: 43.1 on val, 44.2 multi-scale.
    Corners are aligned, as that code does where its settings do not say otherwise: for ADE20K they do not.
    """
    return _ade20k("hrnet_ade20k", "hrnet", _UNSTATED)


def ocrnet_ade20k() -> RunConfig:
    """OCRNet on HRNet W48 on ADE20K (150 classes) with the settings of the authors' code, hard pixels included.

    Command: ``perpixel train --recipe ocrnet_ade20k --data list:FOLDER``, with train.txt (20,210 images) and val.txt.
    Hardware: several GPUs, 16 images between them. Time: not measured here.
    Score: not measured here; published: 44.5 on val, 45.5 multi-scale.
    The last output learns on pixels whose true class has a probability of at most 0.9, and on 131,072 of a batch at
    least; that code counts them on each GPU, so several GPUs there keep more.
    """
    return _ade20k("ocrnet_ade20k", "ocrnet", {**_OCRNET, "ohem": True})


def hrnet_coco_stuff() -> RunConfig:
    """HRNet W48 on COCO-Stuff 10k (171 classes) with the settings of the authors' code.

    Command: ``perpixel train --recipe hrnet_coco_stuff --data list:FOLDER --labels 171``, with train.txt (9,000 images)
    and val.txt, and masks of ids 0 to 170 and 255.
    Hardware: several GPUs, 16 images between them. Time: not measured here.
    Score: not measured here; published: 36.2, 37.9 multi-scale.
    Corners are aligned, as in ``hrnet_ade20k``.
    """
    return _coco_stuff("hrnet_coco_stuff", "hrnet", _UNSTATED)


def ocrnet_coco_stuff() -> RunConfig:
    """OCRNet on HRNet W48 on COCO-Stuff 10k (171 classes) with the settings of the authors' code, hard pixels included.

    Command: ``perpixel train --recipe ocrnet_coco_stuff --data list:FOLDER --labels 171``, with train.txt (9,000
    images) and val.txt, and masks of ids 0 to 170 and 255.
    Hardware: several GPUs, 16 images between them. Time: not measured here.
    Score: not measured here; published: 39.7, 40.6 multi-scale.
    What ``ocrnet_ade20k`` says of hard pixels holds here.
    """
    return _coco_stuff("ocrnet_coco_stuff", "ocrnet", {**_OCRNET, "ohem": True})


def _cityscapes(name: str, model: str, options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        name=name,
        recipe=name,
        labels="cityscapes",
        data=DataChoice(crop_size=(512, 1024), scales=_UP_TO_2_1, flip=0.5, batch_size=12),
        precision="fp32",
        stages=(
            _stage(
                model,
                options,
                lr=0.01,
                weight_decay=5e-4,
                steps=484 * 247,
                class_weights=CITYSCAPES_CLASS_WEIGHTS,
            ),
        ),
    )


def _pascal_context(name: str, model: str, options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        name=name,
        recipe=name,
        data=DataChoice(crop_size=(520, 520), scales=_UP_TO_2_1, flip=0.5, batch_size=16),
        precision="fp32",
        stages=(_stage(model, options, lr=0.001, weight_decay=1e-4, steps=200 * 312, new_layers_lr_factor=10.0),),
    )


def _lip(name: str, model: str, options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        name=name,
        recipe=name,
        data=DataChoice(crop_size=(473, 473), scales=_UP_TO_1_6, flip=0.0, batch_size=40),
        precision="fp32",
        stages=(_stage(model, options, lr=0.007, weight_decay=5e-4, steps=150 * 761),),
    )


def _ade20k(name: str, model: str, options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        name=name,
        recipe=name,
        labels="ade20k150",
        data=DataChoice(crop_size=(520, 520), scales=_UP_TO_1_6, flip=0.5, batch_size=16),
        precision="fp32",
        stages=(_stage(model, options, lr=0.02, weight_decay=1e-4, steps=120 * 1263),),
    )


def _coco_stuff(name: str, model: str, options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        name=name,
        recipe=name,
        data=DataChoice(crop_size=(520, 520), scales=_UP_TO_2_1, flip=0.5, batch_size=16),
        precision="fp32",
        stages=(_stage(model, options, lr=0.001, weight_decay=1e-4, steps=110 * 562, new_layers_lr_factor=10.0),),
    )


def _stage(
    model: str,
    options: dict[str, Any],
    *,
    lr: float,
    weight_decay: float,
    steps: int,
    new_layers_lr_factor: float = 1.0,
    class_weights: tuple[float, ...] | None = None,
) -> Stage:
    """The published trunk and optimiser; the numbers are what the data sets differ in."""
    return Stage(
        model=ModelChoice(name=model, backbone=BackboneChoice(name="hrnet_w48", weights="timm"), options=options),
        class_weights="none" if class_weights is None else class_weights,
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=weight_decay),
        schedule=ScheduleChoice(name="poly", power=0.9),
        new_layers_lr_factor=new_layers_lr_factor,
        no_decay_norm_bias=False,
        steps=steps,
    )

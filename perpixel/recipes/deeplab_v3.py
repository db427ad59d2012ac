"""Recipes of DeepLab v3 and v3+ (Chen et al. 2017, arXiv 1706.05587; ECCV 2018, arXiv 1802.02611).

The settings are those of the authors' TensorFlow code (models/research/deeplab) where it states them: rate 0.007 with
poly decay of power 0.9, momentum 0.9, 16 images, windows of 513 pixels, scales 0.5 to 2.0 in steps of 0.25, mirroring,
3e-4 of a batch in running statistics. What is the papers' alone was recalled and not read in a source; each recipe says
so. Assumed throughout: no weight decay on norm layers and biases. Batch norm is trained, so batches that are split want
synchronised batch norm. Scores are mean IoU in per cent, single scale unless said.
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
    ScheduleChoice,
    Stage,
)

__all__ = [
    "deeplab_v3_cityscapes",
    "deeplab_v3_voc",
    "deeplab_v3_voc_test",
    "deeplab_v3plus_cityscapes",
    "deeplab_v3plus_resnet_voc",
    "deeplab_v3plus_voc",
]

_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
_VOC_STEPS, _CITYSCAPES_STEPS = 30_000, 90_000
_NORMS = (r"\.norm\.", r"\.bn\d\.", r"\.downsample\.1\.")
"""Names of batch norms in DeepLab v3 on a ResNet."""


def deeplab_v3_voc() -> RunConfig:
    """DeepLab v3 on ResNet-101 for PASCAL VOC 2012, output stride 16.

    Command: ``perpixel train --recipe deeplab_v3_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 48 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 77.21 on val at output stride 16; 78.51 at 8, and there 79.77 multi-scale and
    flip (recalled of the paper).
    To score at output stride 8 with the same weights, give backbone.output_stride=8 and atrous_rates 12, 24, 36.
    """
    return _run("deeplab_v3_voc", "voc", _voc_data(), _v3_stage("main", steps=_VOC_STEPS))


def deeplab_v3_voc_test() -> RunConfig:
    """DeepLab v3 on ResNet-101 for the test set of PASCAL VOC 2012: trainval at output stride 8 after train_aug at 16.

    Command: ``perpixel train --recipe deeplab_v3_voc_test --data voc:FOLDER``, with the splits train_aug and trainval.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 85.7 on the test set, with COCO (recalled of the paper).
    The second stage, recalled of the paper: 30,000 steps at the rate 0.001 with batch norms as they are. Its scores on
    val are those of images that it was trained on.
    """
    second = _v3_stage(
        "trainval",
        steps=_VOC_STEPS,
        output_stride=8,
        start="previous",
        lr=1e-3,
        data={"train_split": "trainval"},
        frozen=_NORMS,
        freeze_batch_norm=True,
    )
    return _run("deeplab_v3_voc_test", "voc", _voc_data(), _v3_stage("train_aug", steps=_VOC_STEPS), second)


def deeplab_v3_cityscapes() -> RunConfig:
    """DeepLab v3 on ResNet-101 for Cityscapes (fine annotations), output stride 16.

    Command: ``perpixel train --recipe deeplab_v3_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; the paper's numbers on Cityscapes were not read in a source.
    Recalled of the paper: 90,000 steps, windows of 769 pixels.
    """
    return _run("deeplab_v3_cityscapes", "cityscapes", _data(769), _v3_stage("main", steps=_CITYSCAPES_STEPS))


def deeplab_v3plus_voc() -> RunConfig:
    """DeepLab v3+ on Xception-65 for PASCAL VOC 2012, output stride 16.

    Command: ``perpixel train --recipe deeplab_v3plus_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 48 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 82.20 on val, 83.58 at output stride 8 with seven scales and flip, both with
    pre-training on COCO, which this recipe has not; 87.80 on the test set (model zoo of the authors' code).
    """
    return _run("deeplab_v3plus_voc", "voc", _voc_data(), _v3plus_stage(steps=_VOC_STEPS))


def deeplab_v3plus_cityscapes() -> RunConfig:
    """DeepLab v3+ on Xception-65 for Cityscapes (fine annotations), output stride 16.

    Command: ``perpixel train --recipe deeplab_v3plus_cityscapes --data list:FOLDER``, with train.txt and val.txt that
    pair images with labelIds masks.
    Hardware: one GPU with 80 GB, or several with 16 images between them. Time: not measured here.
    Score: not measured here; published: 78.79 on val, 80.42 at output stride 8 with three scales and flip (model zoo of
    the authors' code).
    Assumed: the 90,000 steps and windows of 769 pixels that are recalled of DeepLab v3.
    """
    return _run("deeplab_v3plus_cityscapes", "cityscapes", _data(769), _v3plus_stage(steps=_CITYSCAPES_STEPS))


def deeplab_v3plus_resnet_voc() -> RunConfig:
    """DeepLab v3+ on ResNet-101 for PASCAL VOC 2012 with the settings of its port to PyTorch by VainF.

    Command: ``perpixel train --recipe deeplab_v3plus_resnet_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 48 GB. Time: not measured here.
    Score: not measured here; published: 78.3, with ``model.backbone.name=resnet50`` 77.2, on the central 513 pixels of
    each image of val, not on whole images (the port).
    Stated by the port: the rate 0.01, a tenth of it for the backbone, whose batch norms take 0.01 of a batch, poly
    decay of power 0.9, 30,000 steps, windows of 513 pixels. Assumed: 16 images, weight decay 1e-4 on every parameter,
    scales 0.5 to 2 and mirroring. The port lets no rate fall below 1e-6.
    """
    stage = Stage(
        model=ModelChoice(
            name="deeplab_v3plus",
            backbone=BackboneChoice(name="resnet101", weights="timm", output_stride=16),
            options={
                "separable_aspp": False,
                "separable_decoder": False,
                "decoder_convolutions": 1,
                "concatenation": "low_high",
                "align_corners": False,
                "image_sides": "any",
                "backbone_norm_momentum": 0.01,
            },
        ),
        optimizer=OptimizerChoice(name="sgd", lr=1e-3, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        new_layers_lr_factor=10.0,
        no_decay_norm_bias=False,
        steps=_VOC_STEPS,
    )
    data = DataChoice(train_split="train_aug", crop_size=(513, 513), scale_range=(0.5, 2.0), flip=0.5, batch_size=16)
    return _run("deeplab_v3plus_resnet_voc", "voc", data, stage)


def _data(crop: int) -> DataChoice:
    return DataChoice(crop_size=(crop, crop), scales=_SCALES, flip=0.5, batch_size=16)


def _voc_data() -> DataChoice:
    return _data(513).model_copy(update={"train_split": "train_aug"})


def _run(name: str, labels: str, data: DataChoice, *stages: Stage) -> RunConfig:
    return RunConfig(
        name=name,
        recipe=name,
        labels=labels,
        data=data,
        evaluation=EvaluationChoice(every=stages[0].steps // 10),
        precision="fp32",
        stages=stages,
    )


def _v3_stage(
    name: str,
    *,
    steps: int,
    output_stride: Any = 16,
    start: str = "scratch",
    lr: float = 0.007,
    data: dict[str, Any] | None = None,
    frozen: tuple[str, ...] = (),
    freeze_batch_norm: bool = False,
) -> Stage:
    rates = (6, 12, 18) if output_stride == 16 else (12, 24, 36)
    trunk = BackboneChoice(
        name="resnet101",
        weights="timm" if start == "scratch" else "none",
        output_stride=output_stride,
        num_stages=2,
        multi_grid=(1, 2, 4),
    )
    return Stage(
        name=name,
        model=ModelChoice(name="deeplab_v3", backbone=trunk, options={"atrous_rates": rates, "norm_momentum": 3e-4}),
        start=start,
        data=data or {},
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        frozen=frozen,
        freeze_batch_norm=freeze_batch_norm,
        steps=steps,
    )


def _v3plus_stage(*, steps: int) -> Stage:
    return Stage(
        model=ModelChoice(
            name="deeplab_v3plus",
            backbone=BackboneChoice(name="xception65", weights="timm", output_stride=16),
            options={"norm_momentum": 3e-4},
        ),
        optimizer=OptimizerChoice(name="sgd", lr=0.007, momentum=0.9, weight_decay=4e-5),
        schedule=ScheduleChoice(name="poly", power=0.9),
        steps=steps,
    )

"""Recipes of DeepLab v1 and v2 on PASCAL VOC 2012 (Chen et al., ICLR 2015 and PAMI 2018).

The papers are arXiv 1412.7062 and 1606.00915. Scores are mean IoU in per cent on val, before the dense CRF and after
it; the recipes train the network, the CRF is a step of inference. Sides of windows are 8n + 1, so that every eighth
pixel bears a cell of the scores and the loss compares it with that pixel's label.
"""

from __future__ import annotations

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

__all__ = ["deeplab_largefov_voc", "deeplab_msc_largefov_voc", "deeplab_v2_vgg_voc", "deeplab_v2_voc"]

_CROP = (321, 321)
_V1_DATA = DataChoice(train_split="train_aug", crop_size=_CROP, flip=0.5, batch_size=20)
_VGG_START = BackboneChoice(name="vgg16", weights="timm")
_BIASES = GroupRule(pattern=r"\.bias$", lr_factor=2.0, weight_decay=0.0)


def deeplab_largefov_voc() -> RunConfig:
    """DeepLab v1 LargeFOV on PASCAL VOC 2012 as the paper trains it.

    Command: ``perpixel train --recipe deeplab_largefov_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 62.25, with CRF 67.64 on val; 70.3 with CRF on the test set.
    The released configuration has batches of 30 in place of the paper's 20. fc6 and fc7 are decimated from VGG16's;
    the paper does not say which filters it kept, here they are evenly spaced. The network starts from timm's VGG16; the
    published start is the Caffe weights, whose file can be given as ``model.backbone.weights``.
    """
    return RunConfig(
        name="deeplab_largefov_voc",
        recipe="deeplab_largefov_voc",
        labels="voc",
        data=_V1_DATA,
        evaluation=EvaluationChoice(every=2000),
        precision="fp32",
        stages=(_largefov_stage("main"),),
    )


def deeplab_msc_largefov_voc() -> RunConfig:
    """DeepLab v1 MSc-LargeFOV on PASCAL VOC 2012: LargeFOV first, then the side branches on its frozen layers.

    Command: ``perpixel train --recipe deeplab_msc_largefov_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 64.21, with CRF 68.70 on val; 71.6 with CRF on the test set.
    The second stage trains the branches and the classifier, 8,000 steps; that its rate falls by ten every 2,000 of them
    as in the first is assumed. All that ``deeplab_largefov_voc`` says of the start holds here.
    """
    return RunConfig(
        name="deeplab_msc_largefov_voc",
        recipe="deeplab_msc_largefov_voc",
        labels="voc",
        data=_V1_DATA,
        evaluation=EvaluationChoice(every=2000),
        precision="fp32",
        stages=(
            _largefov_stage("largefov"),
            Stage(
                name="msc",
                model=ModelChoice(name="deeplab_v1", backbone=BackboneChoice(name="vgg16"), options={"msc": True}),
                start="previous",
                optimizer=OptimizerChoice(name="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="step", milestones=(2000, 4000, 6000), gamma=0.1),
                groups=(_BIASES,),
                trainable=(r"^branches\.", r"^classifier\."),
                steps=8000,
            ),
        ),
    )


def deeplab_v2_voc() -> RunConfig:
    """DeepLab v2 (ResNet-101, ASPP-L, three scales) on PASCAL VOC 2012 with the settings of its port to PyTorch.

    Command: ``perpixel train --recipe deeplab_v2_voc --data voc:FOLDER model.backbone.weights=FILE`` with FILE the
    weights pretrained on COCO that kazuto1011/deeplab-pytorch offers. Without them the recipe trains from random
    weights under frozen batch norms, which leads nowhere.
    Hardware: one GPU with 12 GB. Time: not measured here.
    Score: not measured here; published: 76.35, with CRF 77.69 on val, 79.7 on the test set (paper); 76.65, with CRF
    77.93 on val (the port).
    Batch norms stay as they are. The convolutions of the branches learn at ten times the rate, their biases at twenty.
    Scores are enlarged without aligned corners and labels picked to match, as the port does it.
    """
    return RunConfig(
        name="deeplab_v2_voc",
        recipe="deeplab_v2_voc",
        labels="voc",
        data=DataChoice(
            train_split="train_aug", crop_size=_CROP, scales=(0.5, 0.75, 1.0, 1.25, 1.5), flip=0.5, batch_size=5
        ),
        evaluation=EvaluationChoice(every=5000),
        precision="fp32",
        stages=(
            Stage(
                model=ModelChoice(
                    name="deeplab_v2",
                    backbone=BackboneChoice(name="caffe_resnet101"),
                    options={"align_corners": False},
                ),
                optimizer=OptimizerChoice(name="sgd", lr=2.5e-4, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="poly", power=0.9, every=10),
                groups=(
                    GroupRule(pattern=r"^branches\..*\.weight$", lr_factor=10.0),
                    GroupRule(pattern=r"^branches\..*\.bias$", lr_factor=20.0, weight_decay=0.0),
                ),
                frozen=(r"\.norm\.",),
                freeze_batch_norm=True,
                accumulate=2,
                steps=20_000,
            ),
        ),
    )


def deeplab_v2_vgg_voc() -> RunConfig:
    """DeepLab v2 on VGG16 (ASPP-L, one scale) on PASCAL VOC 2012.

    Command: ``perpixel train --recipe deeplab_v2_vgg_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 68.96, with CRF 71.57 on val; 72.6 with CRF on the test set. For ASPP-S
    (``model.options.atrous_rates=[2,4,8,12]``): 66.98, with CRF 69.73.
    Stated by the paper: the poly schedule, batches of 10 and 20,000 steps, for LargeFOV. Assumed: base rate and factors
    of DeepLab v1, and that every branch starts from the decimated fc6 and fc7 of VGG16.
    """
    return RunConfig(
        name="deeplab_v2_vgg_voc",
        recipe="deeplab_v2_vgg_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=_CROP, flip=0.5, batch_size=10),
        evaluation=EvaluationChoice(every=5000),
        precision="fp32",
        stages=(
            Stage(
                model=ModelChoice(name="deeplab_v2", backbone=_VGG_START, options={"multi_scale": False}),
                optimizer=OptimizerChoice(name="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="poly", power=0.9),
                groups=_v1_groups(),
                steps=20_000,
            ),
        ),
    )


def _largefov_stage(name: str) -> Stage:
    """The paper's solver: the rate falls by ten every 2,000 of 6,000 steps."""
    return Stage(
        name=name,
        model=ModelChoice(name="deeplab_v1", backbone=_VGG_START),
        optimizer=OptimizerChoice(name="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleChoice(name="step", milestones=(2000, 4000), gamma=0.1),
        groups=_v1_groups(),
        steps=6000,
    )


def _v1_groups() -> tuple[GroupRule, ...]:
    """The classifier learns at ten times the rate; biases at twice the rate of their layer, without decay."""
    return (
        GroupRule(pattern=r"classifier\.weight$", lr_factor=10.0),
        GroupRule(pattern=r"classifier\.bias$", lr_factor=20.0, weight_decay=0.0),
        _BIASES,
    )

"""Recipes of RefineNet (Lin et al., CVPR 2017, arXiv 1611.06612) and Light-Weight RefineNet (BMVC 2018, 1810.03272).

RefineNet's settings are those of the authors' MatConvNet demo: single images, enlarged by 1.2 on their way into the
ResNet, whose batch norms keep ImageNet's statistics and whose layers learn at a tenth of the rate. The demo divides
the rate by ten by hand and states no length; both are assumed here. It also subtracts 128 from every channel, and first
brings the short side of an image that is smaller than 450 pixels or larger than 1,100 to that; here images keep their
size and are normalised as timm's weights want it. The light-weight network's settings are those that its code states
for NYUDv2. Scores are mean IoU in per cent.
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

__all__ = ["refinenet_cityscapes", "refinenet_lw_mbv2_voc", "refinenet_lw_nyud", "refinenet_voc"]

_SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
_NYUD_EPOCH = 795 // 6
_VOC_EPOCH = 10_582 // 6
_LIGHT_RATES = (5e-4, 2.5e-4, 1e-4)
_MOBILENET_FORM: dict[str, Any] = {"coarse_width": 256, "adapt": False, "relu6": True}


def refinenet_voc() -> RunConfig:
    """RefineNet on PASCAL VOC 2012 with the settings of the authors' demo, on ResNet-101.

    Command: ``perpixel train --recipe refinenet_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 83.4 on the test set with ResNet-152, COCO and several scales (paper); 80.5 on
    val with ResNet-101 and one scale (DrSleep's port of the released weights); 69.1 for the demo, with ResNet-50 on
    the 1,464 images of VOC alone.
    Assumed: 300,000 steps, the rate falling by ten after 200,000 and 260,000 of them, and weight decay on convolutions
    alone. The authors test at the scales 0.4, 0.6, 0.8, 1.0 and 1.2.
    """
    return RunConfig(
        name="refinenet_voc",
        recipe="refinenet_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(400, 400), scales=_SCALES, flip=0.5, batch_size=1),
        evaluation=EvaluationChoice(every=20_000),
        precision="fp32",
        stages=(_stage(steps=300_000, milestones=(200_000, 260_000)),),
    )


def refinenet_cityscapes() -> RunConfig:
    """RefineNet on Cityscapes (fine annotations) with the settings of the authors' demo, on ResNet-101.

    Command: ``perpixel train --recipe refinenet_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks.
    Hardware: one GPU with 24 GB. Time: not measured here.
    Score: not measured here; published: 73.6 on the test set with ResNet-101 (paper).
    Assumed: 150,000 steps, the rate falling by ten after 100,000 and 130,000 of them, and weight decay on convolutions
    alone.
    """
    return RunConfig(
        name="refinenet_cityscapes",
        recipe="refinenet_cityscapes",
        labels="cityscapes",
        data=DataChoice(crop_size=(600, 600), scales=_SCALES, flip=0.5, batch_size=1),
        evaluation=EvaluationChoice(every=10_000),
        precision="fp32",
        stages=(_stage(steps=150_000, milestones=(100_000, 130_000)),),
    )


def refinenet_lw_nyud() -> RunConfig:
    """Light-Weight RefineNet-50 on NYUDv2 (40 classes) in the three stages of its code, 100 epochs each.

    Command: ``perpixel train --recipe refinenet_lw_nyud --data list:FOLDER --labels FILE``, with train.txt and val.txt
    of the 795 and 654 images, and FILE with the names of the 40 classes and ``ignore: [0]``.
    Hardware: one GPU with 12 GB. Time: not measured here.
    Score: not measured here; published: 41.7 with ResNet-50, 43.6 with ResNet-101, 44.4 with ResNet-152 (its code).
    Stated: rates of the trunk 5e-4, 2.5e-4 and 1e-4, of the decoder ten times as much, weight decay 1e-5, batches of 6,
    windows of 500 pixels, scales from 0.5 to 2 but no image smaller than 350 pixels on its short side (480 pixels: not
    under 0.73), frozen batch norms. Assumed: momentum 0.9, and weight decay on convolutions alone.
    """
    return RunConfig(
        name="refinenet_lw_nyud",
        recipe="refinenet_lw_nyud",
        data=DataChoice(crop_size=(500, 500), scale_range=(350 / 480, 2.0), flip=0.5, batch_size=6),
        evaluation=EvaluationChoice(every=10 * _NYUD_EPOCH),
        precision="fp32",
        stages=_light_stages("resnet50", {}, steps=100 * _NYUD_EPOCH),
    )


def refinenet_lw_mbv2_voc() -> RunConfig:
    """Light-Weight RefineNet on MobileNet-v2 for PASCAL VOC 2012, in the stages that its code states for NYUDv2.

    Command: ``perpixel train --recipe refinenet_lw_mbv2_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 12 GB. Time: not measured here.
    Score: not measured here; published: 76.2 on val (paper), 78.30 on val and 80.28 on test with the weights of 2020.
    All settings are assumed: those of ``refinenet_lw_nyud``, with 20 epochs a stage, for VOC has 13 times the images.
    The trunk starts from timm's MobileNet-v2.
    """
    return RunConfig(
        name="refinenet_lw_mbv2_voc",
        recipe="refinenet_lw_mbv2_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(500, 500), scale_range=(0.5, 2.0), flip=0.5, batch_size=6),
        evaluation=EvaluationChoice(every=5 * _VOC_EPOCH),
        precision="fp32",
        stages=_light_stages("drsleep_mobilenet_v2", _MOBILENET_FORM, steps=20 * _VOC_EPOCH),
    )


def _stage(*, steps: int, milestones: tuple[int, ...]) -> Stage:
    """The demo's network and solver: 5e-4 for new layers, a tenth of it for the trunk."""
    return Stage(
        model=ModelChoice(
            name="refinenet",
            backbone=BackboneChoice(name="resnet101", weights="timm"),
            options={"scales": (1.2,)},
        ),
        optimizer=OptimizerChoice(name="sgd", lr=5e-5, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleChoice(name="step", milestones=milestones, gamma=0.1),
        new_layers_lr_factor=10.0,
        freeze_batch_norm=True,
        steps=steps,
    )


def _light_stages(backbone: str, options: dict[str, Any], *, steps: int) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            name=f"stage{number}",
            start="scratch" if number == 1 else "previous",
            model=ModelChoice(
                name="refinenet_lw",
                backbone=BackboneChoice(name=backbone, weights="timm" if number == 1 else "none"),
                options=options,
            ),
            optimizer=OptimizerChoice(name="sgd", lr=rate, momentum=0.9, weight_decay=1e-5),
            schedule=ScheduleChoice(name="constant"),
            new_layers_lr_factor=10.0,
            freeze_batch_norm=True,
            steps=steps,
        )
        for number, rate in enumerate(_LIGHT_RATES, start=1)
    )

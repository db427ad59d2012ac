"""Recipe of DPN, "Semantic Image Segmentation via Deep Parsing Network" (Liu et al., ICCV 2015, arXiv 1509.02634).

Scores are mean IoU in per cent.
"""

from __future__ import annotations

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    GroupRule,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)

__all__ = ["dpn_voc"]

_MEASURE = r"^triple\."
_CONTEXTS = r"^contexts\."


def dpn_voc() -> RunConfig:
    """DPN on PASCAL VOC 2012 in its four stages: unary, triple penalty, label contexts, all together.

    Command: ``perpixel train --recipe dpn_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published on val after each stage: 62.4, 64.7, 66.5 and 67.8; 74.1 on VOC 2012 test, 77.5
    with COCO.
    Stated: windows of 512x512 pixels, what each stage adds and trains.
    Assumed: batches of 10, momentum 0.9, weight decay 5e-4, rates 1e-3 (1e-2 for new layers) falling to zero, 1e-4 for
    all together, scales 0.5 to 1.5, mirror, and the lengths: 20,000, 2,000, 10,000 and 10,000 steps.
    """
    return RunConfig(
        name="dpn_voc",
        recipe="dpn_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(512, 512), scale_range=(0.5, 1.5), flip=0.5, batch_size=10),
        precision="fp32",
        stages=(
            _stage("unary", "unary", steps=20_000, lr=1e-3),
            _stage("triple", "triple", steps=2_000, lr=1e-3, trainable=(_MEASURE,)),
            _stage("contexts", "contexts", steps=10_000, lr=1e-3, trainable=(_CONTEXTS,)),
            _stage("joint", "contexts", steps=10_000, lr=1e-4),
        ),
    )


def _stage(name: str, part: str, *, steps: int, lr: float, trainable: tuple[str, ...] = ()) -> Stage:
    return Stage(
        name=name,
        start="scratch" if name == "unary" else "previous",
        model=ModelChoice(name="dpn", backbone=BackboneChoice(name="vgg16", weights="timm"), options={"part": part}),
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        # Decay would pull the logarithms of the measure to a reach of one.
        groups=() if part == "unary" else (GroupRule(pattern=_MEASURE, lr_factor=10.0, weight_decay=0.0),),
        new_layers_lr_factor=10.0 if name != "joint" else 1.0,
        trainable=trainable,
        steps=steps,
    )

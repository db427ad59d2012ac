"""Recipe of ParseNet, "ParseNet: Looking Wider to See Better" (Liu, Rabinovich, Berg, 2015, arXiv 1506.04579)."""

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

__all__ = ["parsenet_voc"]


def parsenet_voc() -> RunConfig:
    """ParseNet with early fusion on PASCAL VOC 2012.

    Command: ``perpixel train --recipe parsenet_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: mean IoU 69.55 on val (the authors' model card), 69.8 on test.
    Stated: the poly schedule, which the paper brought into use. Assumed, for the authors' settings were not read: all
    other numbers, which are those of the DeepLab LargeFOV that ParseNet stands on, in batches of 10 (DeepLab v2 with
    poly): rate 1e-3 and ten times that for the classifier, momentum 0.9, weight decay 5e-4, windows of 321 pixels,
    mirroring, 20,000 steps. The learned scales take the trunk's rate and do not decay.
    """
    return RunConfig(
        name="parsenet_voc",
        recipe="parsenet_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(321, 321), flip=0.5, batch_size=10),
        precision="fp32",
        stages=(
            Stage(
                model=ModelChoice(
                    name="parsenet",
                    backbone=BackboneChoice(name="vgg16", weights="timm"),
                    options={"fusion": "early"},
                ),
                optimizer=OptimizerChoice(name="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="poly", power=0.9),
                groups=(
                    GroupRule(pattern=r"_norm\.weight$", weight_decay=0.0),
                    GroupRule(pattern=r"^head\..*\.bias$", lr_factor=20.0, weight_decay=0.0),
                    GroupRule(pattern=r"\.bias$", lr_factor=2.0, weight_decay=0.0),
                ),
                new_layers_lr_factor=10.0,
                steps=20_000,
            ),
        ),
    )

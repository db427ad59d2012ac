"""Recipe of LRR, "Laplacian Pyramid Reconstruction and Refinement" (Ghiasi & Fowlkes, ECCV 2016, arXiv 1605.02264).

Settings as read in the authors' code (golnazghiasi/LRR). Scores are mean IoU in per cent.
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

__all__ = ["lrr_voc"]

_EPOCH = 529
"""Batches of 20 in the 10,582 images of train_aug."""
_BACKBONE = BackboneChoice(name="vgg16", weights="timm")


def lrr_voc() -> RunConfig:
    """LRR on PASCAL VOC 2012: the 32x level for 65 epochs, then all four levels together for 16.

    Command: ``perpixel train --recipe lrr_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 24 GB. Time: not measured here.
    Score: not measured here; published: 79.3 on VOC 2012 test (ResNet trunk, COCO, CRF); 76.8 for the VGG16 network
    with COCO, as another paper quotes it.
    Stated: batches of 20 windows of 384x384 from images whose longer side is brought to 288 to 704 pixels (VOC's is
    about 500, so factors of 0.576 to 1.408; the authors cut out the middle, here the place is drawn), mirror, rate 1e-3
    halved after 51 and 61 epochs, then 1e-3/16, rates of new layers 0.1, 0.05, 0.0125 and 0.1/512 of it, twice that for
    their biases, 16x and 8x joining together with 4x, logistic losses with a disk of 32 pixels at 32x.
    Assumed: momentum 0.9, weight decay 5e-4. The basis is the cosine basis; docs/lrr.md shows how to make the published
    kind from a data set's masks and start from it.
    """
    return RunConfig(
        name="lrr_voc",
        recipe="lrr_voc",
        labels="voc",
        data=DataChoice(
            train_split="train_aug", crop_size=(384, 384), scale_range=(0.576, 1.408), flip=0.5, batch_size=20
        ),
        precision="fp32",
        stages=(
            Stage(
                name="32x",
                model=ModelChoice(name="lrr", backbone=_BACKBONE, options={"levels": 1}),
                optimizer=OptimizerChoice(name="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="step", milestones=(51 * _EPOCH, 61 * _EPOCH), gamma=0.5),
                groups=_groups(1),
                steps=65 * _EPOCH,
            ),
            Stage(
                name="4x",
                start="previous",
                model=ModelChoice(name="lrr", backbone=_BACKBONE),
                optimizer=OptimizerChoice(name="sgd", lr=1e-3 / 16, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="constant"),
                groups=_groups(4),
                steps=16 * _EPOCH,
            ),
        ),
    )


def _groups(levels: int) -> tuple[GroupRule, ...]:
    """Rates of the levels' new layers; the branches of the boundary losses have that of the 32x level."""
    factors = (0.1, 0.05, 0.0125, 0.1 / 512)[:levels]
    rules = [(rf"^levels\.{level}\..*", factor) for level, factor in enumerate(factors)]
    rules.append((r"^boundaries\..*", factors[0]))
    return tuple(
        GroupRule(pattern=pattern + ending, lr_factor=factor * times)
        for pattern, factor in rules
        for ending, times in ((r"bias$", 2.0), (r"weight$", 1.0))
    )

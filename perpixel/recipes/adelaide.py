"""Recipe of Adelaide's contextual CRF, "Efficient Piecewise Training of Deep Structured Models" (Lin et al., 2016).

The paper (CVPR) is arXiv 1504.01013. Scores are mean IoU in per cent.
"""

from __future__ import annotations

from typing import Any

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

__all__ = ["adelaide_voc"]


def adelaide_voc() -> RunConfig:
    """Adelaide's contextual CRF on PASCAL VOC 2012: the unary scores first, then unary and pairwise piece by piece.

    Command: ``perpixel train --recipe adelaide_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published, with dense CRF behind: 75.3 on VOC 2012 test, 77.2 with COCO, 78.0 with
    refinement layers.
    Stated: scales of the images 0.7 to 1.2, mirror, start from VGG16 (blocks 1 to 5 and the first layer of block 6),
    the piecewise loss over nodes and edges. The 24 neighbours per node are those of the authors' later paper.
    Assumed: the first stage, windows of 480x480 pixels in batches of 4, momentum 0.9, weight decay 5e-4, rate 1e-3 and
    then 2e-4 falling to zero, ten times that for the shallow nets, 40,000 and 20,000 steps.
    """
    return RunConfig(
        name="adelaide_voc",
        recipe="adelaide_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(480, 480), scale_range=(0.7, 1.2), flip=0.5, batch_size=4),
        precision="fp32",
        stages=(
            _stage("unary", {"relations": ()}, lr=1e-3, steps=40_000, groups=(_shallow(r"^unary\."),)),
            _stage(
                "piecewise",
                {"edge_grid": 5},
                lr=2e-4,
                steps=20_000,
                groups=(_shallow(r"^unary\."), _shallow(r"^pairwise\.")),
                start="previous",
            ),
        ),
    )


def _shallow(pattern: str) -> GroupRule:
    return GroupRule(pattern=pattern, lr_factor=10.0)


def _stage(
    name: str, options: dict[str, Any], *, lr: float, steps: int, groups: tuple[GroupRule, ...], start: str = "scratch"
) -> Stage:
    return Stage(
        name=name,
        start=start,
        model=ModelChoice(name="adelaide", backbone=BackboneChoice(name="vgg16", weights="timm"), options=options),
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleChoice(name="poly", power=0.9),
        groups=groups,
        steps=steps,
    )

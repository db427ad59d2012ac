"""Recipes of DilatedNet, "Multi-Scale Context Aggregation by Dilated Convolutions" (Yu & Koltun, ICLR 2016).

The paper is arXiv 1511.07122, the published code fyu/dilation. Images are mirrored beyond their edges by the network's
margin of 186 pixels, and windows cut out of that, margin included: of one of 500x500 pixels the inner 128x128 count.
Scores are mean IoU in per cent.
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

__all__ = ["dilatednet_camvid", "dilatednet_voc"]

_MARGIN = 186

_LARGE: dict[str, Any] = {"context": "large", "context_layers": 8, "context_padding": "once"}
_BASIC: dict[str, Any] = {"context": "basic", "context_layers": 8, "context_padding": "each"}


def dilatednet_voc() -> RunConfig:
    """DilatedNet on PASCAL VOC 2012 in the authors' stages: front end, large context module, both together.

    Command: ``perpixel train --recipe dilatednet_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 69.8 for the front end and 72.1 with the large module on val, both with COCO;
    67.6 for the front end without COCO, 73.5 with all on test (paper).
    Stated: batch 14 and momentum 0.9; rate 1e-3 for 60,000 steps for the front end on VOC alone; 1e-3 for the context
    module on the front end's test scores (dropout off) of whole images, 66x66 cells, 1e-5 together; windows of 500
    pixels and weight decay 5e-4 (code). Assumed: the steps of the last two stages, and batch 14 for the context: the
    code's example has 60 stored score maps.
    The paper's best scores come from 100,000 + 40,000 steps on VOC and COCO first, which this recipe leaves out.
    """
    return RunConfig(
        name="dilatednet_voc",
        recipe="dilatednet_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(500, 500), mirror=_MARGIN, flip=0.5, batch_size=14),
        precision="fp32",
        stages=(
            _stage("front_end", {"context": "none"}, lr=1e-3, steps=60_000, weights="timm"),
            _stage(
                "context",
                {**_LARGE, "dropout": 0.0},
                lr=1e-3,
                steps=40_000,
                trainable=(r"^context\.",),
                data={"crop_size": [900, 900]},
            ),
            _stage("joint", _LARGE, lr=1e-5, steps=20_000),
        ),
    )


def dilatednet_camvid() -> RunConfig:
    """DilatedNet on CamVid (11 classes): front end, then with the basic context module of 8 layers from its identity.

    Command: ``perpixel train --recipe dilatednet_camvid --data camvid:FOLDER``.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 65.3 on the test split (paper, images of 640x480 pixels).
    Stated: batch 8, windows of 628 pixels, rate 1e-4, momentum 0.99, 20,000 steps for the front end; batch 1, rate
    1e-5, momentum 0.9 together; weight decay 5e-4 (code). Assumed: 20,000 steps together, on whole images with their
    margin (the paper's windows of 852 pixels are that for its images) of 360x480 pixels, as CamVid is usually had.
    """
    return RunConfig(
        name="dilatednet_camvid",
        recipe="dilatednet_camvid",
        labels="camvid11",
        data=DataChoice(crop_size=(628, 628), mirror=_MARGIN, flip=0.5, batch_size=8),
        precision="fp32",
        stages=(
            _stage("front_end", {"context": "none"}, lr=1e-4, momentum=0.99, steps=20_000, weights="timm"),
            _stage("joint", _BASIC, lr=1e-5, steps=20_000, data={"batch_size": 1, "crop_size": [732, 852]}),
        ),
    )


def _stage(
    name: str,
    options: dict[str, Any],
    *,
    lr: float,
    steps: int,
    momentum: float = 0.9,
    weights: str | None = None,
    trainable: tuple[str, ...] = (),
    data: dict[str, Any] | None = None,
) -> Stage:
    """The code's solver: a constant rate within the published steps, doubled for biases, which do not decay."""
    backbone = BackboneChoice(name="vgg16", weights=weights or "none")
    return Stage(
        name=name,
        start="scratch" if weights else "previous",
        model=ModelChoice(name="dilatednet", backbone=backbone, options=options),
        data=data or {},
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=momentum, weight_decay=5e-4),
        schedule=ScheduleChoice(name="constant"),
        groups=(GroupRule(pattern=r"\.bias$", lr_factor=2.0, weight_decay=0.0),),
        trainable=trainable,
        steps=steps,
    )

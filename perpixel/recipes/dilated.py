"""Recipes of DilatedNet, "Multi-Scale Context Aggregation by Dilated Convolutions" (Yu & Koltun, ICLR 2016).

The paper is arXiv 1511.07122, the published code fyu/dilation. Images are mirrored beyond their edges by the network's
margin of 186 pixels, and windows cut out of that, margin included: of one of 501x501 pixels the inner 129x129 count.
The published windows are one pixel smaller, but for Cityscapes: of 128 inner pixels they learn every eighth from the
first on, 16, and with the 129th the last cell lies on a pixel of the window too. Scores are mean IoU in per cent.
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

__all__ = ["dilatednet_camvid", "dilatednet_cityscapes", "dilatednet_kitti", "dilatednet_voc"]

_MARGIN = 186

_LARGE: dict[str, Any] = {"context": "large", "context_layers": 8, "context_padding": "once"}
_BASIC: dict[str, Any] = {"context": "basic", "context_layers": 8, "context_padding": "each"}
_CITYSCAPES: dict[str, Any] = {**_BASIC, "context_layers": 10, "upsample": True}


def dilatednet_voc() -> RunConfig:
    """DilatedNet on PASCAL VOC 2012 in the authors' stages: front end, large context module, both together.

    Command: ``perpixel train --recipe dilatednet_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 69.8 for the front end and 72.1 with the large module on val, both with COCO;
    67.6 for the front end without COCO, 73.5 with all on test (paper).
    Stated: batch 14 and momentum 0.9; rate 1e-3 for 60,000 steps for the front end on VOC alone; 1e-3 for the context
    module on the front end's test scores (dropout off) of whole images, 66x66 cells, 1e-5 together; windows of 500
    pixels and weight decay 5e-4 (code; here 501, and 901 for whole images). Assumed: the steps of the last two stages,
    and batch 14 for the context: the code's example has 60 stored score maps.
    The paper's best scores come from 100,000 + 40,000 steps on VOC and COCO first, which this recipe leaves out.
    """
    return RunConfig(
        name="dilatednet_voc",
        recipe="dilatednet_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=(501, 501), mirror=_MARGIN, flip=0.5, batch_size=14),
        precision="fp32",
        stages=(
            _stage("front_end", {"context": "none"}, lr=1e-3, steps=60_000, weights="timm"),
            _stage(
                "context",
                {**_LARGE, "dropout": 0.0},
                lr=1e-3,
                steps=40_000,
                trainable=(r"^context\.",),
                data={"crop_size": [901, 901]},
            ),
            _stage("joint", _LARGE, lr=1e-5, steps=20_000),
        ),
    )


def dilatednet_camvid() -> RunConfig:
    """DilatedNet on CamVid (11 classes): front end, then with the basic context module of 8 layers from its identity.

    Command: ``perpixel train --recipe dilatednet_camvid --data camvid:FOLDER``.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 65.3 on the test split (paper, images of 640x480 pixels).
    Stated: batch 8, windows of 628 pixels (here 629), rate 1e-4, momentum 0.99, 20,000 steps for the front end; batch
    1, rate 1e-5, momentum 0.9 together; weight decay 5e-4 (code). Assumed: 20,000 steps together, on whole images with
    their margin (the paper's windows of 852 pixels are that for the height of its images) of 360x480 pixels, as CamVid
    is usually had.
    """
    return RunConfig(
        name="dilatednet_camvid",
        recipe="dilatednet_camvid",
        labels="camvid11",
        data=DataChoice(crop_size=(629, 629), mirror=_MARGIN, flip=0.5, batch_size=8),
        precision="fp32",
        stages=(
            _stage("front_end", {"context": "none"}, lr=1e-4, momentum=0.99, steps=20_000, weights="timm"),
            _stage("joint", _BASIC, lr=1e-5, steps=20_000, data={"batch_size": 1, "crop_size": [733, 853]}),
        ),
    )


def dilatednet_kitti() -> RunConfig:
    """DilatedNet on KITTI (11 classes): front end, then with the basic context module of 7 layers from its identity.

    Command: ``perpixel train --recipe dilatednet_kitti --data list:FOLDER --labels 11``, with train.txt and val.txt of
    the 100 and 46 images that Ros et al. (2015) labelled.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 59.2 on those 46 images (paper).
    Stated: batch 8, windows of 628 pixels (here 629), rate 1e-4, momentum 0.99, 10,000 steps for the front end; batch
    1, windows of 900 pixels (here 901), rate 1e-5, momentum 0.99, 20,000 steps together (paper); weight decay 5e-4
    (code). Images have 1226x370 pixels: what the larger windows show beyond the mirrored margin is mean colour.
    """
    return RunConfig(
        name="dilatednet_kitti",
        recipe="dilatednet_kitti",
        data=DataChoice(crop_size=(629, 629), mirror=_MARGIN, flip=0.5, batch_size=8),
        precision="fp32",
        stages=(
            _stage("front_end", {"context": "none"}, lr=1e-4, momentum=0.99, steps=10_000, weights="timm"),
            _stage(
                "joint",
                {**_BASIC, "context_layers": 7},
                lr=1e-5,
                momentum=0.99,
                steps=20_000,
                data={"batch_size": 1, "crop_size": [901, 901]},
            ),
        ),
    )


def dilatednet_cityscapes() -> RunConfig:
    """DilatedNet on Cityscapes in its three stages: front end, context module of 10 layers, both together.

    Command: ``perpixel train --recipe dilatednet_cityscapes --data list:FOLDER``, with train.txt and val.txt that pair
    images with labelIds masks; train holds 2,975 images.
    Hardware: one GPU with 80 GB. Time: not measured here.
    Score: not measured here; published: 68.7 on val, 67.1 on test (paper).
    Stated: batch 8, windows of 628 pixels, rate 1e-4, momentum 0.99, 40,000 steps for the front end; batch 100 of whole
    images, rate 1e-4, momentum 0.99, 24,000 steps for the context module on the front end's scores; batch 1, windows of
    1396 pixels (half an image with its margin), rate 1e-5, momentum 0.99, 60,000 steps together (paper); weight decay
    5e-4 (code). The 100 images are 25 batches of 4. Assumed: all stages learn on enlarged scores, for the release ends
    with the deconvolution.
    """
    return RunConfig(
        name="dilatednet_cityscapes",
        recipe="dilatednet_cityscapes",
        labels="cityscapes",
        data=DataChoice(crop_size=(628, 628), mirror=_MARGIN, flip=0.5, batch_size=8),
        precision="fp32",
        stages=(
            _stage(
                "front_end",
                {"context": "none", "upsample": True},
                lr=1e-4,
                momentum=0.99,
                steps=40_000,
                weights="timm",
            ),
            _stage(
                "context",
                {**_CITYSCAPES, "dropout": 0.0},
                lr=1e-4,
                momentum=0.99,
                steps=24_000,
                trainable=(r"^context\.",),
                data={"batch_size": 4, "crop_size": [1396, 2420]},
                accumulate=25,
            ),
            _stage(
                "joint",
                _CITYSCAPES,
                lr=1e-5,
                momentum=0.99,
                steps=60_000,
                data={"batch_size": 1, "crop_size": [1396, 1396]},
            ),
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
    accumulate: int = 1,
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
        accumulate=accumulate,
    )

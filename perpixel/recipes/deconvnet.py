"""Recipe of DeconvNet, "Learning Deconvolution Network for Semantic Segmentation" (Noh et al., ICCV 2015).

The paper is arXiv 1505.04366. Rates, batches and steps are those of the authors' release. Scores are mean IoU in per
cent.
"""

from __future__ import annotations

from typing import Any

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

__all__ = ["deconvnet_voc"]

_WINDOW = (224, 224)


def deconvnet_voc() -> RunConfig:
    """DeconvNet on PASCAL VOC 2012 in its two stages: windows about objects, then windows from anywhere.

    Command: ``perpixel train --recipe deconvnet_voc --data voc:FOLDER``; train_aug holds 10,582 images.
    Hardware: one GPU with 12 GB. Time: not measured here; published: 6 days on one Titan X.
    Score: not measured here; published: 69.6 on the VOC 2012 test set, 72.5 with FCN-8s and a dense CRF (paper).
    The paper cuts its examples out beforehand: boxes of objects times 1.2, in which all but the object is background,
    then EdgeBoxes that overlap objects, both resized to 250 pixels (0.2 and 2.7 million examples of train and val).
    Here windows of the image stand in: about a class drawn from the image, all classes labelled, then half of them from
    anywhere and in more sizes. docs/deconvnet.md makes the paper's own examples of the first stage
    (``inference.object_examples``) and trains on them, each stage in a run of its own. The second stage's need
    proposals, which are the caller's: cut them with ``expand_boxes`` and ``crop_with_zeros`` of ``inference.boxes``.
    The start is timm's VGG16 with batch norm, fully connected layers included; the published one is Caffe's VGG16 with
    new batch norms, for which give its file as ``stages.0.model.backbone.weights``.
    """
    return RunConfig(
        name="deconvnet_voc",
        recipe="deconvnet_voc",
        labels="voc",
        data=DataChoice(train_split="train_aug", crop_size=_WINDOW, flip=0.5, batch_size=8),
        evaluation=EvaluationChoice(every=2000),
        precision="fp32",
        stages=(
            _stage("objects", steps=20_000, every=9000, data={"class_crop": 1.0, "scale_range": [0.75, 1.5]}),
            _stage(
                "proposals", steps=40_000, every=10_000, data={"class_crop": 0.5, "scale_range": [0.5, 2.0]}, later=True
            ),
        ),
    )


def _stage(name: str, *, steps: int, every: int, data: dict[str, Any], later: bool = False) -> Stage:
    """The release's solver: batches of 8 summed to 64; the rate falls to a tenth every so many steps."""
    model = ModelChoice(name="deconvnet", backbone=BackboneChoice(name="vgg16", weights="timm"))
    return Stage(
        name=name,
        model=None if later else model,
        start="previous" if later else "scratch",
        data=data,
        optimizer=OptimizerChoice(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleChoice(name="step", milestones=tuple(range(every, steps, every)), gamma=0.1),
        groups=(GroupRule(pattern=r"(^|\.)(conv|deconv|fc|classifier)\w*\.bias$", lr_factor=2.0, weight_decay=0.0),),
        no_decay_norm_bias=False,
        accumulate=8,
        steps=steps,
    )

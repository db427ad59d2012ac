"""Recipe of CRF-RNN, "Conditional Random Fields as Recurrent Neural Networks" (Zheng et al., ICCV 2015).

The paper is arXiv 1502.03240. Scores are mean IoU in per cent.
"""

from __future__ import annotations

from perpixel.config import (
    BackboneChoice,
    EvaluationChoice,
    GroupRule,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)
from perpixel.recipes.fcn import fcn_voc

__all__ = ["crf_rnn_voc"]

_MATRICES_LR_FACTOR = 10_000.0
_COMPATIBILITY_LR_FACTOR = 1000.0


def crf_rnn_voc() -> RunConfig:
    """CRF-RNN on PASCAL VOC: the stages of ``fcn_voc``, then FCN-8s and the CRF end to end, five updates each.

    Command: ``perpixel train --recipe crf_rnn_voc --data voc:FOLDER``; the split train_aug holds 10,582 images.
    Hardware: one GPU with 16 GB. Time: not measured here.
    Score: not measured here; published: 72.0 on the VOC 2012 test set, 74.7 with 66,099 images of COCO added; 69.6 on
    346 images of val, where FCN-8s has 61.3 (paper).
    Stated: batches of one image, summed loss, a rate of 1e-13, momentum 0.99, five updates of mean field in training
    and ten in evaluation; the factors of the matrices' rates are those of the authors' Caffe code.
    Assumed: the weight decay (FCN's; none for the matrices) and the length. With an FCN-8s at hand, drop the first
    stages and start from it: ``stages.0.start=ARTIFACT``.
    """
    fcn = fcn_voc()
    return RunConfig(
        name="crf_rnn_voc",
        recipe="crf_rnn_voc",
        labels="voc",
        data=fcn.data,
        evaluation=EvaluationChoice(every=4000),
        precision="fp32",
        stages=(*fcn.stages, _end_to_end()),
    )


def _end_to_end() -> Stage:
    return Stage(
        name="crf_rnn",
        start="previous",
        model=ModelChoice(name="crf_rnn", backbone=BackboneChoice(name="vgg16")),
        optimizer=OptimizerChoice(name="sgd", lr=1e-13, momentum=0.99, weight_decay=5e-4),
        schedule=ScheduleChoice(name="constant"),
        groups=(
            GroupRule(pattern=r"^crf\.\w+_weights$", lr_factor=_MATRICES_LR_FACTOR, weight_decay=0.0),
            GroupRule(pattern=r"^crf\.compatibility$", lr_factor=_COMPATIBILITY_LR_FACTOR, weight_decay=0.0),
            GroupRule(pattern=r"\.bias$", lr_factor=2.0, weight_decay=0.0),
        ),
        steps=100_000,
    )

"""Recipes of SegNet, "SegNet: A Deep Convolutional Encoder-Decoder Architecture" (Badrinarayanan et al., PAMI 2017).

The paper is arXiv 1511.00561. The settings are those of the authors' tutorial: CamVid's 367 training images whole and
without augmentation, a constant rate, class weights stated as numbers, loss divided by the labelled pixels. Scores are
mean IoU in per cent.
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
    TermChoice,
)

__all__ = ["CAMVID_CLASS_WEIGHTS", "segnet_basic_camvid", "segnet_camvid"]

CAMVID_CLASS_WEIGHTS = (0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614)
"""The tutorial's, in the order of label space camvid11.

The rule that the paper states (``median_frequency_eigen``) gives other numbers on these files, 3.8 in place of 9.6 for
SignSymbol most of all; with what the authors counted is not known.
"""


def segnet_camvid() -> RunConfig:
    """SegNet (VGG16) on CamVid (11 classes, 360x480) with the settings of the authors' tutorial.

    Command: ``perpixel train --recipe segnet_camvid --data camvid:FOLDER``.
    Hardware: one GPU with 12 GB. Time: not measured here.
    Score: not measured here; published: 60.1 on the test split after 140,000 steps on 3,500 images (paper); 46.4 when
    trained on CamVid's 367 images alone (in the paper of DilatedNet).
    The start is timm's VGG16 with batch norm and its scaling of images; the published one is Caffe's VGG16 with new
    batch norms, for which give its file as ``stages.0.model.backbone.weights``.
    """
    return RunConfig(
        name="segnet_camvid",
        recipe="segnet_camvid",
        labels="camvid11",
        data=_whole_images(),
        evaluation=EvaluationChoice(every=1000),
        precision="fp32",
        stages=(
            _stage(
                ModelChoice(name="segnet", backbone=BackboneChoice(name="vgg16", weights="timm")), lr=1e-3, steps=40_000
            ),
        ),
    )


def segnet_basic_camvid() -> RunConfig:
    """SegNet-Basic on CamVid (11 classes, 360x480) with the settings of the authors' tutorial.

    Command: ``perpixel train --recipe segnet_basic_camvid --data camvid:FOLDER``.
    Hardware: one GPU with 8 GB. Time: not measured here.
    Score: not measured here; published: 47.7 on the test split (paper, table 1, batches of 12).
    ``stages.0.model.options.decoder`` chooses one of the eight decoders of that table.
    """
    return RunConfig(
        name="segnet_basic_camvid",
        recipe="segnet_basic_camvid",
        labels="camvid11",
        data=_whole_images(),
        evaluation=EvaluationChoice(every=1000),
        precision="fp32",
        stages=(_stage(ModelChoice(name="segnet_basic"), lr=0.1, steps=10_000),),
    )


def _whole_images() -> DataChoice:
    return DataChoice(crop_size=(360, 480), flip=0.0, batch_size=4)


def _stage(model: ModelChoice, *, lr: float, steps: int) -> Stage:
    """The tutorial's solver; convolutions' biases learn twice as fast without decay, and batch norms decay."""
    return Stage(
        model=model,
        terms=(TermChoice(name="main", options={"normalise": "pixels"}),),
        class_weights=CAMVID_CLASS_WEIGHTS,
        optimizer=OptimizerChoice(name="sgd", lr=lr, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleChoice(name="constant"),
        groups=(GroupRule(pattern=r"(^|\.)(conv|classifier)\w*\.bias$", lr_factor=2.0, weight_decay=0.0),),
        no_decay_norm_bias=False,
        steps=steps,
        monitor="pixel_accuracy",
    )

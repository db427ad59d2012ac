"""Recipes of U-Net, "Convolutional Networks for Biomedical Image Segmentation" (Ronneberger et al., MICCAI 2015).

The paper is arXiv 1505.04597, its published code a Caffe network without solver settings; the padded form with batch
norm is milesial/Pytorch-UNet's, with the settings of its training script.
"""

from __future__ import annotations

from perpixel.config import (
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
)

__all__ = ["unet_carvana", "unet_isbi"]


def unet_isbi() -> RunConfig:
    """The original U-Net on the ISBI 2012 membranes: weight map, elastic deformation, one large tile per step.

    Command: ``perpixel train --recipe unet_isbi --data FOLDER``, with image/ and label/ or train/ and val/ of them.
    Hardware: one GPU with 8 GB. Time: not measured here; 10 hours on a Titan with 6 GB (paper).
    Score: not measured here; published on the challenge's test set: warping error 0.000353, Rand error 0.0382, from
    the mean over 7 rotated inputs (that number not verified).
    Stated: batch 1, momentum 0.99, w0 = 10, sigma = 5, displacements N(0, 10 pixels) on a 3x3 grid, shifts, mirrored
    borders, initialisation.
    Assumed: learning rate 1e-4 and 40,000 steps for the mean instead of the sum over pixels, no weight decay,
    brightness and contrast within 20 per cent for the grey-value variations, rotations by any angle (the paper names
    them without a range).
    Membranes are 0 and cells 255 in the masks: membrane is the background, every cell an object of the weight map.
    """
    return RunConfig(
        name="unet_isbi",
        recipe="unet_isbi",
        data=DataChoice(
            crop_size=(572, 572),
            mirror=92,
            elastic=10.0,
            rotation=180.0,
            flip=0.0,
            brightness=0.2,
            contrast=0.2,
            batch_size=1,
        ),
        precision="fp32",
        evaluation=EvaluationChoice(every=1000),
        stages=(
            Stage(
                model=ModelChoice(name="unet_original", options={"in_channels": 1}),
                optimizer=OptimizerChoice(name="sgd", lr=1e-4, momentum=0.99, weight_decay=0.0),
                schedule=ScheduleChoice(name="constant"),
                steps=40_000,
            ),
        ),
    )


def unet_carvana() -> RunConfig:
    """The padded U-Net on the Carvana masks with the settings of milesial/Pytorch-UNet.

    Command: ``perpixel train --recipe unet_carvana --data FOLDER``, with images/ and masks/ (GIF converted to PNG).
    Hardware: one GPU with 24 GB. Time: not measured here.
    Score: not measured here; published: Dice 0.988423 on over 100,000 test images.
    Stated (code): RMSprop, rate 1e-5, weight decay 1e-8 on everything, momentum 0.999, gradient norm cut at 1, rate
    divided by 10 after more than 5 evaluations without gain, 5 evaluations per epoch, 5 epochs of batch 1, a tenth of
    the images for validation, cross-entropy plus pooled Dice, no augmentation.
    Differs: full size, 1280x1918 (the code halves images by default and has checkpoints of both); the best weights are
    chosen by mean Dice over both classes, the code's own Dice leaves the background out. 5,088 images are assumed.
    """
    train_images = 5088 - 508
    return RunConfig(
        name="unet_carvana",
        recipe="unet_carvana",
        data=DataChoice(crop_size=(1280, 1918), flip=0.0, batch_size=1, val_share=0.1),
        evaluation=EvaluationChoice(every=train_images // 5),
        precision="fp32",
        stages=(
            Stage(
                model=ModelChoice(name="unet"),
                optimizer=OptimizerChoice(name="rmsprop", lr=1e-5, momentum=0.999, weight_decay=1e-8),
                schedule=ScheduleChoice(name="plateau", gamma=0.1, patience=5),
                no_decay_norm_bias=False,
                clip_norm=1.0,
                monitor="mean_dice",
                steps=5 * train_images,
            ),
        ),
    )

"""What happens to training samples beyond scale, crop, flip and colour jitter; all of it is off unless asked for."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from perpixel.config.fields import Number, Strict, Whole, conflict

__all__ = ["AugmentChoice"]

_Probability: TypeAlias = Annotated[Number, Field(ge=0, le=1)]
_Sigma: TypeAlias = Annotated[Number, Field(ge=0.01, le=8)]
_Noise: TypeAlias = Annotated[Number, Field(ge=0, le=0.5)]
_Exponent: TypeAlias = Annotated[Number, Field(ge=0.1, le=10)]
_Share: TypeAlias = Annotated[Number, Field(ge=0.001, le=1)]
_TrainId: TypeAlias = Annotated[Whole, Field(ge=0, le=254)]


class AugmentChoice(Strict):
    """Transforms of training samples; docs/transforms.md shows each."""

    affine: _Probability = Field(default=0.0, description="Probability of one random affine map of the window.")
    rotate: Number = Field(default=30.0, ge=0, le=180, description="Its largest angle either way, degrees.")
    shear: Number = Field(default=0.0, ge=0, le=60, description="Its largest lean of columns either way, degrees.")
    stretch: Number = Field(default=1.0, ge=1, le=4, description="Its largest ratio of height to width, either way.")
    translate: Number = Field(default=0.0, ge=0, le=1, description="Its largest shift, as a share of each side.")
    border: Literal["fill", "mirror"] = Field(
        default="fill", description="Beyond the image: padding value and label 255, or the image mirrored."
    )
    blur: _Probability = Field(default=0.0, description="Probability of a Gaussian blur.")
    blur_sigma: tuple[_Sigma, _Sigma] = Field(
        default=(0.1, 2.0), description="Its smallest and largest standard deviation, pixels."
    )
    noise: _Probability = Field(default=0.0, description="Probability of Gaussian noise.")
    noise_std: tuple[_Noise, _Noise] = Field(
        default=(0.01, 0.05), description="Its smallest and largest standard deviation, as a share of the full scale."
    )
    gamma: _Probability = Field(default=0.0, description="Probability that values are raised to a power.")
    gamma_range: tuple[_Exponent, _Exponent] = Field(default=(0.7, 1.5), description="Smallest and largest exponent.")
    hue: _Probability = Field(default=0.0, description="Probability that colours are turned about the grey axis.")
    hue_degrees: Number = Field(default=18.0, ge=0, le=180, description="Largest turn either way, degrees.")
    grayscale: _Probability = Field(default=0.0, description="Probability that colours are replaced by their luma.")
    cutout: _Probability = Field(default=0.0, description="Probability that rectangles are covered.")
    cutout_holes: Whole = Field(default=1, ge=1, le=64, description="How many rectangles.")
    cutout_size: tuple[_Share, _Share] = Field(
        default=(0.1, 0.5), description="Smallest and largest side of a rectangle, as a share of the window's."
    )
    cutout_labels: Literal["ignore", "keep"] = Field(
        default="ignore", description="Labels under a rectangle: 255, or what they were."
    )
    cutmix: _Probability = Field(default=0.0, description="Probability that a rectangle shows another sample.")
    cutmix_alpha: Number = Field(
        default=1.0, ge=0.05, le=100, description="The rectangle's share of the window is Beta(alpha, alpha)."
    )
    classmix: _Probability = Field(
        default=0.0, description="Probability that half the classes of another sample are pasted."
    )
    copy_paste: _Probability = Field(
        default=0.0, description="Probability that copy_paste_classes of another sample are pasted."
    )
    copy_paste_classes: tuple[_TrainId, ...] = Field(default=(), description="Train ids of the rare classes.")
    mosaic: _Probability = Field(default=0.0, description="Probability that the window is made of four samples.")
    max_class_share: Number = Field(
        default=1.0, gt=0, le=1, description="Windows with more of one class are moved; 0.75 is common, 1 takes any."
    )
    max_class_tries: Whole = Field(default=10, ge=1, le=100, description="How often at most; the last one is taken.")
    plugged: str | None = Field(
        default=None,
        min_length=1,
        description="A transform of your own, 'module:name' or 'file.py:name': any callable, torchvision v2 or "
        "albumentations. It is run as code.",
    )
    plugged_probability: _Probability = Field(default=1.0, description="Probability that it is called.")
    plugged_style: Literal["auto", "arrays", "albumentations", "torchvision"] = Field(
        default="auto", description="How it is called; auto looks at which package it comes from."
    )

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        for name in ("blur_sigma", "noise_std", "gamma_range", "cutout_size"):
            low, high = getattr(self, name)
            if low > high:
                conflict("AugmentChoice", "the smaller number comes first", name, value=(low, high))
        if self.copy_paste and not self.copy_paste_classes:
            message = "needs copy_paste_classes beside it: the train ids that are pasted"
            conflict("AugmentChoice", message, "copy_paste", value=self.copy_paste)
        return self

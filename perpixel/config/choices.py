"""What is chosen by name: backbone, network, loss terms, optimiser, schedule, parameter groups, evaluation."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from perpixel.config.fields import Number, Option, Pattern, Strict, Whole, conflict
from perpixel.types import Term

__all__ = [
    "BackboneChoice",
    "EvaluationChoice",
    "GroupRule",
    "ModelChoice",
    "OptimizerChoice",
    "ScheduleChoice",
    "TermChoice",
]


class BackboneChoice(Strict):
    """The feature extractor: which one, from which weights, at which output stride."""

    name: str = Field(default="resnet18", description="Name of the trunk; resnet18 trains on a CPU in minutes.")
    weights: str = Field(
        default="none",
        description="'none' (random), 'timm' (its pretrained weights) or a weight file; none needs no download.",
    )
    output_stride: Literal[8, 16, 32] = Field(
        default=32, description="Image pixels per cell of the coarsest map; below 32 the last stages are dilated."
    )
    dilation: Literal["half", "full"] = Field(
        default="half",
        description="Dilation of the first block of a dilated stage: 'half' keeps the previous one (torchvision, timm, "
        "TorchSeg), 'full' takes the stage's own (Caffe).",
    )
    stem: str = Field(
        default="default",
        description="First layers of a ResNet: 'default' (the trunk's own), '7x7', 'deep32' or 'deep64' (three 3x3).",
    )
    in_channels: Whole = Field(default=3, ge=1, description="Channels of the images; 3 is RGB.")
    num_stages: Whole = Field(default=4, ge=1, le=8, description="Coarsest feature maps that the network receives.")
    cut_stages: Whole = Field(default=0, ge=0, le=7, description="Coarsest stages left away; 0 keeps them all.")
    multi_grid: tuple[Whole, ...] = Field(
        default=(), description="Factors on the dilation of the last stage's blocks (DeepLab v3: 1, 2, 4); [] is none."
    )


class ModelChoice(Strict):
    """The network, its backbone and its own options."""

    name: str = Field(default="dfn", description="Name of the network; `perpixel models` lists them.")
    backbone: BackboneChoice | None = Field(default=None, description="Backbone; null takes the network's usual one.")
    options: dict[str, Option] = Field(
        default_factory=dict,
        description="Fields of the network's own configuration, such as width; `perpixel models NAME` lists them.",
    )


class TermChoice(Strict):
    """One summand of the loss; the fields are those of `perpixel.types.Term`."""

    name: str = Field(min_length=1, description="Name under which the summand is logged.")
    output: Literal["logits", "deep", "border", "presence"] = Field(
        default="logits", description="Output of the network that it scores."
    )
    index: Whole = Field(default=0, ge=0, description="Which of the outputs of that kind; 0 for logits.")
    loss: str = Field(default="cross_entropy", description="Name of the loss function.")
    weight: Number = Field(default=1.0, gt=0, description="Factor in the sum; 1 leaves the loss as it is.")
    at: Literal["target", "logits"] = Field(
        default="target", description="'target' resizes scores to the mask, 'logits' the mask to the scores."
    )
    reduction: Literal["mean_valid", "mean_all", "sum"] = Field(
        default="mean_valid", description="Over pixels: mean of those not ignored, mean of all, or sum."
    )
    options: dict[str, Option] = Field(default_factory=dict, description="Keyword arguments of the loss function.")

    @model_validator(mode="after")
    def _fits_a_term(self) -> Self:
        self.to_term()
        return self

    def to_term(self) -> Term:
        """Returns the same summand as the object that losses take."""
        return Term(**self.model_dump())


class OptimizerChoice(Strict):
    """The optimiser and its numbers."""

    name: Literal["sgd", "adamw", "rmsprop"] = Field(
        default="adamw", description="Update rule; AdamW is the least sensitive to the learning rate."
    )
    lr: Number = Field(default=1e-3, gt=0, description="Base learning rate; 1e-3 is usual for AdamW, 1e-2 for SGD.")
    weight_decay: Number = Field(default=1e-4, ge=0, description="Pull of weights to zero; 1e-4 as in most papers.")
    momentum: Number = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd and rmsprop; 0.9 as published.")
    nesterov: bool = Field(default=False, description="Nesterov's momentum, for sgd alone; papers train without it.")
    betas: tuple[Number, Number] = Field(default=(0.9, 0.999), description="AdamW's two decay rates, in [0, 1).")
    eps: Number = Field(default=1e-8, gt=0, description="Added to the denominator of adamw and rmsprop.")

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            conflict("OptimizerChoice", "both must be in [0, 1)", "betas", value=self.betas)
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            message = f"needs name 'sgd' and a momentum over 0; name is {self.name!r}, momentum {self.momentum}"
            conflict("OptimizerChoice", message, "nesterov", value=True)
        return self


class ScheduleChoice(Strict):
    """How the learning rate changes over the steps of a stage."""

    name: Literal["poly", "step", "plateau", "constant", "cosine"] = Field(
        default="poly", description="Shape; poly is (1 - step/steps)**power, as DFN, PSPNet and DeepLab train."
    )
    power: Number = Field(default=0.9, gt=0, description="Exponent of poly; 0.9 as published.")
    warmup_steps: Whole = Field(default=0, ge=0, description="Steps of linear warm-up at the start; 0 is none.")
    warmup_factor: Number = Field(default=1e-3, ge=0, le=1, description="Factor of the rate at the first warm-up step.")
    every: Whole = Field(default=1, ge=1, description="Steps for which the rate stays before it is computed again.")
    milestones: tuple[Whole, ...] = Field(
        default=(), description="Steps at which the 'step' schedule multiplies the rate by gamma, rising."
    )
    gamma: Number = Field(default=0.1, gt=0, le=1, description="Factor of 'step' and 'plateau' per reduction.")
    min_factor: Number = Field(default=0.0, ge=0, le=1, description="Least factor of the base rate; 0 ends at zero.")
    patience: Whole = Field(
        default=5, ge=1, description="Evaluations without a better score before 'plateau' reduces the rate."
    )

    @model_validator(mode="after")
    def _milestones_fit(self) -> Self:
        if (self.name == "step") != bool(self.milestones):
            way_out = "needs milestones" if self.name == "step" else "has none: remove them, or set name to 'step'"
            message = f"schedule {self.name!r} {way_out}"
            conflict("ScheduleChoice", message, "milestones", value=self.milestones)
        if any(first >= second for first, second in pairwise((0, *self.milestones))):
            conflict("ScheduleChoice", "must be rising and positive", "milestones", value=self.milestones)
        return self


class GroupRule(Strict):
    """Settings of the parameters whose names a pattern finds."""

    pattern: Pattern = Field(description="Regular expression, searched in parameter names such as backbone.net.conv1.")
    lr_factor: Number = Field(default=1.0, ge=0, description="Factor of the learning rate; 1 leaves it as it is.")
    weight_decay: Number | None = Field(default=None, ge=0, description="Weight decay; null takes the optimiser's.")
    trainable: bool = Field(default=True, description="False freezes the parameters.")


class EvaluationChoice(Strict):
    """When and how the network is scored on the validation split."""

    every: Whole | None = Field(default=None, ge=1, description="Steps between evaluations; null is decided per run.")
    border_width_px: Whole | None = Field(
        default=5, ge=1, description="Band around true borders, pixels, for the border/interior split; null: none."
    )
    batch_size: Whole = Field(default=1, ge=1, description="Images at once; 1 takes images of any size.")
    save_predictions: bool | Whole = Field(
        default=True, description="Masks written at the end: true for all, false for none, or how many."
    )

    @model_validator(mode="after")
    def _count_fits(self) -> Self:
        if self.save_predictions < 0:
            conflict("EvaluationChoice", "must be 0 or more", "save_predictions", value=self.save_predictions)
        return self

"""RunConfig: everything that decides a run, as frozen, validated, plain data.

The models are the one place for defaults; `perpixel config schema` prints them with their descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from perpixel.config.choices import (
    BackboneChoice,
    EvaluationChoice,
    GroupRule,
    ModelChoice,
    OptimizerChoice,
    ScheduleChoice,
    TermChoice,
)
from perpixel.config.data_choice import SCENES, DataChoice, SceneChoice
from perpixel.config.fields import CONFLICT, ChangesTo, Name, Number, Pattern, Strict, Whole, conflict

__all__ = [
    "SCENES",
    "BackboneChoice",
    "DataChoice",
    "EvaluationChoice",
    "GroupRule",
    "ModelChoice",
    "OptimizerChoice",
    "RunConfig",
    "SceneChoice",
    "ScheduleChoice",
    "Stage",
    "TermChoice",
    "merged",
]

_ClassWeightRule = Literal[
    "none",
    "median_frequency",
    "median_frequency_eigen",
    "sqrt_median_frequency",
    "inverse_frequency",
    "enet",
    "effective_number",
]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``base`` with ``changes`` on top; mappings merge key by key, everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both and isinstance(old, Mapping) else value
    return result


def _check_data_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """Checks each changed key on its own; what keys mean together is checked against the run's data."""
    try:
        DataChoice.model_validate(changes)
    except ValidationError as error:
        own = [_repeated(details) for details in error.errors() if details["type"] != CONFLICT]
        if own:
            raise ValidationError.from_exception_data("DataChoice", own) from error
    plain: dict[str, Any] = _plain(changes)
    return plain


def _repeated(details: Any, *outer: str | int) -> InitErrorDetails:
    """Returns an error as pydantic wants it to be raised again, below ``outer``."""
    kind = PydanticCustomError(details["type"], "{text}", {**details.get("ctx", {}), "text": details["msg"]})
    return {"type": kind, "loc": (*outer, *details["loc"]), "input": details["input"]}


def _plain(value: Any) -> Any:
    """Tuples become lists and models mappings, so that a configuration equals its reloaded self."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


class Stage(Strict):
    """One stretch of training: a network, its start, its loss and how it is optimised."""

    name: Name = Field(default="main", description="Name of the stage, used in its folder; unique within the run.")
    model: ModelChoice | None = Field(
        default=None, description="The network; null takes the previous stage's, so the first stage needs one."
    )
    start: str = Field(
        default="scratch",
        min_length=1,
        description="Where weights come from: 'scratch', 'previous' (stage), 'pruned' (the previous stage's network, "
        "narrowed to this one's width), or the path of an artifact or file.",
    )
    terms: tuple[TermChoice, ...] | None = Field(
        default=None,
        min_length=1,
        description="Summands of the loss; null takes those that the network's paper states.",
    )
    class_weights: _ClassWeightRule | tuple[Annotated[Number, Field(ge=0)], ...] = Field(
        default="none", description="Weights of classes in the loss: a rule over the training pixels, or one per class."
    )
    max_class_weight: Number | None = Field(
        default=None, gt=0, description="Upper bound of a class weight, so that a tiny class cannot rule; null: none."
    )
    data: Annotated[dict[str, Any], ChangesTo(DataChoice), AfterValidator(_check_data_changes)] = Field(
        default_factory=dict, description="Changes to the run's data for this stage; the keys are those of data."
    )
    optimizer: OptimizerChoice = Field(default_factory=OptimizerChoice, description="Optimiser and its numbers.")
    schedule: ScheduleChoice = Field(default_factory=ScheduleChoice, description="Learning rate over the steps.")
    groups: tuple[GroupRule, ...] = Field(
        default=(), description="Settings by parameter name; the first rule that matches a parameter counts."
    )
    new_layers_lr_factor: Number = Field(
        default=1.0, gt=0, description="Factor of the learning rate for all layers but the backbone's; papers use 10."
    )
    no_decay_norm_bias: bool = Field(
        default=True, description="No weight decay on norm layers and biases, as TorchSeg trains DFN."
    )
    steps: Whole = Field(ge=1, description="Updates of the weights.")
    accumulate: Whole = Field(default=1, ge=1, description="Batches summed into one update; 1 is none.")
    clip_norm: Number | None = Field(default=None, gt=0, description="Largest norm of the gradient; null: unbounded.")
    ema_decay: Number | None = Field(
        default=None, ge=0, lt=1, description="Decay of a running mean of the weights, which is scored; null: none."
    )
    patience: Whole | None = Field(
        default=None, ge=1, description="Evaluations without a better score before the stage ends; null: never."
    )
    trainable: tuple[Pattern, ...] = Field(
        default=(), description="Regular expressions: only parameters that one of them finds are trained; none: all."
    )
    frozen: tuple[Pattern, ...] = Field(
        default=(), description="Regular expressions: parameters that one of them finds are not trained."
    )
    freeze_batch_norm: bool = Field(
        default=False, description="Keep the running statistics of batch norm as they are; for small batches."
    )
    monitor: Literal["mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_dice"] = Field(
        default="mean_iou", description="Score that decides which weights are the best ones."
    )

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        names = [term.name for term in self.terms or ()]
        for index, name in enumerate(names):
            if name in names[:index]:
                message = f"the name of term {names.index(name)} too; names must differ"
                conflict("Stage", message, "terms", index, "name", value=name)
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            conflict("Stage", "at least one weight must be over 0", "class_weights", value=self.class_weights)
        if self.schedule.warmup_steps >= self.steps:
            message = f"must be fewer than the stage's steps = {self.steps}"
            conflict("Stage", message, "schedule", "warmup_steps", value=self.schedule.warmup_steps)
        if self.schedule.milestones and self.schedule.milestones[-1] >= self.steps:
            message = f"must all be below the stage's steps = {self.steps}"
            conflict("Stage", message, "schedule", "milestones", value=self.schedule.milestones)
        return self


class RunConfig(Strict):
    """A whole run: labels, data, and one or more stages of training."""

    name: Name = Field(default="run", description="Name of the run, used in its folder.")
    recipe: str | None = Field(default=None, description="Recipe that the run began as, for the record.")
    labels: str | Whole | None = Field(
        default=None,
        description="Label space: a known name, a YAML file or a number of classes; null takes the data set's own.",
    )
    data: DataChoice = Field(default_factory=DataChoice, description="Images, masks, splits and augmentation.")
    stages: tuple[Stage, ...] = Field(min_length=1, description="Stages of training, in order; usually one.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Number format of the network's work; auto is bf16 where the device is fast at it."
    )
    seed: Whole = Field(default=0, ge=0, lt=2**63, description="Seed of weights, batches and augmentation.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to train; auto: a GPU if any.")
    channels_last: bool = Field(default=True, description="Memory order of images on the device; the faster one.")
    compile: Literal["auto"] | bool = Field(
        default="auto",
        description="Run the network through torch.compile; auto does it for long runs on a GPU, where it pays.",
    )
    recompute: bool = Field(
        default=False,
        description="Throw away what the backbone's stages compute inside and compute it again for the gradient: less "
        "memory, about a third more time.",
    )
    deterministic: bool = Field(
        default=False, description="Only operations whose result does not depend on timing; slower on GPUs."
    )
    parallel: Literal["auto", "ddp", "fsdp2"] = Field(
        default="auto",
        description="How several processes train one network: ddp, a whole copy in each; fsdp2, slices of weights and "
        "optimiser state, for networks that do not fit; auto is ddp.",
    )
    tensorboard: bool = Field(
        default=False, description="Write the curves for TensorBoard too, into tensorboard/ of the run (extra track)."
    )
    evaluation: EvaluationChoice = Field(default_factory=EvaluationChoice, description="When and how to score.")
    checkpoint_every: Whole | None = Field(
        default=None, ge=1, description="Steps between saved training states; null is decided per run."
    )
    keep_checkpoints: Whole = Field(default=2, ge=1, description="Newest training states that are kept.")
    threads: Whole | None = Field(default=None, ge=1, description="CPU threads; null is decided for the machine.")

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        first = self.stages[0]
        if first.model is None:
            conflict("RunConfig", "the first stage needs a network, such as name: dfn", "stages", 0, "model")
        if first.start in ("previous", "pruned"):
            message = "no stage comes before the first one; give 'scratch' or a path"
            conflict("RunConfig", message, "stages", 0, "start", value=first.start)
        names = [stage.name for stage in self.stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                message = f"the name of stage {names.index(name)} too; names must differ"
                conflict("RunConfig", message, "stages", index, "name", value=name)
        if self.compile is True and self.recompute:
            conflict("RunConfig", "cannot go with recompute: true; take one of the two", "compile", value=True)
        if isinstance(self.labels, int) and not 1 <= self.labels <= 255:
            conflict("RunConfig", "a number of classes is in [1, 255]", "labels", value=self.labels)
        errors = [error for index in range(len(self.stages)) for error in self._data_errors(index)]
        if errors:
            raise ValidationError.from_exception_data("RunConfig", errors)
        return self

    def _data_errors(self, index: int) -> list[InitErrorDetails]:
        try:
            self.data_of(index)
        except ValidationError as error:
            return [_repeated(details, "stages", index, "data") for details in error.errors()]
        return []

    def data_of(self, index: int) -> DataChoice:
        """Returns the data of stage ``index``: the run's, with the stage's changes on top."""
        changes = self.stages[index].data
        return DataChoice.model_validate(merged(self.data.model_dump(), changes)) if changes else self.data

    def model_of(self, index: int) -> ModelChoice:
        """Returns the network of stage ``index``: its own, or the one of the last stage before it that has one."""
        return next(stage.model for stage in reversed(self.stages[: index + 1]) if stage.model is not None)

"""RunConfig and its parts: bounds, keys that contradict each other, what a stage inherits."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from perpixel.backbones import BackboneConfig
from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    GroupRule,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    SceneChoice,
    ScheduleChoice,
    Stage,
    TermChoice,
)
from perpixel.data.scenes import SceneConfig
from perpixel.types import Term

STAGE = Stage(model=ModelChoice(), steps=10)


def schema_models() -> list[type[BaseModel]]:
    return [
        BackboneChoice, DataChoice, EvaluationChoice, GroupRule, ModelChoice, OptimizerChoice, RunConfig, SceneChoice,
        ScheduleChoice, Stage, TermChoice,
    ]  # fmt: skip


@pytest.mark.parametrize("model", schema_models())
def test_schema_every_field_is_described(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, info in model.model_fields.items():
        assert info.description and len(info.description) > 10, f"{model.__name__}.{name}"


@pytest.mark.parametrize(("choice", "target"), [(BackboneChoice, BackboneConfig), (TermChoice, Term)])
def test_choice_mirrors_the_object_it_becomes(choice: type[BaseModel], target: Any) -> None:
    assert set(choice.model_fields) == {item.name for item in fields(target)}


def test_backbone_choice_defaults_equal_those_of_the_backbone() -> None:
    assert BackboneChoice().model_dump(mode="json") == BackboneConfig().to_dict()
    BackboneConfig(**BackboneChoice(stem="deep64", output_stride=8).model_dump())


def test_scene_choice_least_size_is_the_generators() -> None:
    least = SceneConfig(**SceneChoice(height=32, width=32).model_dump(exclude={"train", "val", "test"}))
    assert (least.height, least.width) == (32, 32)


def test_term_choice_to_term_keeps_every_field() -> None:
    choice = TermChoice(name="edge", output="border", index=2, loss="focal", weight=0.1, options={"gamma": 2.0})
    assert choice.to_term() == Term(
        name="edge", output="border", index=2, loss="focal", weight=0.1, options={"gamma": 2.0}
    )


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (BackboneChoice, {"output_stride": 12}, "8, 16 or 32"),
        (BackboneChoice, {"in_channels": 0}, "greater than or equal to 1"),
        (OptimizerChoice, {"lr": 0}, "greater than 0"),
        (OptimizerChoice, {"lr": float("nan")}, "finite"),
        (OptimizerChoice, {"lr": True}, "not true or false"),
        (OptimizerChoice, {"momentum": 1.0}, "less than 1"),
        (OptimizerChoice, {"betas": (0.9, 1.0)}, r"both must be in \[0, 1\)"),
        (OptimizerChoice, {"nesterov": True}, "needs name 'sgd' and a momentum over 0; name is 'adamw'"),
        (ScheduleChoice, {"name": "step"}, "'step' needs milestones"),
        (ScheduleChoice, {"milestones": (3,)}, "'poly' has none: remove them, or set name to 'step'"),
        (ScheduleChoice, {"name": "step", "milestones": (3, 3)}, "rising and positive"),
        (ScheduleChoice, {"name": "step", "milestones": (0, 3)}, "rising and positive"),
        (ScheduleChoice, {"warmup_factor": 2}, "less than or equal to 1"),
        (GroupRule, {"pattern": "("}, "not a regular expression"),
        (EvaluationChoice, {"save_predictions": -1}, "must be 0 or more"),
        (SceneChoice, {"height": 31}, "greater than or equal to 32"),
        (DataChoice, {"batch_size": 0}, "greater than or equal to 1"),
        (DataChoice, {"flip": 1.5}, "less than or equal to 1"),
        (DataChoice, {"crop_size": (256, 0)}, "greater than or equal to 1"),
        (DataChoice, {"scales": ()}, "at least 1"),
        (DataChoice, {"scales": (0.01,)}, "greater than or equal to 0.0625"),
        (DataChoice, {"scale_range": (1, 17)}, "less than or equal to 16"),
        (DataChoice, {"scales": (0.5, 1), "scale_range": (0.5, 2)}, r"\[0.5, 1.0\] and scale_range = \[0.5, 2.0\]"),
        (DataChoice, {"scale_range": (2, 0.5)}, "the lower factor comes first"),
        (DataChoice, {"images": "a"}, "needs data.masks beside it"),
        (DataChoice, {"masks": "a"}, "needs data.images beside it"),
        (DataChoice, {"images": "a", "masks": "b", "source": "c"}, "excludes data.images = 'a'"),
        (TermChoice, {"name": "a", "index": 1}, r"there is no logits\[1\]"),
        (Stage, {"steps": 10, "terms": ({"name": "a"}, {"name": "a"})}, "the name of term 0 too"),
        (Stage, {"steps": 10, "class_weights": (0, 0)}, "at least one weight must be over 0"),
        (Stage, {"steps": 10, "schedule": {"warmup_steps": 10}}, "fewer than the stage's steps = 10"),
        (Stage, {"steps": 9, "schedule": {"name": "step", "milestones": (9,)}}, "below the stage's steps = 9"),
        (Stage, {"steps": 10, "name": "a/b"}, "names a folder"),
        (Stage, {"steps": 10, "name": "../up"}, "names a folder"),
        (Stage, {"steps": 10, "frozen": ("[",)}, "not a regular expression"),
        (Stage, {"steps": 10, "data": {"batch_size": 0}}, "greater than or equal to 1"),
        (RunConfig, {"stages": ()}, "at least 1"),
        (RunConfig, {"stages": (STAGE,), "labels": 256}, r"in \[1, 255\]"),
        (RunConfig, {"stages": (STAGE,), "labels": 0}, r"in \[1, 255\]"),
        (RunConfig, {"stages": (Stage(steps=1),)}, "the first stage needs a network"),
        (RunConfig, {"stages": (Stage(model=ModelChoice(), steps=1, start="previous"),)}, "no stage comes before"),
        (RunConfig, {"stages": (STAGE, STAGE)}, "the name of stage 0 too"),
    ],
)
def test_schema_value_outside_its_bounds_is_refused(model: type[BaseModel], values: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(values)


def test_schema_models_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        STAGE.steps = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        DataChoice.model_validate({"crop": 3})


def test_data_source_scenes_without_settings_takes_the_default_scenes() -> None:
    assert DataChoice(source="scenes").scenes == SceneChoice()
    assert DataChoice(source="/folder").scenes is None


def test_stage_data_changes_merge_over_the_runs_data() -> None:
    data = DataChoice(source="scenes", scenes=SceneChoice(train=7, val=3), batch_size=4)
    second = Stage(name="b", steps=5, data={"batch_size": 2, "scenes": {"val": 9}})
    config = RunConfig(data=data, stages=(STAGE, second))
    assert config.data_of(0) is config.data
    assert config.data_of(1).batch_size == 2
    assert config.data_of(1).scenes == SceneChoice(train=7, val=9)


def test_stage_data_changes_conflict_with_the_runs_data_is_refused_at_its_key() -> None:
    second = Stage(name="b", steps=5, data={"scales": [0.5, 1]})
    with pytest.raises(ValidationError) as caught:
        RunConfig(data=DataChoice(scale_range=(0.5, 2)), stages=(STAGE, second))
    [details] = caught.value.errors()
    assert details["loc"] == ("stages", 1, "data", "scale_range")
    assert "exclude each other" in details["msg"]


def test_stage_data_half_of_a_pair_is_accepted_where_the_run_has_the_other_half() -> None:
    second = Stage(name="b", steps=5, data={"images": "other"})
    config = RunConfig(data=DataChoice(images="a", masks="b"), stages=(STAGE, second))
    assert (config.data_of(1).images, config.data_of(1).masks) == ("other", "b")


def test_model_of_stage_without_a_network_is_the_last_one_before() -> None:
    other = ModelChoice(name="fcn")
    stages = (STAGE, Stage(name="b", steps=1), Stage(name="c", model=other, steps=1), Stage(name="d", steps=1))
    config = RunConfig(stages=stages)
    assert [config.model_of(index).name for index in range(4)] == ["dfn", "dfn", "fcn", "fcn"]

"""Configurations of runs: the schema, reading and writing, overrides and variants. Imports no torch."""

from perpixel.config.augment_choice import AugmentChoice
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
from perpixel.config.load import Check, apply_overrides, config_from_dict, dump_config, json_schema, load_config
from perpixel.config.overrides import Override, parse_overrides
from perpixel.config.schema import RunConfig, Stage
from perpixel.config.variant import variant

__all__ = [
    "SCENES",
    "AugmentChoice",
    "BackboneChoice",
    "Check",
    "DataChoice",
    "EvaluationChoice",
    "GroupRule",
    "ModelChoice",
    "OptimizerChoice",
    "Override",
    "RunConfig",
    "SceneChoice",
    "ScheduleChoice",
    "Stage",
    "TermChoice",
    "apply_overrides",
    "config_from_dict",
    "dump_config",
    "json_schema",
    "load_config",
    "parse_overrides",
    "variant",
]

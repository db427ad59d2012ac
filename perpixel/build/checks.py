"""Names that only build.py's rooms know, checked before a run starts so that all of a file's errors come at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from perpixel.backbones import CAFFE_RESNETS, ICNET_TRUNK, NAMED_TRUNKS, BackboneConfig
from perpixel.build.networks import build_network, in_channels
from perpixel.config import BackboneChoice, ModelChoice, RunConfig
from perpixel.errors import InvalidValue, nearest
from perpixel.losses import LOSSES, SegmentationLoss
from perpixel.models import MODELS
from perpixel.models.option_kinds import wrong_kinds
from perpixel.weights import check_narrower

__all__ = ["check_names"]

Problem = tuple[str, Any, str]


def check_names(config: RunConfig) -> list[Problem]:
    """Returns (key path, value, message) for every model, option, backbone or loss that does not exist."""
    problems: list[Problem] = []
    for index, stage in enumerate(config.stages):
        where = f"stages.{index}"
        if stage.model is not None:
            problems += _model_problems(stage.model, f"{where}.model")
        for i, term in enumerate(stage.terms or ()):
            if term.loss not in LOSSES:
                message = f"unknown loss{nearest(term.loss, LOSSES, end='.')} Known: {', '.join(LOSSES)}"
                problems.append((f"{where}.terms.{i}.loss", term.loss, message))
            else:
                problems += _caught(f"{where}.terms.{i}", term.name, _term_check(term.to_term()))
        channels = [in_channels(config.model_of(i)) for i in (0, index)]
        if channels[0] != channels[1]:
            message = f"the stages share one data set, read with the first one's {channels[0]} channels"
            problems.append((f"{where}.model.backbone.in_channels", channels[1], message))
        if stage.start not in ("scratch", "previous", "pruned") and not Path(stage.start).exists():
            problems.append((f"{where}.start", stage.start, "no such artifact or weight file"))
        if stage.start == "pruned" and not problems:
            check = partial(_check_narrowing, config.model_of(index), config.model_of(index - 1))
            problems += _caught(f"{where}.start", stage.start, check)
    return problems


def _check_narrowing(smaller: ModelChoice, larger: ModelChoice) -> None:
    networks = []
    for model in (smaller, larger):
        trunk = None if model.backbone is None else model.backbone.model_copy(update={"weights": "none"})
        with torch.device("meta"):  # shapes are enough
            networks.append(build_network(model.model_copy(update={"backbone": trunk}), 2))
    check_narrower(*networks)


def _term_check(term: Any) -> Callable[[], object]:
    return lambda: SegmentationLoss([term], num_classes=2, align_corners=False)


def _model_problems(model: ModelChoice, where: str) -> Iterator[Problem]:
    if model.name not in MODELS:
        known = ", ".join(sorted(MODELS))
        yield f"{where}.name", model.name, f"unknown model{nearest(model.name, MODELS, end='.')} Known: {known}"
    else:
        config = MODELS[model.name].config
        known_options = [f.name for f in fields(config)]
        unknown = [o for o in model.options if o not in known_options]
        for option in unknown:
            near = nearest(option, known_options, end=".")
            message = f"{model.name} has no such option{near} Known: {', '.join(known_options)}"
            yield f"{where}.options.{option}", model.options[option], message
        wrong = dict(wrong_kinds(config, model.options))
        for option, kind in wrong.items():
            yield f"{where}.options.{option}", model.options[option], kind
        if not unknown and not wrong:
            yield from _caught(f"{where}.options", dict(model.options), lambda: config(**model.options))
        if MODELS[model.name].backbone is None and model.backbone is not None:
            message = f"{model.name} is a network of one piece and takes no backbone; leave it away"
            yield f"{where}.backbone", model.backbone.name, message
    if model.backbone is not None:
        yield from _backbone_problems(model.backbone, f"{where}.backbone")


def _backbone_problems(backbone: BackboneChoice, where: str) -> Iterator[Problem]:
    own = (*CAFFE_RESNETS, *NAMED_TRUNKS, ICNET_TRUNK)
    if backbone.name not in own and not timm.is_model(backbone.name):
        known = (*timm.list_models(), *own)
        yield f"{where}.name", backbone.name, f"timm has no such model{nearest(backbone.name, known)}"
    if backbone.weights not in ("none", "timm") and not Path(backbone.weights).is_file():
        yield f"{where}.weights", backbone.weights, "no such weight file; 'none' is random, 'timm' fetches timm's"
    for field, value in backbone.model_dump().items():
        yield from _caught(f"{where}.{field}", value, partial(BackboneConfig, **{field: value}))


def _caught(where: str, value: Any, attempt: Callable[[], object]) -> list[Problem]:
    try:
        attempt()
    except InvalidValue as error:
        return [(where, value, str(error))]
    except TypeError as error:
        return [(where, value, f"a value is of the wrong kind: {error}")]
    return []

"""Which parameters train, at which multiple of the learning rate and with how much weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from perpixel.errors import InvalidValue, nearest

__all__ = ["ParameterRule", "freeze_batch_norm", "parameter_groups"]


class ParameterRule(Protocol):
    """What ``parameter_groups`` reads of a rule; ``config.GroupRule`` has these fields."""

    @property
    def pattern(self) -> str:
        """Regular expression searched in the parameter's full name."""

    @property
    def lr_factor(self) -> float:
        """Multiple of the base learning rate, in place of ``new_layers_lr_factor``."""

    @property
    def weight_decay(self) -> float | None:
        """Decay of every matching parameter, norms and biases too; None keeps the usual one."""

    @property
    def trainable(self) -> bool:
        """False freezes what matches."""


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """Where one parameter goes: the key by which parameters share a group."""

    name: str
    lr_factor: float
    weight_decay: float


def parameter_groups(
    network: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    rules: Sequence[ParameterRule] = (),
    new_layers_lr_factor: float = 1.0,
    no_decay_norm_bias: bool = True,
    backbone_prefix: str = "backbone.",
    trainable: Sequence[str] = (),
    frozen: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Sorts the parameters of a network into optimizer groups and freezes those that do not train.

    The first rule whose pattern is found in a parameter's name decides its learning rate, and its decay where it states
    one. A parameter that needs no gradient already stays so, unless a ``trainable`` pattern names it.

    Args:
        network: Its parameters' ``requires_grad`` is set here.
        base_lr: Learning rate at factor 1, >= 0.
        weight_decay: Decay of all that is neither a norm's parameter nor a bias.
        rules: Tried in order; without one, layers outside the backbone take ``new_layers_lr_factor``.
        new_layers_lr_factor: Factor of parameters whose name does not begin with ``backbone_prefix``.
        no_decay_norm_bias: False decays norms and biases as well.
        backbone_prefix: Name prefix of the pretrained part.
        trainable: Patterns; when given, only what one of them finds trains.
        frozen: Patterns of what does not train; stronger than ``trainable``.

    Returns:
        Groups of ``name, lr, initial_lr, lr_factor, weight_decay, params``, without the frozen.

    Raises:
        InvalidValue: a pattern is no regular expression or finds no parameter, or nothing is left to train.
    """
    parameters = list(_named_parameters(network))
    names = [entry[0] for entry in parameters]
    compiled = [(rule, _compile(rule.pattern, names, "a group rule")) for rule in rules]
    trainable_patterns = [_compile(pattern, names, "trainable") for pattern in trainable]
    frozen_patterns = [_compile(pattern, names, "frozen") for pattern in frozen]
    members: dict[_Choice, list[nn.Parameter]] = {}
    for name, parameter, decays in parameters:
        rule = next((rule for rule, pattern in compiled if pattern.search(name)), None)
        named = _found(trainable_patterns, name) or (parameter.requires_grad and not trainable)
        stopped = _found(frozen_patterns, name) or not (rule is None or rule.trainable)
        parameter.requires_grad_(named and not stopped)
        if parameter.requires_grad:
            new_factor = None if name.startswith(backbone_prefix) else new_layers_lr_factor
            decay = weight_decay if decays or not no_decay_norm_bias else 0.0
            members.setdefault(_choose(rule, new_factor, decay, weight_decay), []).append(parameter)
    if not members:
        patterns = f"trainable={list(trainable)}, frozen={list(frozen)}"
        raise InvalidValue(f"none of the {len(names)} parameters is left to train ({patterns}); loosen the patterns")
    return [_group(choice, base_lr, parameters) for choice, parameters in members.items()]


def freeze_batch_norm(network: nn.Module) -> int:
    """Puts every batch norm into evaluation mode, so that stored means and variances are used and kept.

    ``network.train()`` undoes it: call it again afterwards. Scales and shifts train on; freeze them by pattern.

    Returns:
        How many batch norms there are.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.eval()
    return len(layers)


def _found(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
    return any(pattern.search(name) for pattern in patterns)


def _choose(rule: ParameterRule | None, new_factor: float | None, decay: float, usual_decay: float) -> _Choice:
    """Returns the group of a parameter; ``new_factor`` is None in the backbone."""
    if rule is not None:
        name, factor = rule.pattern, rule.lr_factor
        decay = decay if rule.weight_decay is None else rule.weight_decay
    elif new_factor is not None:
        name, factor = "new layers", new_factor
    else:
        name, factor = "backbone", 1.0
    if decay != usual_decay:
        name = f"{name}, weight decay {decay:g}"
    return _Choice(name=name, lr_factor=factor, weight_decay=decay)


def _group(choice: _Choice, base_lr: float, parameters: list[nn.Parameter]) -> dict[str, Any]:
    return {
        "name": choice.name,
        "lr": base_lr * choice.lr_factor,
        "initial_lr": base_lr * choice.lr_factor,
        "lr_factor": choice.lr_factor,
        "weight_decay": choice.weight_decay,
        "params": parameters,
    }


def _named_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yields each parameter once with its full name and whether weight decay is usual for it."""
    seen: set[int] = set()
    for prefix, module in network.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        for own_name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_bias = own_name == "bias" or own_name.endswith("_bias")
            yield (f"{prefix}.{own_name}" if prefix else own_name), parameter, not (is_norm or is_bias)


def _compile(pattern: str, names: Iterable[str], where: str) -> re.Pattern[str]:
    """Returns the pattern, sure to find at least one of the names."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidValue(f"{where}: {pattern!r} is not a regular expression: {error}") from error
    names = list(names)
    if not any(compiled.search(name) for name in names):
        shown = ", ".join(names[:5])
        raise InvalidValue(
            f"{where}: pattern {pattern!r} finds none of the {len(names)} parameters{nearest(pattern, names, end='.')} "
            f"(names look like: {shown})"
        )
    return compiled

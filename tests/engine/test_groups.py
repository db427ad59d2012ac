"""Parameter groups: who trains, how fast, with what decay."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from engine_fakes import TinyNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perpixel.engine.groups import freeze_batch_norm, parameter_groups
from perpixel.errors import InvalidValue


@dataclass(frozen=True)
class Rule:
    pattern: str
    lr_factor: float = 1.0
    weight_decay: float | None = None
    trainable: bool = True


def group_of(groups: list[dict], parameter: nn.Parameter) -> dict:
    found = [group for group in groups if any(member is parameter for member in group["params"])]
    assert len(found) == 1
    return found[0]


def test_groups_default_separate_backbone_new_layers_and_no_decay() -> None:
    network = TinyNetwork()
    groups = parameter_groups(network, base_lr=0.1, weight_decay=0.01, new_layers_lr_factor=10)
    conv, norm = network.backbone[0], network.backbone[1]
    assert group_of(groups, conv.weight) | {"params": 0} == {
        "name": "backbone",
        "lr": 0.1,
        "initial_lr": 0.1,
        "lr_factor": 1.0,
        "weight_decay": 0.01,
        "params": 0,
    }
    assert group_of(groups, norm.weight)["weight_decay"] == 0
    assert group_of(groups, norm.bias)["weight_decay"] == 0
    assert group_of(groups, network.head.weight)["lr"] == 1.0
    assert group_of(groups, network.head.weight)["weight_decay"] == 0.01
    assert group_of(groups, network.head.bias)["weight_decay"] == 0
    assert group_of(groups, network.head.bias)["lr"] == 1.0


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4, affine=True)])
def test_groups_any_norm_module_has_no_decay(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), norm)
    groups = parameter_groups(network, base_lr=1, weight_decay=0.5)
    assert group_of(groups, norm.weight)["weight_decay"] == 0
    assert group_of(groups, network[0].weight)["weight_decay"] == 0.5


def test_groups_no_decay_off_decays_everything() -> None:
    groups = parameter_groups(TinyNetwork(), base_lr=1, weight_decay=0.5, no_decay_norm_bias=False)
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]


def test_groups_first_matching_rule_wins() -> None:
    network = TinyNetwork()
    rules = [Rule(r"head\.bias", 20, 0.0), Rule("head", 10), Rule("bias", 5, 0.3)]
    groups = parameter_groups(network, base_lr=1, weight_decay=0.1, rules=rules, new_layers_lr_factor=7)
    assert group_of(groups, network.head.bias)["lr"] == 20
    assert group_of(groups, network.head.weight)["lr"] == 10
    assert group_of(groups, network.head.weight)["weight_decay"] == 0.1
    assert group_of(groups, network.backbone[1].bias)["weight_decay"] == 0.3
    assert group_of(groups, network.backbone[1].bias)["lr"] == 5


def test_groups_frozen_pattern_and_rule_leave_parameters_out() -> None:
    network = TinyNetwork()
    rules = [Rule(r"head\.bias", trainable=False)]
    groups = parameter_groups(network, base_lr=1, weight_decay=0.1, rules=rules, frozen=[r"^backbone\.0"])
    members = {id(parameter) for group in groups for parameter in group["params"]}
    assert {name for name, parameter in network.named_parameters() if id(parameter) not in members} == {
        "backbone.0.weight",
        "head.bias",
    }
    assert not network.backbone[0].weight.requires_grad
    assert not network.head.bias.requires_grad
    assert network.head.weight.requires_grad


def test_groups_trainable_pattern_thaws_and_restricts() -> None:
    network = TinyNetwork()
    network.head.weight.requires_grad_(False)
    groups = parameter_groups(network, base_lr=1, weight_decay=0.1, trainable=["head"], frozen=["bias"])
    assert [parameter is network.head.weight for group in groups for parameter in group["params"]] == [True]


def test_groups_parameter_without_gradient_stays_frozen() -> None:
    network = TinyNetwork()
    network.head.weight.requires_grad_(False)
    groups = parameter_groups(network, base_lr=1, weight_decay=0.1)
    assert not network.head.weight.requires_grad
    assert sum(len(group["params"]) for group in groups) == 4


def test_groups_shared_parameter_appears_once() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    groups = parameter_groups(network, base_lr=1, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == 3


def test_groups_pattern_that_finds_nothing_raises_with_nearest_name() -> None:
    with pytest.raises(
        InvalidValue, match=r"a group rule: pattern 'heat\\\\.weight' finds none of the 5.*'head\.weight'"
    ):
        parameter_groups(TinyNetwork(), base_lr=1, weight_decay=0, rules=[Rule(r"heat\.weight")])
    with pytest.raises(InvalidValue, match="frozen: pattern 'xyz' finds none"):
        parameter_groups(TinyNetwork(), base_lr=1, weight_decay=0, frozen=["xyz"])


def test_groups_bad_regular_expression_raises() -> None:
    with pytest.raises(InvalidValue, match=r"trainable: 'head\(' is not a regular expression"):
        parameter_groups(TinyNetwork(), base_lr=1, weight_decay=0, trainable=["head("])


def test_groups_nothing_left_raises() -> None:
    with pytest.raises(InvalidValue, match=r"none of the 5 parameters is left to train .*frozen=\['\.'\]"):
        parameter_groups(TinyNetwork(), base_lr=1, weight_decay=0, frozen=["."])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(["head", "bias", "backbone", r"\.1\."]), max_size=3), st.booleans())
def test_groups_every_trainable_parameter_is_in_exactly_one(patterns: list[str], no_decay: bool) -> None:
    network = TinyNetwork()
    rules = [Rule(pattern, index + 2.0) for index, pattern in enumerate(patterns)]
    groups = parameter_groups(network, base_lr=0.5, weight_decay=0.1, rules=rules, no_decay_norm_bias=no_decay)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in network.parameters())
    assert all(group["lr"] == 0.5 * group["lr_factor"] for group in groups)


def test_freeze_batch_norm_keeps_running_statistics() -> None:
    network = TinyNetwork(dropout=0).train()
    assert freeze_batch_norm(network) == 1
    before = network.backbone[1].running_mean.clone()
    network(torch.rand(2, 3, 4, 4))
    assert torch.equal(network.backbone[1].running_mean, before)
    network.train()
    network(torch.rand(2, 3, 4, 4))
    assert not torch.equal(network.backbone[1].running_mean, before)

"""Optimizers by name."""

from __future__ import annotations

import pytest
import torch
from engine_fakes import TinyNetwork
from torch import nn
from torch.optim import SGD, AdamW, RMSprop

from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import OPTIMIZERS, create_optimizer, lay_out_state
from perpixel.errors import InvalidValue


def groups(lr: float = 0.5) -> list[dict]:
    return parameter_groups(TinyNetwork(), base_lr=lr, weight_decay=0.1, new_layers_lr_factor=3)


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adamw", AdamW), ("rmsprop", RMSprop)])
def test_optimizer_name_builds_its_class_with_the_groups_rates(name: str, kind: type) -> None:
    optimizer = create_optimizer(name, groups(), lr=9.0)
    assert type(optimizer) is kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.5, 1.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}


def test_optimizer_options_arrive() -> None:
    sgd = create_optimizer("sgd", groups(), lr=1, momentum=0.7, nesterov=True)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.7, True)
    adamw = create_optimizer("adamw", groups(), lr=1, betas=(0.8, 0.95), eps=1e-6)
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.8, 0.95), 1e-6)
    assert create_optimizer("rmsprop", groups(), lr=1, momentum=0.3).defaults["momentum"] == 0.3


def test_optimizer_fused_is_on_by_itself_where_there_is_a_kernel() -> None:
    assert create_optimizer("sgd", groups(), lr=1).defaults["fused"]
    assert create_optimizer("adamw", groups(), lr=1).defaults["fused"]
    assert not create_optimizer("sgd", groups(), lr=1, fused=False).defaults["fused"]
    half = [{"params": [nn.Parameter(torch.ones(3, dtype=torch.bfloat16))]}]
    assert not create_optimizer("sgd", half, lr=1).defaults["fused"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_fused_takes_the_same_steps_as_unfused(momentum: float) -> None:
    weights = []
    for fused in (False, True):
        weight = nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = create_optimizer("sgd", [{"params": [weight]}], lr=0.1, momentum=momentum, fused=fused)
        for step in range(3):
            weight.grad = torch.arange(7.0) - step
            optimizer.step()
        weights.append(weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_sgd_fused_first_step_skipped_leaves_momentum_clean() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = create_optimizer("sgd", [{"params": [weight]}], lr=0.1, fused=True)
    weight.grad = torch.full((3,), float("inf"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(3))
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], torch.zeros(3))


def test_optimizer_unknown_name_raises_with_nearest() -> None:
    with pytest.raises(
        InvalidValue, match=r"unknown optimizer 'adam'; known: sgd, adamw, rmsprop; did you mean 'adamw'"
    ):
        create_optimizer("adam", groups(), lr=1)
    assert list(OPTIMIZERS) == ["sgd", "adamw", "rmsprop"]


def test_optimizer_without_parameters_raises() -> None:
    with pytest.raises(InvalidValue, match="optimizer 'sgd' got no parameters"):
        create_optimizer("sgd", [{"params": []}], lr=1)


def test_rmsprop_fused_raises() -> None:
    with pytest.raises(InvalidValue, match="'rmsprop' has no fused kernel"):
        create_optimizer("rmsprop", groups(), lr=1, fused=True)


def test_optimizer_bad_value_raises_with_the_optimizers_name() -> None:
    with pytest.raises(InvalidValue, match="optimizer 'sgd': Invalid momentum value: -1"):
        create_optimizer("sgd", groups(), lr=1, momentum=-1)


def test_lay_out_state_follows_parameters_that_became_channels_last() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    optimizer = create_optimizer("sgd", [{"params": [weight]}], lr=0.1, momentum=0.9)
    optimizer.state[weight]["momentum_buffer"].copy_(values := torch.randn(4, 3, 3, 3))
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    lay_out_state(optimizer)
    laid = optimizer.state[weight]["momentum_buffer"]
    assert laid.stride() == weight.stride()
    assert torch.equal(laid, values)

"""Moving average of weights."""

from __future__ import annotations

import pytest
import torch
from engine_fakes import TinyNetwork
from torch import nn

from perpixel.engine.ema import ExponentialMovingAverage
from perpixel.errors import CheckpointError, InvalidValue


def test_ema_updates_follow_the_formula_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    ema = ExponentialMovingAverage(network, decay=0.15)
    expected = 1.0
    for n, value in enumerate((2.0, 4.0, 8.0)):
        nn.init.constant_(network.weight, value)
        ema.update()
        decay = min(0.15, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with ema.swap():
        assert network.weight.item() == pytest.approx(expected, rel=1e-6)
    assert network.weight.item() == 8.0


def test_ema_swap_restores_after_an_error() -> None:
    network = TinyNetwork()
    ema = ExponentialMovingAverage(network, decay=0.5)
    nn.init.ones_(network.head.weight)
    with pytest.raises(ValueError, match="stop"), ema.swap():
        assert not torch.equal(network.head.weight, torch.ones_like(network.head.weight))
        raise ValueError("stop")
    assert torch.equal(network.head.weight, torch.ones_like(network.head.weight))


def test_ema_leaves_buffers_and_frozen_parameters_to_the_network() -> None:
    network = TinyNetwork()
    network.head.bias.requires_grad_(False)
    ema = ExponentialMovingAverage(network, decay=0.5)
    nn.init.ones_(network.head.bias)
    network.backbone[1].running_mean.fill_(7)
    with ema.swap():
        assert network.backbone[1].running_mean[0] == 7
        assert network.head.bias[0] == 1
    assert set(ema.state_dict()["averages"]) == {
        "backbone.0.weight",
        "backbone.1.weight",
        "backbone.1.bias",
        "head.weight",
    }


def test_ema_state_round_trip_is_exact() -> None:
    network = TinyNetwork()
    first = ExponentialMovingAverage(network, decay=0.9)
    nn.init.ones_(network.head.weight)
    first.update()
    second = ExponentialMovingAverage(network, decay=0.9)
    second.load_state_dict(first.state_dict())
    assert second.num_updates == 1
    for name, average in first.state_dict()["averages"].items():
        assert torch.equal(average, second.state_dict()["averages"][name])


def test_ema_state_of_another_network_raises() -> None:
    ema = ExponentialMovingAverage(TinyNetwork(), decay=0.9)
    state = ExponentialMovingAverage(nn.Linear(1, 1), decay=0.9).state_dict()
    with pytest.raises(CheckpointError, match=r"does not fit the network: 'backbone\.0\.weight' is only in one"):
        ema.load_state_dict(state)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_ema_decay_out_of_range_raises(decay: float) -> None:
    with pytest.raises(InvalidValue, match=f"must be in .*, got {decay}"):
        ExponentialMovingAverage(TinyNetwork(), decay=decay)

"""Activation checkpointing of backbones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from perpixel.engine.recomputation import recompute_backbone
from perpixel.models import MODELS, Network, create_model, list_models
from perpixel.types import SegOutput

LIGHTEST = {"deeplab_v2": "caffe_resnet50", "refinenet_lw": "resnet10t"}
TRUNKS = (
    ("deeplab_v3plus", "mobilenetv3_small_050"),
    ("lraspp", None),
    ("refinenet_lw", "drsleep_mobilenet_v2"),
    ("deeplab_v3plus", "vainf_mobilenetv2_050"),
    ("gcn", "resnet50_gcn"),
)
"""Kinds of trunks that no network has by default in its small form."""


def small(name: str, trunk: str | None = None) -> Network:
    torch.manual_seed(0)
    backbone = trunk or ("resnet10t" if MODELS[name].takes_any_backbone else LIGHTEST.get(name))
    return create_model(name, MODELS[name].config.small(), num_classes=3, backbone=backbone).double().train()


def images(network: Network) -> Tensor:
    side = max(network.minimum_size, 32)
    torch.manual_seed(2)
    return torch.randn(2, network.preprocessing.num_channels, *network.valid_size(side, side), dtype=torch.float64)


def scores(output: SegOutput) -> list[Tensor]:
    return [output.logits, *output.deep, *output.border, *output.presence]


def passed(network: Network, x: Tensor) -> dict[str, Tensor]:
    """Everything that a training step leaves behind: scores, gradients, statistics."""
    torch.manual_seed(1)
    found = scores(network(x))
    torch.autograd.backward(sum(part.square().sum() for part in found))
    left = {f"score {i}": part.detach() for i, part in enumerate(found)}
    left |= {f"gradient of {n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return left | {f"buffer {n}": b.clone() for n, b in network.named_buffers()}


def assert_the_same(network: Network) -> None:
    twin = copy.deepcopy(network)
    names = recompute_backbone(network)
    assert names
    assert network.state_dict().keys() == twin.state_dict().keys()
    x = images(network)
    ours, plain = passed(network, x), passed(twin, x)
    assert ours.keys() == plain.keys()
    assert [key for key, value in plain.items() if not torch.equal(value, ours[key])] == []


@pytest.mark.parametrize("name", list_models())
def test_recomputed_network_leaves_the_same_gradients_and_statistics(name: str) -> None:
    assert_the_same(small(name))


@pytest.mark.parametrize(("name", "trunk"), TRUNKS)
def test_recomputed_trunk_of_every_kind_leaves_the_same_gradients_and_statistics(name: str, trunk: str | None) -> None:
    assert_the_same(small(name, trunk))

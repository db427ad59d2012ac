"""Every network of the table as one graph: what the step of a training run calls when it is compiled.

The evaluation's half of it, over the same table, is tests/models/test_network_contract.py: compiles_into_one_graph.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightest_trunks import lightest_trunk
from torch import Tensor

from perpixel.models import MODELS, create_model, list_models
from perpixel.models.eager_only import EAGER_ONLY, eager_reason
from perpixel.models.network import Network
from perpixel.types import SegOutput

NO_GRAPH = ("crf_rnn",)
"""Eager in their small form as well; Zoom-out's has a grid in place of superpixels."""
INDUCTOR = ("dfn", "unet_backbone", "pspnet", "segnet", "hrnet")


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch.compiler.reset()


def small(name: str) -> Network:
    torch.manual_seed(0)
    return create_model(name, MODELS[name].config.small(), num_classes=3, backbone=lightest_trunk(name))


def smallest_images(network: Network) -> Tensor:
    size = network.valid_size(network.minimum_size, network.minimum_size)
    torch.manual_seed(2)
    return torch.randn(2, network.preprocessing.num_channels, *size)


def scores(output: SegOutput) -> list[Tensor]:
    return [output.logits, *output.deep, *output.border, *output.presence]


def passed(network: Network, forward: Any, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Scores and gradients of one training pass."""
    torch.manual_seed(1)
    found = scores(forward(x))
    torch.autograd.backward(sum(part.square().mean() for part in found))
    return [part.detach() for part in found], [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", [name for name in list_models() if name not in NO_GRAPH])
def test_network_in_training_is_one_graph(name: str) -> None:
    network = small(name).train()
    twin = copy.deepcopy(network)
    x = smallest_images(network)
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="eager")
    (ours, gradients), (plain, expected) = passed(network, compiled, x), passed(twin, twin, x)
    assert isinstance(compiled(x), SegOutput)
    assert len(ours) == len(plain)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))
    assert eager_reason(network) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", INDUCTOR)
@pytest.mark.parametrize("training", [True, False])
def test_network_through_inductor_computes_the_same(name: str, training: bool) -> None:
    # In float64: in float32 rounding alone chooses other cells in SegNet's poolings.
    network = small(name).train(training).double()
    twin = copy.deepcopy(network)
    x = smallest_images(network).double()
    compiled = torch.compile(network, fullgraph=True, dynamic=False)
    if training:  # dropout draws from inductor's own generator
        for module in (*network.modules(), *twin.modules()):
            module.p = 0.0 if isinstance(module, torch.nn.modules.dropout._DropoutNd) else getattr(module, "p", None)
        (ours, gradients), (plain, expected) = passed(network, compiled, x), passed(twin, twin, x)
        torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-10)
    else:
        ours, plain = scores(compiled(x)), scores(twin(x))
    torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-10)


def test_eager_only_names_networks_of_the_table_and_says_why() -> None:
    classes = {entry.network.__name__ for entry in MODELS.values()}
    assert set(EAGER_ONLY) <= classes
    assert "lattice" in str(eager_reason(small("crf_rnn")))
    published = create_model("zoomout", {"width": 4, "fc_width": 8, "hidden": (8,)}, num_classes=2)
    assert "superpixels" in str(eager_reason(published))
    assert eager_reason(small("zoomout")) is None
    assert eager_reason(small("unet")) is None

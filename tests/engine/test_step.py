"""One update of the weights: that the host waits for nothing, and that a bad update is skipped."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from engine_fakes import TinyNetwork, criterion, make_batch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from perpixel.data.batches import Batch
from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.step import train_step
from perpixel.losses import LOSSES, SegmentationLoss
from perpixel.models import MODELS, Network, create_model, list_models
from perpixel.types import Preprocessing, SegOutput, Term

CLASSES = 3
LIGHTEST = {"deeplab_v2": "caffe_resnet50", "refinenet_lw": "resnet10t"}
WAITING = {
    "_local_scalar_dense": "reads a number back",
    "item": "reads a number back",
    "is_nonzero": "reads a truth value back",
    "equal": "reads a truth value back",
    "nonzero": "has a size that the values decide",
    "masked_select": "has a size that the values decide",
    "_unique2": "has a size that the values decide",
    "unique_dim": "has a size that the values decide",
    "unique_consecutive": "has a size that the values decide",
    "bincount": "has a size that the values decide",
    "lift_fresh": "copies Python's numbers to the device",
}
"""Operations for which the host waits on CUDA, and why; found on the CPU, where they are called alike."""
NEEDS_NUMBERS = {
    "crf_rnn": "the lattice of the image's colours has a size of its own",
    "unet_original": "its loss weighs pixels by distance transforms, which are SciPy's, on the host",
}
"""Networks whose published forward pass or loss has to wait."""


class Watch(TorchDispatchMode):
    """Collects the operations of a step for which a host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING and not _sent_without_waiting(name):
            self.found.append(f"{name}: {WAITING[name]}")
        if name in ("index", "index_put", "index_put_") and any(_is_mask(index) for index in args[1]):
            self.found.append(f"{name} by a mask: has a size that the values decide")
        return func(*args, **(kwargs or {}))


def _sent_without_waiting(name: str) -> bool:
    """Whether the numbers go by `ops.host_values`, through page-locked memory."""
    return name == "lift_fresh" and any(frame.function == "from_host" for frame in inspect.stack(context=0)[:8])


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def batch_of(size: tuple[int, int], channels: int = 3) -> Batch:
    torch.manual_seed(4)
    images = torch.randint(0, 256, (2, channels, *size), dtype=torch.uint8)
    target = torch.randint(0, CLASSES, (2, *size)).to(torch.uint8)
    target[:, :2] = 255
    return Batch(images, target, torch.full((2, 3), 0.9), ("one", "two"))


def stepper(network: nn.Module, terms: tuple[Term, ...], **settings: Any) -> Callable[[Batch], Any]:
    loss = SegmentationLoss(
        terms,
        num_classes=CLASSES,
        align_corners=getattr(network, "align_corners", False),
        margin=getattr(network, "margin", 0),
    )
    optimizer = create_optimizer("adamw", parameter_groups(network, base_lr=1e-3, weight_decay=1e-4), lr=1e-3)
    stated = getattr(network, "preprocessing", Preprocessing())
    return lambda batch: train_step(network, loss, [batch], optimizer, preprocessing=stated, **settings)


def waits_of_a_step(step: Callable[[Batch], Any], batch: Batch) -> list[str]:
    step(batch)  # the first one makes constants and the optimizer's state
    with Watch() as watch:
        stats = step(batch)
    assert not stats.skipped
    return sorted(set(watch.found))


@pytest.mark.parametrize("name", [name for name in list_models() if name not in NEEDS_NUMBERS])
def test_step_of_every_network_with_its_own_loss_waits_for_nothing(name: str) -> None:
    torch.manual_seed(0)
    backbone = "resnet10t" if MODELS[name].takes_any_backbone else LIGHTEST.get(name)
    network: Network = create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone=backbone).train()
    side = max(16, network.minimum_size)
    batch = batch_of(network.valid_size(side, side), network.preprocessing.num_channels)
    assert waits_of_a_step(stepper(network, network.default_terms(), clip_norm=1.0), batch) == []


OPTIONS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"class_weights": [1.0, 2.0, 3.0], "label_smoothing": 0.1},
    "ohem": {"class_weights": [1.0, 2.0, 3.0], "min_kept": 50},
    "distance_weighted": {"class_weights": [1.0, 2.0, 3.0]},
}
ON_PIXELS = [name for name, entry in LOSSES.items() if entry.target in ("labels", "distance_weights")]
HOST_MADE = {"distance_weighted": "distance transforms are SciPy's, on the host"}


@pytest.mark.parametrize("loss", [name for name in ON_PIXELS if name not in HOST_MADE])
def test_step_with_every_loss_on_pixels_waits_for_nothing(loss: str) -> None:
    terms = (Term(name="main", loss=loss, options=OPTIONS.get(loss, {})),)
    assert waits_of_a_step(stepper(TinyNetwork().train(), terms), batch_of((16, 16))) == []


class Reads(TinyNetwork):
    """A network that asks for a number."""

    def forward(self, images: Tensor) -> SegOutput:
        output = super().forward(images)
        return output._replace(logits=output.logits * float(images.mean() > -100))


class Masks(TinyNetwork):
    def forward(self, images: Tensor) -> SegOutput:
        output = super().forward(images)
        return output._replace(logits=output.logits + output.logits[images[:, :1].expand_as(output.logits) > 0].mean())


@pytest.mark.parametrize(("network", "found"), [(Reads, "reads a number"), (Masks, "index by a mask")])
def test_watch_finds_a_network_that_waits(network: type[nn.Module], found: str) -> None:
    waits = waits_of_a_step(stepper(network().train(), (Term(name="main"),)), batch_of((16, 16)))
    assert any(found in wait for wait in waits)


@contextmanager
def complaining_cuda() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name in list_models() if name not in NEEDS_NUMBERS])
def test_step_on_cuda_waits_for_nothing(name: str) -> None:
    torch.manual_seed(0)
    backbone = "resnet10t" if MODELS[name].takes_any_backbone else LIGHTEST.get(name)
    network = create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone=backbone).cuda().train()
    side = max(16, network.minimum_size)
    batch = batch_of(network.valid_size(side, side), network.preprocessing.num_channels).to("cuda")
    step = stepper(network, network.default_terms(), precision="bf16", channels_last=True, clip_norm=1.0)
    for _ in range(3):
        step(batch)
    with complaining_cuda():
        step(batch)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_step_that_is_not_finite_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = TinyNetwork(dropout=0.0).train()
    for module in network.modules():  # statistics are gathered in the forward pass, whatever comes of it
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = create_optimizer(name, parameter_groups(network, base_lr=0.1, weight_decay=1e-3), lr=0.1)

    def bad(output: SegOutput, target: Tensor) -> Any:
        value = criterion(output, target)
        return value._replace(total=value.total * torch.inf)

    good_step = lambda loss: train_step(network, loss, [make_batch(0)], optimizer, preprocessing=Preprocessing())  # noqa: E731
    for first_is_bad in (True, False):
        before = copy.deepcopy((network.state_dict(), optimizer.state_dict()["state"]))
        assert good_step(bad).skipped == 1
        after = (network.state_dict(), optimizer.state_dict()["state"])
        assert all(torch.equal(value, after[0][key]) for key, value in before[0].items())
        for key, state in before[1].items():
            for field, value in state.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[1][key][field])), (first_is_bad, field)
        assert good_step(criterion).skipped == 0
        assert not torch.equal(before[0]["head.weight"], network.head.weight)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_step_fused_equals_the_plain_one(name: str) -> None:
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        network = TinyNetwork(dropout=0.0).double().train()
        optimizer = create_optimizer(
            name, parameter_groups(network, base_lr=0.1, weight_decay=1e-3), lr=0.1, fused=fused
        )
        for index in range(4):
            batch = make_batch(index)

            def double_loss(output: SegOutput, target: Tensor) -> Any:
                return criterion(output, target)

            forward = lambda images, network=network: network(images.double())  # noqa: E731
            train_step(forward, double_loss, [batch], optimizer, preprocessing=Preprocessing())
        found.append(network.state_dict())
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-6, atol=1e-8)

"""Which layer's output goes to which layer alone: what may be merged with what, seen by running the network.

Shapes: B batch, C image channels, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["exclusive_pairs", "replace_layer", "small_images"]

_LEAST_SIDE = 64
_FURTHER = (33, 49)
"""Pixels by which a second image is larger: sizes that fit by chance on one do not on the other."""


def exclusive_pairs(
    network: nn.Module, is_first: Callable[[nn.Module], bool], is_second: Callable[[nn.Module], bool]
) -> dict[nn.Module, nn.Module]:
    """Returns second layers that can be merged into the first ones before them, each with that first one.

    Every call of the second takes the whole output of the first, and nothing else reads that, nor the parameters and
    buffers of either.

    The network runs on two small images where its parameters are, with and without what only losses need, and every
    operation that reads a tensor in question is noted. What a second layer has worked on in place is its own.

    Args:
        network: Keeps the contract of `perpixel.inference.SegmentationNetwork`, in evaluation mode.
        is_first: Tells the layers that may be followed; those with hooks of their own never are.
        is_second: Tells the layers that may follow.
    """
    seen = _Seen(
        firsts={layer for layer in network.modules() if is_first(layer) and not _hooked(layer)},
        seconds={layer for layer in network.modules() if is_second(layer) and not _hooked(layer)},
    )
    readers = _Readers()
    with torch.no_grad(), _watched(seen, readers), readers:
        small, larger = small_images(network)
        # With and without what only losses need: auxiliary heads may read what the scores do not.
        for images, supervise in ((small, False), (small, True), (larger, True)):
            with _supervised(network, supervise):
                readers.read(network(images))
    made = {id(use.tensor): first for first, uses in seen.outputs.items() for use in uses}
    pairs: dict[nn.Module, nn.Module] = {}
    for second, taken in seen.inputs.items():
        before = {made.get(id(tensor)) for tensor in taken}
        first = before.pop()
        if first is None or before or not (readers.leave_alone(first) and readers.leave_alone(second)):
            continue
        if all(use.readers == {second} for use in seen.outputs[first]):
            pairs[second] = first
    return pairs


def small_images(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Returns two normalised images (1, C, H, W) of different sizes that the network takes, the same every time."""
    contract = cast(Any, network)
    like = next(network.parameters())
    least = max(int(contract.minimum_size), _LEAST_SIDE) + 2 * int(contract.margin)
    channels = int(contract.preprocessing.num_channels)
    drawn = torch.Generator().manual_seed(0)  # the caller's generators stay where they are
    small, larger = (
        torch.randn((1, channels, *contract.valid_size(least + rows, least + columns)), generator=drawn).to(like)
        for rows, columns in ((0, 0), _FURTHER)
    )
    return small, larger


def replace_layer(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a layer in the place of another, under all the names that this has."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # all names; named_children gives one of each
            if child is old:
                setattr(parent, name, new)


@dataclass(frozen=True, eq=False)
class _Use:
    """A tensor, held so that its identity stays its own, and the layers that read it; None for what is no layer."""

    tensor: Tensor
    readers: set[nn.Module | None] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class _Seen:
    """The layers in question, and what went through them."""

    firsts: set[nn.Module]
    seconds: set[nn.Module]
    outputs: dict[nn.Module, list[_Use]] = field(default_factory=dict)
    inputs: dict[nn.Module, list[Tensor]] = field(default_factory=dict)


class _Readers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of the layers in question reads a watched tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: dict[int, _Use] = {}
        self.inside: list[nn.Module] = []

    def watch(self, tensor: Tensor) -> _Use:
        return self.uses.setdefault(id(tensor), _Use(tensor))

    def read(self, values: Any) -> None:
        """Notes tensors among ``values`` as read by the layer at work."""
        for tensor in tree_leaves(values):
            use = self.uses.get(id(tensor))
            if use is not None:
                use.readers.add(self.inside[-1] if self.inside else None)

    def leave_alone(self, layer: nn.Module) -> bool:
        """Whether nothing but the layer reads its parameters and buffers."""
        return all(self.uses[id(tensor)].readers <= {layer} for tensor in _own_tensors(layer))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read((args, kwargs))
        return func(*args, **(kwargs or {}))


@contextmanager
def _watched(seen: _Seen, readers: _Readers) -> Iterator[None]:
    """Hooks that fill ``seen`` while the network runs."""

    def entered(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if layer in seen.seconds:
            seen.inputs.setdefault(layer, []).append(args[0])
        readers.inside.append(layer)

    def left(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        readers.inside.pop()
        if layer in seen.seconds and output is args[0]:
            readers.uses.pop(id(output), None)  # what is read from here on is the second layer's
        if layer in seen.firsts:
            seen.outputs.setdefault(layer, []).append(readers.watch(output))

    layers = seen.firsts | seen.seconds
    for layer in layers:
        for tensor in _own_tensors(layer):
            readers.watch(tensor)
    handles = [layer.register_forward_pre_hook(entered) for layer in layers]
    handles += [layer.register_forward_hook(left) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _supervised(network: nn.Module, flag: bool) -> Iterator[None]:
    contract = cast(Any, network)
    before = getattr(contract, "supervise", None)
    if before is not None:
        contract.supervise = flag
    try:
        yield
    finally:
        if before is not None:
            contract.supervise = before


def _own_tensors(layer: nn.Module) -> list[Tensor]:
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


def _hooked(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)

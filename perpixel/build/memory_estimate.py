"""What a training step will take in memory, known before anything of that size is allocated.

One step of the configured batch and crop is run on fake tensors, which have shapes and storages but no content, while
every storage is counted from its birth to its release. The peak is therefore that of the real step, whichever of its
phases it falls in: the end of the forward pass, the loss's gradient, or the optimiser's work on all weights at once.

Shapes: B batch, C channels, H W crop, K classes.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode, UnsupportedFakeTensorException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perpixel.build.networks import build_criterion, build_network, build_optimizer
from perpixel.config import RunConfig
from perpixel.engine.recomputation import recompute_backbone
from perpixel.engine.step import forward_loss
from perpixel.inference.memory import bytes_text
from perpixel.models import Network

__all__ = ["LIBRARIES", "MemoryEstimate", "StepProbe", "estimate_training_memory"]

LIBRARIES = 35_000_000
"""Kernels, laid-out weights and scratch space of the CPU's libraries beside PyTorch's tensors: measured 28 to 49 MB."""
_SMALL_SIDE = 64  # where a loss needs real numbers, it is counted on small crops of one and two images


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one training step at its peak."""

    weights: int
    """Parameters, buffers and, where it is kept, their running mean."""
    gradients: int
    optimizer: int
    activations: int
    """The rest of the peak: what autograd keeps of the batch, and what the step computes with besides."""
    batch_size: int
    crop_size: tuple[int, int]
    counted_at: str
    """How it was found: ``"full size"``, or ``"small crops"`` extended linearly in pixels."""

    @property
    def total(self) -> int:
        """All of it together."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def text(self) -> str:
        """One line for people."""
        size = f"{self.batch_size} x {self.crop_size[0]} x {self.crop_size[1]}"
        rest = self.weights + self.gradients + self.optimizer
        return (
            f"about {bytes_text(self.total)} for batches of {size}: {bytes_text(self.activations)} activations and "
            f"{bytes_text(rest)} weights, gradients and optimiser"
        )


def estimate_training_memory(
    config: RunConfig,
    num_classes: int,
    *,
    stage: int = 0,
    precision: str = "fp32",
    probe: StepProbe | None = None,
) -> MemoryEstimate:
    """Counts the memory of a training step of the configured size, on tensors without content.

    It takes seconds and hardly any memory. Counted are the tensors of PyTorch, in the sizes that they have on
    any device, and a constant for the CPU's libraries; a heap that fragments, and a GPU's workspaces, come on top.

    Args:
        config: The run; its stage decides network, loss, optimiser, crop and batch.
        num_classes: K.
        stage: Which one.
        precision: Of the forward pass: a key of ``PRECISIONS``; fp16 takes as much as bf16.
        probe: Of that stage, where something was counted already.

    Raises:
        PerpixelError: the network or the loss cannot be built.
    """
    probe = probe or StepProbe(config, num_classes, stage, precision)
    choice = config.data_of(stage)
    batch, crop = choice.batch_size, choice.crop_size
    peaks, counted_at = probe.peaks(batch, crop)
    return MemoryEstimate(
        weights=probe.weights + probe.mean,
        gradients=probe.trained,
        optimizer=probe.states,
        activations=max(0, peaks.highest - probe.trained - probe.states) + LIBRARIES,
        batch_size=batch,
        crop_size=crop,
        counted_at=counted_at,
    )


class _Peaks(NamedTuple):
    """Bytes beyond the weights in the phases of a step that has one before it."""

    kept: int
    """Between the passes."""
    passes: int
    """The most during them."""
    update: int
    """The most during the optimiser's work."""

    @property
    def highest(self) -> int:
        return max(self)


NEEDS_NUMBERS = (UnsupportedFakeTensorException, RuntimeError, TypeError)
"""What fake tensors raise where a computation asks for values: `DataDependentOutputException` is a RuntimeError."""


class StepProbe:
    """A stage's network, loss and optimiser, and the peaks of its steps beyond its weights.

    Args:
        config: The run.
        num_classes: K.
        stage: Which one.
        precision: Of the forward pass: a key of ``PRECISIONS``; fp16 takes as much as bf16.
    """

    def __init__(self, config: RunConfig, num_classes: int, stage: int, precision: str) -> None:
        model = config.model_of(stage)
        if model.backbone is not None:  # values do not matter here
            model = model.model_copy(update={"backbone": model.backbone.model_copy(update={"weights": "none"})})
        self._settings, self._precision = config.stages[stage], "bf16" if precision == "fp16" else precision
        self._channels_last = config.channels_last
        self._network = build_network(model, num_classes).train()
        if config.recompute:
            recompute_backbone(self._network)
        if config.channels_last:
            self._network = self._network.to(memory_format=torch.channels_last)
        build_optimizer(self._settings, self._network)  # freezes what does not train
        parameters = list(self._network.parameters())
        self.weights = _bytes([*parameters, *self._network.buffers()])
        self.trained = _bytes([parameter for parameter in parameters if parameter.requires_grad])
        self._fake: tuple[FakeTensorMode, Network] | None = None
        self._counted: dict[tuple[int, tuple[int, int]], _Peaks] = {}
        self.states = 0
        """What the optimiser keeps; known after the first peak."""
        self.mean = 0 if self._settings.ema_decay is None else self.trained
        """The running mean of the weights."""

    @property
    def beside(self) -> int:
        """What is there whatever a step does: weights, their running mean, libraries."""
        return self.weights + self.mean + LIBRARIES

    def bytes_of(self, batch: int, crop: tuple[int, int]) -> int:
        """Returns the whole peak of a step of this batch and crop, weights and libraries among it."""
        return self.beside + self.peaks(batch, crop)[0].highest

    def peaks(self, batch: int, crop: tuple[int, int]) -> tuple[_Peaks, str]:
        """Returns the peaks of a step beyond the weights, and how they were found: `MemoryEstimate.counted_at`."""
        try:
            return self.fake_peaks(batch, crop), "full size"
        except NEEDS_NUMBERS:
            return self.extended_peaks(batch, crop), "small crops"

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the crop that the network takes nearest to this one, not below its least."""
        least = self._network.minimum_size
        return self._network.valid_size(max(height, least), max(width, least))

    def fake_peaks(self, batch: int, crop: tuple[int, int]) -> _Peaks:
        """Returns the peaks of a step on tensors without content; each size is counted once."""
        if self._fake is None:
            mode = FakeTensorMode()
            with FakeCopyMode(mode):
                self._fake = mode, copy.deepcopy(self._network)
        mode, network = self._fake
        if (batch, crop) not in self._counted:
            with mode:
                self._counted[batch, crop] = self._peaks(network, batch, crop)
                network.zero_grad(set_to_none=True)
        return self._counted[batch, crop]

    def extended_peaks(self, batch: int, crop: tuple[int, int]) -> _Peaks:
        """Returns peaks on lines in pixels through those of real small batches."""
        least = max(_SMALL_SIDE, self._network.minimum_size)
        sides = (min(crop[0], least), min(crop[1], least))
        one, two = (self._peaks(copy.deepcopy(self._network), size, sides) for size in (1, 2))
        images = batch * (crop[0] * crop[1]) / (sides[0] * sides[1])
        lines = zip(one, two, strict=True)
        return _Peaks(*(round(2 * first - second + images * (second - first)) for first, second in lines))

    def _peaks(self, network: Network, batch: int, crop: tuple[int, int]) -> _Peaks:
        criterion = build_criterion(self._settings, network, None)
        optimizer = build_optimizer(self._settings, network)
        raw = torch.zeros(batch, len(network.preprocessing.mean), *crop, dtype=torch.uint8)
        target = torch.zeros(batch, *crop, dtype=torch.uint8)
        with _LiveBytes([*network.parameters(), *network.buffers()]) as live:
            for _ in range(min(self._settings.accumulate, 2)):  # the second pass begins with the first one's gradients
                images = raw.float()
                if self._channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                loss = forward_loss(network, criterion, images, target, self._precision)
                kept = live.now
                torch.autograd.backward(loss.total)
                del loss, images
            passes, live.peak = live.peak, live.now
            optimizer.step()
            self.states = _bytes(_tensors(optimizer.state.values()))
        # From the second step on the optimiser's state is there during the passes too.
        given = _bytes([raw, target])
        return _Peaks(kept=kept + self.states + given, passes=passes + self.states + given, update=live.peak + given)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tensors(states: Iterable[Mapping[str, Any]]) -> list[Tensor]:
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, each from its birth to its release, and keeps the highest count."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.now = 0
        self._counted: dict[int, tuple[weakref.ref[Any], int]] = {}
        for tensor in known:
            self._count(tensor)
        self.now = 0  # those are counted elsewhere

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)  # PyTorch keeps one Python object per storage while it lives
        if key in self._counted:
            return
        size = storage.nbytes()

        def released(_: object) -> None:
            if self._counted.pop(key, None) is not None:
                self.now -= size

        self._counted[key] = (weakref.ref(storage, released), size)
        self.now += size

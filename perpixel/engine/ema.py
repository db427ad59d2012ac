"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from perpixel.engine.parallel import local
from perpixel.errors import CheckpointError, InvalidValue

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """Keeps ``average = d * average + (1 - d) * weight`` with ``d = min(decay, (1 + n) / (10 + n))`` at update n.

    The growing d lets the average leave the first weights quickly. Parameters that do not train, and buffers such as
    the running statistics of batch norm, are always the network's own. Source of the warm-up: TensorFlow's
    ExponentialMovingAverage with ``num_updates``.

    Raises:
        InvalidValue: ``decay`` is outside [0, 1).
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InvalidValue(f"the decay of the moving average must be in [0, 1), got {decay}")
        self.decay = decay
        self.num_updates = 0
        self._weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self.averages = {name: weight.detach().clone() for name, weight in self._weights.items()}
        """By name of the parameter, sliced over the processes as it is."""

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's weights of now into the average."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        averages, weights = ([local(value) for value in held.values()] for held in (self.averages, self._weights))
        average(averages, weights, 0)
        self.num_updates += 1

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Gives the network the averaged weights for the time of a ``with`` block, and its own back afterwards."""
        with torch.no_grad():
            own = {name: weight.detach().clone() for name, weight in self._weights.items()}
            try:
                self._write(self.averages)
                yield
            finally:
                self._write(own)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages and the number of updates."""
        return {"num_updates": self.num_updates, "averages": dict(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what ``state_dict`` returned.

        Raises:
            CheckpointError: the averages are of other parameters.
        """
        averages = state["averages"]
        if averages.keys() != self.averages.keys():
            odd = sorted(averages.keys() ^ self.averages.keys())
            raise CheckpointError(f"the saved moving average does not fit the network: {odd[0]!r} is only in one")
        for name, average in self.averages.items():
            local(average).copy_(local(averages[name]))
        self.num_updates = int(state["num_updates"])

    @torch.no_grad()
    def _write(self, weights: dict[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            local(weight).copy_(local(weights[name]))

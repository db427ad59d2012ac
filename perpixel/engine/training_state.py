"""Everything that a checkpoint holds, taken from the objects of a run and put back into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from perpixel.engine.distributed import World
from perpixel.engine.optimizers import lay_out_state
from perpixel.engine.parallel import like
from perpixel.engine.randomness import random_state, rank_seed, seed_all, set_random_state
from perpixel.engine.task import FitSettings
from perpixel.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

    from perpixel.engine.ema import ExponentialMovingAverage
    from perpixel.engine.schedules import Schedule

__all__ = ["Counters", "TrainingState"]

_SETTINGS_THAT_COUNT = ("steps", "accumulate", "precision", "clip_norm", "ema_decay", "freeze_batch_norm", "seed")
_KERNELS = ("foreach", "fused", "capturable", "differentiable")
"""Settings of an optimiser's groups that say how it computes, not what."""


@dataclass
class Counters:
    """The plain values that a checkpoint holds beside tensors."""

    step: int = 0
    evaluated_step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    stopped_early: bool = False
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The objects of a stage that change while it trains, in one process or many."""

    network: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    settings: FitSettings
    scaler: torch.amp.GradScaler | None = None
    ema: ExponentialMovingAverage | None = None
    world: World = field(default_factory=World)

    def take(self, counters: Counters) -> dict[str, Any]:
        """Returns the state as plain values and, under ``tensors``, tensors by name; all processes call it together.

        The tensors are those that train, not copies. Those of the optimizer go by the names of parameters, so that
        they fit whatever the order of the groups and the number of processes.
        """
        return {
            "step": counters.step,
            "state": asdict(counters),
            "tensors": self._tensors(),
            "optimizer": self._groups(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "ema": self.ema.num_updates if self.ema is not None else None,
            "random": self.world.gather(random_state()),
            "settings": asdict(self.settings),
        }

    def live(self, name: str) -> Tensor | None:
        """Returns the tensor that one of ``tensors`` is copied to or goes with; None where there is none."""
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            return self._parameters.get(rest.rpartition("/")[0])
        if kind == "ema":
            return None if self.ema is None else self.ema.averages.get(rest)
        return self._weights.get(rest)

    def put_back(self, saved: Mapping[str, Any], path: Path, *, warn: Callable[[str], None]) -> Counters:
        """Gives the objects what ``take`` returned, and the generators their state.

        Args:
            saved: What ``load_checkpoint`` read.
            path: Where it was read, for messages.
            warn: Called with a sentence for each setting that was another.

        Raises:
            CheckpointError: the state is of another run.
        """
        try:
            tensors = {name: self._placed(name, value) for name, value in saved["tensors"].items()}
            self.network.load_state_dict(_below("network/", tensors))
            self._load_optimizer(saved["optimizer"], _below("optimizer/", tensors))
            self.schedule.load_state_dict(saved["schedule"])
            if self.ema is not None:
                averages = _below("ema/", tensors)
                self.ema.load_state_dict({"num_updates": saved["ema"], "averages": averages})
            if self.scaler is not None:
                self.scaler.load_state_dict(saved["scaler"])
            counters = Counters(**saved["state"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())  # torch lists what does not fit on lines of their own
            raise CheckpointError(
                f"{path} does not fit this run: {reason}; resume with the configuration that wrote it"
            ) from error
        self._set_generators(saved["random"], counters.step)
        now = asdict(self.settings)
        for name in _SETTINGS_THAT_COUNT:
            if saved["settings"].get(name) != now[name]:
                warn(f"{name} was {saved['settings'].get(name)} before the resume and is {now[name]} now")
        return counters

    @cached_property
    def _parameters(self) -> dict[str, Tensor]:
        return dict(self.network.named_parameters())

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    @cached_property
    def _names(self) -> dict[int, str]:
        return {id(parameter): name for name, parameter in self._parameters.items()}

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"network/{name}": value for name, value in self._weights.items()}
        for parameter, values in self.optimizer.state.items():
            name = self._names[id(parameter)]
            found |= {f"optimizer/{name}/{key}": value for key, value in values.items() if value is not None}
        if self.ema is not None:
            found |= {f"ema/{name}": value for name, value in self.ema.averages.items()}
        return found

    def _groups(self) -> list[dict[str, Any]]:
        """Returns the optimizer's groups, parameters by name."""
        return [
            {**group, "params": [self._names[id(parameter)] for parameter in group["params"]]}
            for group in self.optimizer.param_groups
        ]

    def _load_optimizer(self, groups: list[dict[str, Any]], tensors: dict[str, Tensor]) -> None:
        own, stored = ([group["params"] for group in held] for held in (self._groups(), groups))
        if own != stored:
            odd = sorted({*chain(*own)} ^ {*chain(*stored)})
            raise ValueError(f"other parameters train ({', '.join(odd[:3]) or 'in other groups'})")
        numbers = {name: index for index, name in enumerate(chain(*own))}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, kind = key.rpartition("/")
            state.setdefault(numbers[name], {})[kind] = value
        kernels = [
            {key: group[key] for key in _KERNELS if key in group} for group in self.optimizer.param_groups
        ]  # another device or version may have others
        numbered = [
            {**group, **chosen, "params": [numbers[name] for name in names]}
            for group, chosen, names in zip(groups, kernels, own, strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": numbered})
        lay_out_state(self.optimizer)

    def _placed(self, name: str, value: Tensor) -> Tensor:
        """Returns a tensor that was read whole sliced like the one it goes to."""
        live = self.live(name)
        fits = live is not None and live.shape == value.shape and not hasattr(value, "device_mesh")
        return like(value, live) if live is not None and fits else value

    def _set_generators(self, states: list[dict[str, Any]], step: int) -> None:
        """A process that there was not takes seeds of its own: no two of them may draw the same."""
        if self.world.rank < len(states):
            set_random_state(states[self.world.rank])
        else:
            seed_all(rank_seed(self.settings.seed + step, self.world.rank))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

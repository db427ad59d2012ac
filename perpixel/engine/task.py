"""What a stage is trained with and what it reports: the objects, the numbers, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from perpixel.engine.parallel import Parallel
from perpixel.engine.precision import PRECISIONS
from perpixel.engine.schedules import Schedule
from perpixel.engine.step import Criterion, Forward
from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing

if TYPE_CHECKING:
    from perpixel.data.batches import Batch

__all__ = ["FitResult", "FitSettings", "FitTask", "Progress"]


@dataclass(frozen=True, kw_only=True)
class FitTask:
    """The objects that a stage trains with; all of them made elsewhere."""

    network: nn.Module
    criterion: Criterion
    make_batches: Callable[[int], Iterable[Batch]]
    """Takes the number of batches that are already done (steps × ``accumulate``) and yields those that follow."""
    optimizer: Optimizer
    schedule: Schedule
    preprocessing: Preprocessing
    save_artifact: Callable[[nn.Module, Path, dict[str, Any]], None]
    """Takes the network, an existing empty folder and ``{"stage", "steps", "scores"}``."""
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None
    """Takes the network in evaluation mode and returns scores; numbers are logged, the rest but ``per_class_iou``,
    ``per_class`` and ``split`` is left aside."""
    forward: Forward | None = None
    """What a step calls in place of the network: it, or ``parallel.forward``, compiled."""
    parallel: Parallel | None = None
    """How several processes train the network; None: this one alone."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The numbers that a stage trains with.

    Raises:
        InvalidValue: a value is out of its range.
    """

    steps: int
    """Updates in all."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates at the end only."""
    log_every: int = 10
    """Steps between train events; the device is waited for once in as many."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 writes one at the end only."""
    keep_checkpoints: int = 2
    precision: str = "fp32"
    device: str = "cpu"
    channels_last: bool = False
    accumulate: int = 1
    """Batches whose gradients make one step."""
    clip_norm: float | None = None
    ema_decay: float | None = None
    """Evaluates and delivers the moving average of the weights when given."""
    patience: int | None = None
    """Stops after this many evaluations in a row without a better score."""
    freeze_batch_norm: bool = False
    monitor: str = "mean_iou"
    """Score that decides which weights are best; higher is better."""
    seed: int = 0
    stage: str = "main"

    def __post_init__(self) -> None:
        least = {"steps": 1, "evaluate_every": 0, "log_every": 1, "checkpoint_every": 0, "keep_checkpoints": 1}
        for name, lowest in {**least, "accumulate": 1, "patience": 1}.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise InvalidValue(f"{name} must be at least {lowest}, got {value}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InvalidValue(f"clip_norm must be positive, got {self.clip_norm}; None does not clip")
        if self.precision not in PRECISIONS:
            raise InvalidValue(
                f"precision is one of {', '.join(PRECISIONS)}, got {self.precision!r}; choose_precision settles 'auto'"
            )


class Progress(NamedTuple):
    """What the ``progress`` callback of ``fit`` receives after every step."""

    step: int
    steps: int
    values: dict[str, float]
    """Losses as last read from the device; empty before the first reading."""
    steps_per_second: float
    """Between the last two readings, evaluations not counted."""


class FitResult(NamedTuple):
    """How a stage ended."""

    steps: int
    """Finished updates."""
    best_score: float | None
    best_step: int | None
    stopped_early: bool
    interrupted: str | None
    """Name of the signal that ended the stage, such as ``"SIGTERM"``; a checkpoint is written."""
    scores: dict[str, float]
    """Of the last evaluation."""

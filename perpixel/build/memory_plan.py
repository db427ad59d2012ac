"""How large batches and crops may be on this device, or in the memory of another one; what to do when it ran out.

A step is counted on tensors without content (`memory_estimate`), which on the CPU is within a few per cent of what a
real one takes when the heap is kept small (`engine.memory_probe`). On CUDA two small real steps are measured besides,
and what they take more than was counted is added: workspaces, and a share per image.
"""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perpixel.build.memory_estimate import StepProbe
from perpixel.build.networks import build_criterion, build_network, build_optimizer
from perpixel.config import RunConfig
from perpixel.engine import choose_precision
from perpixel.engine.memory_probe import HEAP_FACTOR, give_memory_back, step_bytes
from perpixel.errors import InvalidValue, PerpixelError, RunError
from perpixel.inference.memory import bytes_text, free_memory
from perpixel.inference.out_of_memory import is_out_of_memory, shortage_text

__all__ = ["MemoryPlan", "out_of_memory", "plan_memory", "planned_out_of_memory"]

_PROBES = (1, 2)
_MOST_TRIES = 4
_UNIT = 32  # sides of crops are multiples of it
_LONGEST_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What fits into some memory."""

    device: str
    memory: int
    """Bytes that are planned with, for each process."""
    batch_size: int
    """As configured."""
    crop_size: tuple[int, int]
    """As configured."""
    step_bytes: int
    """What a step of the configured size takes at its peak."""
    largest_batch: int
    """Of the configured crop; 0 when not even one image fits."""
    largest_crop: tuple[int, int] | None
    """(height, width) for the configured batch, in about the configured proportions; None when none fits."""
    easy_batch: int
    """The largest one that fits without a small heap, so at full speed; on a GPU the same."""
    measured: bool
    """Whether real steps on the device were looked at, beside the count."""

    @property
    def fits(self) -> bool:
        """Whether the configured step fits."""
        return self.step_bytes <= self.memory

    def text(self) -> str:
        """One line for people."""
        height, width = self.crop_size
        crop = "none" if self.largest_crop is None else f"{self.largest_crop[0]} x {self.largest_crop[1]}"
        easy = f" ({self.easy_batch} at full speed)" if self.easy_batch < self.largest_batch else ""
        return (
            f"largest batch for this crop ({height} x {width}): {self.largest_batch}{easy}; largest crop for this "
            f"batch ({self.batch_size}): {crop}, in {bytes_text(self.memory)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        crop = None if self.largest_crop is None else list(self.largest_crop)
        return {**vars(self), "crop_size": list(self.crop_size), "largest_crop": crop, "fits": self.fits}


def plan_memory(
    config: RunConfig,
    num_classes: int,
    *,
    memory: int | None = None,
    device: str | torch.device = "cpu",
    stage: int = 0,
    processes: int = 1,
    measure: bool | None = None,
    probe: StepProbe | None = None,
) -> MemoryPlan:
    """Finds the largest batch for a stage's crop and the largest crop for its batch.

    Args:
        config: The run.
        num_classes: K.
        memory: Bytes to plan with, for this machine or another; None is what is free on ``device``.
        device: ``cpu`` or ``cuda``.
        stage: Which one.
        processes: They share the batch and, on the CPU, the memory; ``largest_batch`` is of all of them together.
        measure: Looks at two small real steps on the device too; None does so on CUDA, where that device's memory is
            planned with.
        probe: Of that stage, where something was counted already.

    Raises:
        InvalidValue: ``memory`` is not positive.
        PerpixelError: the network or the loss cannot be built.
    """
    device = torch.device(device)
    if memory is not None and memory < 1:
        raise InvalidValue(f"memory to plan with must be positive, got {memory} bytes")
    room = free_memory(device) if memory is None else memory
    share = room if device.type == "cuda" else room // processes
    here = device.type != "cuda" or torch.cuda.is_available()
    precision = choose_precision(config.precision, device if here else "cpu").name
    probe = probe or StepProbe(config, num_classes, stage, precision)
    choice = config.data_of(stage)
    batch, crop = -(-choice.batch_size // processes), choice.crop_size
    measure = (memory is None and device.type == "cuda") if measure is None else measure
    beyond = _beyond(config, num_classes, stage, precision, device, probe) if measure else _nothing

    @functools.cache
    def needed(images: int, sides: tuple[int, int]) -> float:
        return probe.bytes_of(images, sides) + beyond(images * math.prod(sides) / math.prod(crop))

    largest, line = _largest_batch(lambda images: needed(images, crop), share, batch)
    easy = min(largest, line.at_most(share / HEAP_FACTOR)) if device.type == "cpu" else largest
    fitting = functools.partial(needed, batch)
    return MemoryPlan(
        device=str(device),
        memory=share,
        batch_size=choice.batch_size,
        crop_size=crop,
        step_bytes=round(needed(batch, crop)),
        largest_batch=largest * processes,
        largest_crop=_largest_crop(fitting, share, crop, line.by(batch), probe.valid_size),
        easy_batch=easy * processes,
        measured=measure,
    )


def out_of_memory(
    error: BaseException,
    config: RunConfig,
    num_classes: int,
    *,
    stage: int,
    device: torch.device | str,
    run: Path,
    processes: int = 1,
) -> RunError:
    """Returns what a run that was out of memory says: what was asked, what is free, what fits, and the ways out.

    Args:
        error: What the allocator said; its tensors must be gone, so clear its frames first.
        config: The run.
        num_classes: K.
        stage: Where it happened.
        device: Whose memory it was.
        run: The run folder.
        processes: That share the batch.
    """
    choice = config.data_of(stage)
    batch, (height, width) = choice.batch_size, choice.crop_size
    said = f"stage {config.stages[stage].name!r}: out of memory with batches of {batch} x {height} x {width}: "
    said += shortage_text(error, device)
    accumulate = config.stages[stage].accumulate
    try:
        plan = plan_memory(config, num_classes, device=device, stage=stage, processes=processes, measure=False)
    except (PerpixelError, MemoryError, RuntimeError, OSError):
        return RunError(f"{said}. Take a smaller data.batch_size or data.crop_size")
    fitting = min(plan.largest_batch, batch - 1)  # the one that failed does not fit, whatever was counted
    parts = [size for size in range(1, fitting + 1) if batch % size == 0 and size % processes == 0]
    ways = []
    if parts:
        part = parts[-1]
        own = len(config.stages) > 1 or "batch_size" in config.stages[stage].data
        key = f"stages.{stage}.data.batch_size" if own else "data.batch_size"
        same = f"{key}={part} stages.{stage}.accumulate={accumulate * batch // part}"
        ways.append(
            f"`perpixel train --resume {run} {same}` goes on from the newest checkpoint with the same "
            f"{batch * accumulate} images per update"
        )
    if not config.recompute:
        ways.append("recompute=true, which keeps less of the forward pass and computes it again")
    if processes > 1:
        ways.append("fewer processes")
    if plan.largest_crop is not None and math.prod(plan.largest_crop) < height * width:
        ways.append(f"a new run with data.crop_size=[{plan.largest_crop[0]},{plan.largest_crop[1]}]")
    ways.append("more memory, or a smaller network")
    fits = f"batches of {fitting} fit" if fitting >= 1 else "not even one image of this crop fits"
    return RunError(f"{said}. By the memory plan, {fits}. Ways out: {'; '.join(ways)}")


@contextmanager
def planned_out_of_memory(
    config: RunConfig, num_classes: int, *, stage: int, device: torch.device | str, run: Path, processes: int = 1
) -> Iterator[None]:
    """Turns the end of memory within into the error of `out_of_memory`, after what training held was let go.

    Raises:
        RunError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step
        give_memory_back(device)
        raise out_of_memory(
            error, config, num_classes, stage=stage, device=device, run=run, processes=processes
        ) from error


class _Line(NamedTuple):
    """Bytes by the size of a step."""

    fixed: float
    slope: float

    @classmethod
    def through(cls, points: Mapping[int, float]) -> _Line:
        """Returns the line through two points."""
        (low, at_low), (high, at_high) = sorted(points.items())
        slope = max(1.0, (at_high - at_low) / (high - low))
        return cls(at_low - slope * low, slope)

    def at_most(self, room: float) -> int:
        """Returns the largest whole size that takes ``room``; 0 when none does."""
        return max(0, math.floor((room - self.fixed) / self.slope))

    def by(self, factor: float) -> _Line:
        """Returns the line in a unit that is ``factor`` times as large."""
        return _Line(self.fixed, self.slope * factor)


def _nothing(_: float) -> float:
    return 0.0


def _beyond(
    config: RunConfig, num_classes: int, stage: int, precision: str, device: torch.device, probe: StepProbe
) -> Callable[[float], float]:
    """Returns what a step of so many images takes beyond its count, from two real ones."""
    settings, crop, model = config.stages[stage], config.data_of(stage).crop_size, config.model_of(stage)
    if model.backbone is not None:
        model = model.model_copy(update={"backbone": model.backbone.model_copy(update={"weights": "none"})})
    more = []
    for images in _PROBES:
        network = build_network(model, num_classes).train().to(device)
        before = probe.weights  # they are there before the steps begin
        if config.channels_last:
            network = network.to(memory_format=torch.channels_last)
        taken = before + step_bytes(
            network,
            build_criterion(settings, network, None),
            build_optimizer(settings, network),
            preprocessing=network.preprocessing,
            batch_size=images,
            crop_size=crop,
            precision=precision,
            channels_last=config.channels_last,
            accumulate=settings.accumulate,
            device=device,
        )
        more.append(taken - probe.bytes_of(images, crop))
        del network
    slope = max(0, more[1] - more[0]) / (_PROBES[1] - _PROBES[0])
    return lambda images: more[1] + slope * (images - _PROBES[1])


def _largest_batch(needed: Callable[[int], float], room: int, batch: int) -> tuple[int, _Line]:
    """Returns how many images fit, and the line by which that was found: through two counts, then to what it says."""
    points = {images: needed(images) for images in (batch, 2 * batch)}
    line = _Line.through(points)
    for _ in range(_MOST_TRIES):
        guess = max(1, line.at_most(room))
        if guess in points:
            break
        points[guess] = needed(guess)
        nearest = sorted(points, key=lambda images: abs(images - guess))[:2]
        line = _Line.through({images: points[images] for images in nearest})
    return max((images for images, taken in points.items() if taken <= room), default=0), line


def _largest_crop(
    needed: Callable[[tuple[int, int]], float],
    room: int,
    crop: tuple[int, int],
    line: _Line,
    valid_size: Callable[[int, int], tuple[int, int]],
) -> tuple[int, int] | None:
    """Returns the largest crop in the proportions of ``crop``; ``line`` counts in batches of it, so in pixels."""

    def scaled(scale: float) -> tuple[int, int]:
        height, width = (max(_UNIT, int(side * scale + 1e-6) // _UNIT * _UNIT) for side in crop)
        return valid_size(height, width)

    least, longest = scaled(0), _LONGEST_SIDE / max(crop)
    target = float(room)
    for _ in range(_MOST_TRIES):
        share = (target - line.fixed) / line.slope  # of the configured batch's pixels
        sides = scaled(min(longest, math.sqrt(share))) if share > 0 else least
        taken = needed(sides)
        if taken <= room:
            return sides
        if sides == least:
            return None
        target = min(target * room / taken, line.fixed + line.slope * (math.prod(sides) - 1) / math.prod(crop))
    return None

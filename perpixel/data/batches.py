"""Training batches that depend on their step alone.

The samples are one endless list of (epoch, index), drawn from (seed, epoch): for each epoch a permutation of the data
set, or an order in which samples with rare classes come more often (`samplers`). Step t takes positions
[t B R, (t + 1) B R), B the batch size of one of R processes, and process r the r-th B of them. Whoever asks for step t
gets the same bytes: any number of workers, after a restart, on any process; there is no short last batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from perpixel.data.augment.pipeline import SamplePipeline, SampleSource
from perpixel.data.samplers import Draw, SampleOrder, repeat_factors
from perpixel.data.transforms import Augmentation
from perpixel.errors import DataError, InvalidValue, PerpixelError

__all__ = ["Batch", "SampleSource", "TrainBatches"]

_EPOCH_BITS = 40
_PREFETCH = 4  # batches that each worker keeps ready


class Batch(NamedTuple):
    """One step's samples as integers; colours are jittered and normalised on the device by `ops.normalize`."""

    images: Tensor
    """(B, C, H, W) uint8, or int32 for 16-bit images; channels_last."""
    target: Tensor
    """(B, H, W) uint8 train ids, 255 where ignored or padded."""
    jitter: Tensor
    """(B, 3) float32 factors of brightness, contrast and saturation."""
    names: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """Returns the batch in page-locked memory, from which copies to the device do not wait."""
        return Batch(self.images.pin_memory(), self.target.pin_memory(), self.jitter.pin_memory(), self.names)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Returns the batch on ``device``; ``non_blocking`` helps only after `pin_memory`."""
        images, target, jitter = (t.to(device, non_blocking=non_blocking) for t in self[:3])
        return Batch(images, target, jitter, self.names)


class TrainBatches:
    """Iterates the batches of steps ``start_step`` to ``steps``; each iteration starts again at ``start_step``.

    Args:
        dataset: Samples without augmentation. With workers it must be picklable.
        augmentation: What happens to each sample.
        batch_size: Samples per step of this process.
        steps: Steps of the whole run: the first one that is not given.
        seed: Decides order, geometry and jitter, >= 0.
        start_step: First step that is given, > 0 after a restart.
        workers: Processes that build batches ahead; 0 builds them in this one.
        pad_value: Fill of padding per channel as a fraction of the full scale (`ops.normalize.padding_fractions`).
        rank: Number of this process.
        world_size: Number of processes.
        class_presence: (samples, K): which sample holds which class; copy-paste then takes samples that hold one of
            its classes, and any sample without it.
        rare_images: Samples come more often that hold a class which a smaller share of the samples holds, in [0, 1]
            (`samplers.repeat_factors`); 0: each once per epoch.

    Raises:
        InvalidValue: a number is out of range or the data set is empty.
        DataError: copy-paste is asked for, and no sample holds any of its classes.
    """

    def __init__(
        self,
        dataset: SampleSource,
        augmentation: Augmentation,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        start_step: int = 0,
        workers: int = 0,
        pad_value: tuple[float, ...],
        rank: int = 0,
        world_size: int = 1,
        class_presence: NDArray[np.bool_] | None = None,
        rare_images: float = 0.0,
    ) -> None:
        if len(dataset) < 1:
            raise InvalidValue("the data set holds no samples; training needs at least one")
        if batch_size < 1:
            raise InvalidValue(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= start_step <= steps:
            raise InvalidValue(f"start_step lies in [0, steps = {steps}], got {start_step}")
        if not 0 <= rank < world_size:
            raise InvalidValue(f"rank lies in [0, world_size = {world_size}), got {rank}")
        if workers < 0 or seed < 0:
            raise InvalidValue(f"workers and seed must not be negative, got workers {workers} and seed {seed}")
        self.steps = steps
        self.start_step = start_step
        self.workers = workers
        if rare_images and class_presence is None:
            raise InvalidValue("rare_images needs class_presence: which sample holds which class")
        factors = repeat_factors(class_presence, rare_images) if rare_images and class_presence is not None else None
        samples = SamplePipeline(dataset, augmentation, seed, tuple(pad_value), class_presence)
        order = SampleOrder(len(dataset), seed, factors)
        self._builder = _BatchBuilder(samples, order, batch_size, rank, world_size)

    def __len__(self) -> int:
        return self.steps - self.start_step

    def positions(self, step: int) -> list[tuple[int, int]]:
        """Returns the (epoch, index) of each sample of this process at ``step``."""
        return [(draw.epoch, draw.index) for draw in self._builder.draws(step)]

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches in order.

        Raises:
            PerpixelError: a sample cannot be read; the error of the worker as it was raised, naming the file.
        """
        loader: DataLoader[Batch | _Failure] = DataLoader(
            self._builder,
            batch_size=None,
            sampler=range(self.start_step, self.steps),
            num_workers=self.workers,
            collate_fn=_unchanged,
            worker_init_fn=_start_worker,
            prefetch_factor=_PREFETCH if self.workers else None,
        )
        for result in loader:
            if isinstance(result, _Failure):
                raise result.error
            yield result


class _Failure(NamedTuple):
    """Carries an error out of a worker; the loader would wrap it in the worker's traceback."""

    error: PerpixelError


@dataclass(frozen=True)
class _BatchBuilder(Dataset["Batch | _Failure"]):
    """Map from a step to its batch; what the workers hold."""

    samples: SamplePipeline
    order: SampleOrder
    batch_size: int
    rank: int
    world_size: int

    def draws(self, step: int) -> list[Draw]:
        start = (step * self.world_size + self.rank) * self.batch_size
        return [self.order[position] for position in range(start, start + self.batch_size)]

    def __getitem__(self, step: int) -> Batch | _Failure:
        try:
            return self._build(step)
        except PerpixelError as error:
            return _Failure(error)

    def _build(self, step: int) -> Batch:
        target = torch.empty((self.batch_size, *self.samples.augmentation.crop_size), dtype=torch.uint8)
        jitter = torch.empty((self.batch_size, 3))
        names: list[str] = []
        images: list[Tensor] = []
        for row, draw in enumerate(self.draws(step)):
            # What comes again within an epoch is augmented anew, as if in an epoch that no run reaches.
            sample = self.samples(draw.epoch + (draw.occurrence << _EPOCH_BITS), draw.index)
            target[row], jitter[row] = sample.target, torch.tensor(sample.jitter)
            if images and sample.image.dtype != images[0].dtype:
                raise DataError(
                    f"{sample.name} has {sample.image.dtype} pixels, {names[0]} in the same batch {images[0].dtype}; "
                    "convert the files: a data set is either all 8-bit or all 16-bit"
                )
            images.append(sample.image)
            names.append(sample.name)
        pixels = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
        return Batch(pixels, target, jitter, tuple(names))


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)


def _unchanged(batch: Any) -> Any:
    return batch

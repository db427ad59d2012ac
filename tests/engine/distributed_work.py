"""What the two processes of the tests do; imported by them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from engine_fakes import NUM_CLASSES, make_batch, make_task, save_artifact
from torch import Tensor, nn

from perpixel.data.batches import Batch
from perpixel.engine.distributed import World
from perpixel.engine.fit import FitSettings, FitTask, fit
from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.parallel import parallelise, probe
from perpixel.engine.run_folder import RunFolder
from perpixel.errors import DataError, RunError
from perpixel.losses import SegmentationLoss
from perpixel.types import SegOutput, Term

BATCH = 4


class GroupNormNetwork(nn.Module):
    """As small as can be, the same for one process and many; a head that the plain loss does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()),
        )
        self.head = nn.Conv2d(8, NUM_CLASSES, 1)
        self.extra = nn.Conv2d(8, NUM_CLASSES, 1)

    def forward(self, images: Tensor) -> SegOutput:
        features = self.backbone(images)
        return SegOutput(logits=self.head(features), deep=(self.extra(features),))


@dataclass(frozen=True)
class Job:
    """One run of the tests, in one process or two."""

    folder: Path
    kind: str = "ddp"
    resume: bool = False
    interrupt_at: int | None = None
    poison: tuple[int, int] | None = None
    """Rank and batch whose images lead to NaN."""
    missing: tuple[int, int] | None = None
    """Rank and batch that cannot be read."""
    optimizer: str = "adamw"
    accumulate: int = 1
    frozen_batch_norm: bool = False
    precision: str = "fp32"

    @property
    def settings(self) -> FitSettings:
        return FitSettings(
            steps=6,
            log_every=1,
            evaluate_every=3,
            checkpoint_every=2,
            ema_decay=0.9,
            clip_norm=1.0,
            accumulate=self.accumulate,
            freeze_batch_norm=self.frozen_batch_norm,
            precision=self.precision,
        )


def whole_batch(index: int) -> Batch:
    """A batch whose images hold unequally many valid pixels."""
    batch = make_batch(index, batch_size=BATCH)
    target = batch.target.clone()
    for row in range(BATCH):
        target[row, : 2 * row] = 255
    return batch._replace(target=target)


def parts(job: Job, world: World) -> Callable[[int], Iterator[Batch]]:
    size = world.share(BATCH)

    def make(start: int) -> Iterator[Batch]:
        for index in range(start, job.settings.steps * job.accumulate):
            if job.missing == (world.rank, index):
                raise DataError(f"image-{index} cannot be read")
            batch = whole_batch(index)
            rows = slice(world.rank * size, (world.rank + 1) * size)
            part = Batch(batch.images[rows], batch.target[rows], batch.jitter[rows], batch.names[rows])
            if job.poison == (world.rank, index):
                part = part._replace(jitter=torch.full_like(part.jitter, float("nan")))
            yield part

    return make


def build(job: Job, world: World) -> FitTask:
    settings = job.settings
    torch.manual_seed(5)
    network: nn.Module = GroupNormNetwork()
    if job.frozen_batch_norm:
        network.backbone[0][1] = nn.BatchNorm2d(8)  # type: ignore[index, operator]
    criterion = SegmentationLoss(
        [Term(name="main", output="logits", loss="cross_entropy")], num_classes=NUM_CLASSES, align_corners=False
    )
    network.train()
    groups = parameter_groups(network, base_lr=0.05, weight_decay=1e-3)
    probed = probe(network, criterion, channels=3, size=(8, 8))
    parallel = parallelise(network, world, kind=job.kind, precision=job.precision, probed=probed)
    if job.kind == "fsdp2":
        groups = parameter_groups(network, base_lr=0.05, weight_decay=1e-3)
    task = make_task(settings, network=network, make_batches=parts(job, world), save_artifact=save_artifact)
    return replace(
        task, criterion=criterion, optimizer=create_optimizer(job.optimizer, groups, lr=0.05), parallel=parallel
    )


def trained(world: World, job: Job) -> dict[str, Any]:
    """Trains and returns what can be compared: losses by step, scores, and the whole weights."""
    run = world.main_first(lambda: RunFolder(job.folder, resume=job.resume, writes=world.is_main))
    task = build(job, world)

    def stop(progress: Any) -> None:
        if progress.step == job.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)

    result = fit(task, job.settings, run, resume=job.resume, progress=stop if world.rank == 0 else None)
    assert task.parallel is not None
    weights = task.parallel.delivered().state_dict()
    return {
        "steps": result.steps,
        "interrupted": result.interrupted,
        "scores": result.scores,
        "weights": {name: value.numpy().copy() for name, value in weights.items()},
        "losses": losses(job.folder),
        "unused": task.parallel.forward is not task.network
        and getattr(task.parallel.forward, "find_unused_parameters", None),
    }


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["values"]["total"] for line in lines if line["event"] == "train"}


def alone(job: Job) -> dict[str, Any]:
    """The same in this process."""
    return trained(World(), job)


def fails_in_evaluation(world: World, folder: Path) -> None:
    """One rank meets a broken file in its part of the evaluation."""
    job = Job(folder)
    run = world.main_first(lambda: RunFolder(job.folder, writes=world.is_main))

    def evaluate(network: nn.Module) -> dict[str, Any]:
        world.checked(_broken if world.rank == 1 else dict)
        return {"mean_iou": 0.5}

    fit(replace(build(job, world), evaluate=evaluate), job.settings, run)


def _broken() -> None:
    raise DataError("image-7 is broken")


def fails_alone(world: World, folder: Path) -> None:
    """One rank fails where the others wait in a collective for it."""
    job = Job(folder)
    run = world.main_first(lambda: RunFolder(job.folder, writes=world.is_main))
    task = build(job, world)
    loss = task.criterion

    def criterion(output: SegOutput, target: Tensor) -> Any:
        if world.rank == 1:
            raise RunError("the loss of rank 1 fails")
        return loss(output, target)

    fit(replace(task, criterion=criterion), job.settings, run)


def meets(world: World) -> dict[str, Any]:
    """All the ways of speaking to each other."""
    world.barrier()
    return {
        "gather": world.gather(f"from {world.rank}"),
        "from_main": world.from_main(lambda: ["of", "main"]),
        "worst": world.worst(world.rank),
        "sum": world.sum(torch.tensor([1.0, 2.0]) * (world.rank + 1)).tolist(),
        "mean": float(world.mean(torch.tensor(float(world.rank)))),
        "largest": float(world.largest(torch.tensor(float(world.rank)))),
        "share": world.share(6),
        "speaks": world.speaks(),
        "many": [world.gather(turn)[1 - world.rank] for turn in range(5)],
    }


def one_errs(world: World, rank: int) -> None:
    world.checked(_broken if world.rank == rank else dict)


def all_err(world: World) -> None:
    world.checked(_broken)


def one_has_a_bug(world: World) -> None:
    world.checked(_bug if world.rank == 1 else dict)


def _bug() -> None:
    raise ZeroDivisionError("a bug")


def one_leaves(world: World) -> None:
    if world.rank == 1:
        _broken()
    world.barrier()


def shares_unevenly(world: World) -> int:
    return world.share(5)

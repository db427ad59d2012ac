"""How the processes of a run share a stage: its batch, its batch norm and its gradients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from perpixel.build.resume_check import stored_environment
from perpixel.config import DataChoice, RunConfig, Stage
from perpixel.engine import RunFolder
from perpixel.engine.distributed import World, is_restarted
from perpixel.engine.parallel import Parallel, parallelise, probe, synchronise_batch_norm
from perpixel.losses import SegmentationLoss
from perpixel.models import Network

if TYPE_CHECKING:
    from perpixel.build.run_job import RunJob

__all__ = ["begun_before", "check_batches", "launch", "shared_training"]

_PROBE_SIDE = 128


def launch() -> str | None:
    """Returns torchrun's name of this launch, the same after a restart; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def begun_before(folder: Path) -> bool:
    """Whether this launch made the run folder before torchrun started its processes again.

    A run that lay there before stays what it is: a launch that dies before it looks at the folder has not begun it.
    """
    stored = stored_environment(folder)
    return is_restarted() and (not stored or stored.get("launch") == launch())


def check_batches(config: RunConfig, world: World) -> None:
    """Makes sure that the processes can share the batch of every stage.

    Raises:
        ConfigError: they cannot; names the nearest sizes and numbers that work.
    """
    for index in range(len(config.stages)):
        world.share(config.data_of(index).batch_size)


def shared_training(
    job: RunJob, folder: RunFolder, stage: Stage, network: Network, criterion: SegmentationLoss, choice: DataChoice
) -> Parallel:
    """Makes a network one that all processes train, and says how.

    Args:
        job: Its processes, device and number format count.
        folder: Keeps the decisions.
        stage: Whether batch norm is frozen.
        network: On its device; its frozen parameters are known.
        criterion: Its loss.
        choice: Its batch and crop.
    """
    world, config = job.world, job.config
    if world.size == 1:
        return parallelise(network, world)
    size = world.share(choice.batch_size)
    folder.decision("processes", world.size, f"each takes {size} of the {choice.batch_size} images of a batch")
    trains = not stage.freeze_batch_norm
    sides = [min(side, _PROBE_SIDE) for side in choice.crop_size]
    probed = probe(
        network.train(),
        criterion,
        channels=network.preprocessing.num_channels,
        size=network.valid_size(*(max(side, network.minimum_size) for side in sides)),
    )
    said = synchronise_batch_norm(network, world, batch_size=size, trains=trains)
    if said is not None:
        folder.decision("batch norm", *said)
    if config.channels_last and config.parallel != "fsdp2":
        network.to(memory_format=torch.channels_last)
    parallel = parallelise(
        network, world, kind=config.parallel, precision=job.precision, probed=probed, batch_norm_trains=trains
    )
    reason = "asked for" if config.parallel != "auto" else "a copy of the network in each process"
    if probed.unused:
        reason += f"; no loss uses {len(probed.unused)} of the parameters, the first {probed.unused[0]}"
    folder.decision("parallel", parallel.kind, reason)
    return parallel

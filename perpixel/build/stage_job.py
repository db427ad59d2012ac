"""One stage of a run: its network, its start, its loss and its settings, handed to the engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from perpixel.build.datasets import stage_batches
from perpixel.build.memory_plan import planned_out_of_memory
from perpixel.build.networks import (
    build_criterion,
    build_network,
    build_optimizer,
    build_schedule,
    check_batch_norm,
)
from perpixel.build.progress import Reporter
from perpixel.build.several_processes import shared_training
from perpixel.build.starts import load_start, resume_start
from perpixel.data import TrainBatches, class_weights
from perpixel.engine import FitResult, FitSettings, FitTask, RunFolder, fit, seed_all
from perpixel.engine import Progress as FitProgress
from perpixel.engine.checkpoints import latest_checkpoint
from perpixel.engine.compilation import compiled
from perpixel.engine.determinism import check_deterministic, deterministic_errors
from perpixel.engine.memory_probe import MemoryWatch
from perpixel.engine.recomputation import recompute_backbone
from perpixel.engine.step import Forward
from perpixel.errors import ConfigError
from perpixel.models import Network
from perpixel.models.eager_only import eager_reason

if TYPE_CHECKING:
    from perpixel.build.run_job import RunJob

__all__ = ["StageJob"]


class StageJob:
    """Trains stage ``index`` of a run in ``folder``."""

    def __init__(self, job: RunJob, index: int, folder: RunFolder) -> None:
        self.job, self.folder, self.index = job, folder, index
        self.stage = job.config.stages[index]
        self.model = job.config.model_of(index)
        self.choice = job.config.data_of(index)
        self.several = len(job.config.stages) > 1

    def train(self, previous: Path | None) -> FitResult:
        """Builds everything and trains to the end or to an interruption.

        Args:
            previous: The artifact of the stage before.
        """
        job, stage, folder = self.job, self.stage, self.folder
        newest = job.world.from_main(
            lambda: latest_checkpoint(folder.checkpoints, warn=lambda _: None) if job.resume else None
        )
        network = job.world.main_first(lambda: self._started_network(newest is None, previous))
        if job.resume and self.several:  # the stage's folder rewinds itself, the run's copy of its events does not
            job.run.rewind(0 if newest is None else int(newest.name.removeprefix("step-")), stage.name)
        if job.config.deterministic:
            check_deterministic(network, job.device)
        network = network.to(job.device)
        task = job.world.checked(lambda: self._task(network))
        report = Reporter(f"train {stage.name}" if self.several else "train", job.on_progress)
        watch = MemoryWatch(job.device, folder.decision)

        def on_step(progress: FitProgress) -> None:
            watch.after_step()
            report(progress.step, progress.steps, progress.values)

        with self._planned_memory(), deterministic_errors():
            return fit(task, self._settings(), folder, resume=job.resume, progress=on_step)

    def _planned_memory(self) -> AbstractContextManager[None]:
        job = self.job
        return planned_out_of_memory(
            job.config,
            job.data.labels.num_classes,
            stage=self.index,
            device=job.device,
            run=job.run.path,
            processes=job.world.size,
        )

    def _started_network(self, fresh: bool, previous: Path | None) -> Network:
        """Builds the network with the weights that it starts from; a checkpoint holds those of a resumed run."""
        job, stage = self.job, self.stage
        seed_all(job.config.seed)
        network = build_network(self.model, job.data.labels.num_classes)
        size = job.world.share(self.choice.batch_size)
        check_batch_norm(network, self.choice.crop_size, size, frozen=stage.freeze_batch_norm)
        if fresh:
            for what, detail in load_start(stage.start, network, job.data.labels, previous):
                self.folder.decision("start", what, detail)
        else:
            resume_start(stage.start, network, previous)
        return network

    def _task(self, network: Network) -> FitTask:
        job, stage, choice = self.job, self.stage, self.choice
        if job.config.recompute:
            names = recompute_backbone(network)
            self.folder.decision("recompute", f"{len(names)} parts of the network", "asked for: memory against time")
        criterion = build_criterion(stage, network, self._class_weights())
        optimizer = build_optimizer(stage, network)
        parallel = shared_training(job, self.folder, stage, network, criterion, choice)
        if parallel.replica is not None:  # its parameters are slices now
            optimizer = build_optimizer(stage, parallel.network)

        def make_batches(start: int) -> TrainBatches:
            return stage_batches(
                job.config,
                job.data,
                self.index,
                preprocessing=network.preprocessing,
                start=start,
                workers=job.workers,
                world=job.world,
            )

        return FitTask(
            network=network,
            criterion=criterion,
            make_batches=make_batches,
            optimizer=optimizer,
            schedule=build_schedule(stage),
            preprocessing=network.preprocessing,
            save_artifact=job.save,
            evaluate=job.evaluate,
            parallel=parallel,
            forward=self._compiled(network),
        )

    def _compiled(self, network: Network) -> Forward | None:
        """What a step calls in place of the network; None is the network itself."""
        job = self.job
        reason = eager_reason(network)
        if job.config.recompute:
            reason = "its stages are recomputed"
        elif job.world.size > 1:
            reason = "several processes train it, which was not tried"

        def warn(message: str) -> None:
            self.folder.event("warning", stage=self.stage.name, message=message)

        forward, choice = compiled(
            network, job.config.compile, job.device, steps=self.stage.steps, warn=warn, eager_because=reason
        )
        self.folder.decision("compile", choice.name, choice.reason)
        return forward if choice.compiles else None

    def _settings(self) -> FitSettings:
        config, stage = self.job.config, self.stage
        every = config.evaluation.every or max(1, stage.steps // 10)
        images = len(self.job.data.train)
        epochs = stage.steps * stage.accumulate * self.choice.batch_size / images
        self.folder.decision("length", f"{stage.steps} steps", f"{epochs:.1f} epochs of {images} images")
        reason = "asked for" if config.evaluation.every else "a tenth of the steps"
        self.folder.decision("evaluation", f"every {every} steps", reason)
        return FitSettings(
            steps=stage.steps,
            evaluate_every=every,
            checkpoint_every=config.checkpoint_every or every,
            keep_checkpoints=config.keep_checkpoints,
            precision=self.job.precision,
            device=str(self.job.device),
            channels_last=config.channels_last,
            accumulate=stage.accumulate,
            clip_norm=stage.clip_norm,
            ema_decay=stage.ema_decay,
            patience=stage.patience,
            freeze_batch_norm=stage.freeze_batch_norm,
            monitor=stage.monitor,
            seed=config.seed,
            stage=stage.name,
        )

    def _class_weights(self) -> tuple[float, ...] | None:
        job, rule = self.job, self.stage.class_weights
        names = job.data.labels.names
        if not isinstance(rule, str):
            if len(rule) != len(names):
                raise ConfigError(
                    f"class_weights holds {len(rule)} numbers, the data has {len(names)} classes: {', '.join(names)}"
                )
            weights, reason = tuple(rule), "asked for"
        elif rule == "none":
            return None
        else:
            summary = job.data.summaries[job.config.data.train_split]
            weights = class_weights(summary, rule, max_weight=self.stage.max_class_weight)
            reason = f"{rule} over the pixels of the training split"
        job.run.write_json("data.json", {**job.data.description, "class_weights": weights})
        shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True))
        self.folder.decision("class weights", shown, reason)
        return weights

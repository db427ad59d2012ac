"""One stage of a run: its network, its start, its loss and its settings, handed to the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perpixel.build.datasets import augmentation
from perpixel.build.networks import (
    build_criterion,
    build_network,
    build_optimizer,
    build_schedule,
    check_batch_norm,
)
from perpixel.build.progress import Reporter
from perpixel.build.starts import load_start, resume_start
from perpixel.data import TrainBatches, class_weights
from perpixel.engine import FitResult, FitSettings, FitTask, RunFolder, fit, seed_all
from perpixel.engine import Progress as FitProgress
from perpixel.engine.checkpoints import latest_checkpoint
from perpixel.errors import ConfigError
from perpixel.models import Network
from perpixel.ops.normalize import padding_fractions

if TYPE_CHECKING:
    from perpixel.build.run_job import RunJob

__all__ = ["StageJob"]


class StageJob:
    """Trains stage ``index`` of a run in ``folder``."""

    def __init__(self, job: RunJob, index: int, folder: RunFolder) -> None:
        self.job, self.folder = job, folder
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
        newest = latest_checkpoint(folder.checkpoints, warn=lambda _: None) if job.resume else None
        seed_all(job.config.seed)
        network = build_network(self.model, job.data.labels.num_classes)
        check_batch_norm(network, self.choice.crop_size, self.choice.batch_size, frozen=stage.freeze_batch_norm)
        if newest is None:  # a checkpoint holds the weights already
            for what, detail in load_start(stage.start, network, job.data.labels, previous):
                folder.decision("start", what, detail)
        else:
            resume_start(stage.start, network, previous)
        if job.resume and self.several:  # the stage's folder rewinds itself, the run's copy of its events does not
            job.run.rewind(0 if newest is None else int(newest.name.removeprefix("step-")), stage.name)
        network = network.to(job.device)
        task = self._task(network)
        report = Reporter(f"train {stage.name}" if self.several else "train", job.on_progress)

        def on_step(progress: FitProgress) -> None:
            report(progress.step, progress.steps, progress.values)

        return fit(task, self._settings(), folder, resume=job.resume, progress=on_step)

    def _task(self, network: Network) -> FitTask:
        job, stage, choice = self.job, self.stage, self.choice

        def make_batches(start: int) -> TrainBatches:
            return TrainBatches(
                job.data.train,
                augmentation(choice),
                batch_size=choice.batch_size,
                steps=stage.steps * stage.accumulate,
                seed=job.config.seed,
                start_step=start,
                workers=job.workers,
                pad_value=padding_fractions(network.preprocessing),
                class_presence=job.data.summaries[job.config.data.train_split].class_presence,
                rare_images=choice.rare_images,
            )

        return FitTask(
            network=network,
            criterion=build_criterion(stage, network, self._class_weights()),
            make_batches=make_batches,
            optimizer=build_optimizer(stage, network),
            schedule=build_schedule(stage),
            preprocessing=network.preprocessing,
            save_artifact=job.save,
            evaluate=job.evaluate,
        )

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

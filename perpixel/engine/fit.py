"""The training loop of one stage: steps, evaluations, checkpoints, artifacts. It builds none of what it uses."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from perpixel.engine.checkpoints import latest_checkpoint, load_checkpoint, read_manifest, save_checkpoint
from perpixel.engine.distributed import World
from perpixel.engine.ema import ExponentialMovingAverage
from perpixel.engine.groups import freeze_batch_norm
from perpixel.engine.interrupts import Interrupted, StopSignals
from perpixel.engine.meter import Meter
from perpixel.engine.nonfinite_guard import NonFiniteGuard
from perpixel.engine.optimizers import lay_out_state
from perpixel.engine.parallel import Parallel
from perpixel.engine.prefetch import prefetched
from perpixel.engine.randomness import kept_random_state, rank_seed, seed_all
from perpixel.engine.run_folder import RunFolder
from perpixel.engine.step import train_step
from perpixel.engine.task import FitResult, FitSettings, FitTask, Progress
from perpixel.engine.training_state import Counters, TrainingState
from perpixel.errors import RunError, nearest

if TYPE_CHECKING:
    from perpixel.data.batches import Batch

__all__ = ["FitResult", "FitSettings", "FitTask", "Progress", "fit"]


def fit(
    task: FitTask,
    settings: FitSettings,
    run: RunFolder,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Trains a stage and leaves events, checkpoints and the artifacts ``best/`` and ``last/`` in the run folder.

    Weights after a resumed run equal those of an unbroken one bit for bit on the CPU. The first Ctrl-C or SIGTERM ends
    the current step, writes a checkpoint and returns; a second Ctrl-C raises KeyboardInterrupt.

    Args:
        task: The network is moved to ``settings.device``; its parameters must be there already when the optimizer is
            fused.
        settings: Steps and intervals.
        run: Where all of it is written.
        resume: Goes on from the newest good checkpoint, from step 0 when there is none.
        progress: Called after every step; must not wait for the device.

    Raises:
        RunError: loss or gradients are not finite, batches run out, the monitored score is missing, or the disk
            refuses.
        CheckpointError: no checkpoint can be read, or its state does not fit the task.
    """
    training = _Training(task, settings, run, progress)
    if resume:
        training.resume()
    else:
        training.seed()
    with StopSignals() as signals:
        return training.run_to_end(signals)


class _Training:
    """A stage between two steps: everything that ``fit`` keeps, saves and restores."""

    def __init__(
        self, task: FitTask, settings: FitSettings, run: RunFolder, progress: Callable[[Progress], None] | None
    ) -> None:
        self.task, self.settings, self.run, self.progress = task, settings, run, progress
        self.device = torch.device(settings.device)
        self.network = task.network.to(self.device)
        self.parallel = Parallel(self.network, self.network, World()) if task.parallel is None else task.parallel
        self.world = self.parallel.world
        if settings.channels_last and self.parallel.replica is None:
            self.network = self.network.to(memory_format=torch.channels_last)
            lay_out_state(task.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type) if settings.precision == "fp16" else None
        decay = settings.ema_decay
        self.ema = ExponentialMovingAverage(self.network, decay=decay) if decay is not None else None
        for group in task.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.state = Counters()
        self.meter = Meter()
        self.guard = NonFiniteGuard(task, settings, run, self.parallel)
        self.last_values: dict[str, float] = {}
        self.last_rate = 0.0
        self.saved_step: int | None = None

    def seed(self) -> None:
        """Seeds the generators of this process; no two processes draw the same."""
        seed_all(rank_seed(self.settings.seed, self.world.rank))

    def run_to_end(self, signals: StopSignals) -> FitResult:
        """Steps, evaluates and saves until the stage is over or a signal comes."""
        state, settings = self.state, self.settings
        self._evaluate_if_due(signals)
        batches = self._batches() if state.step < settings.steps and not state.stopped_early else iter(())
        self._training_mode()
        while state.step < settings.steps and not state.stopped_early and not self._is_stopped(signals):
            self._one_step(batches)
            if state.step % settings.log_every == 0 or state.step == settings.steps:
                self._log()
            self._evaluate_if_due(signals)
            if settings.checkpoint_every and state.step % settings.checkpoint_every == 0:
                self._checkpoint()
        self._finish(signals)
        return FitResult(
            steps=state.step,
            best_score=state.best_score,
            best_step=state.best_step,
            stopped_early=state.stopped_early,
            interrupted=signals.requested,
            scores=dict(state.scores),
        )

    def resume(self) -> None:
        """Takes up the newest good checkpoint, or starts at step 0 when there is none."""
        stage = self.settings.stage
        path = self.world.from_main(lambda: latest_checkpoint(self.run.checkpoints, warn=self._warn))
        if path is None:
            self.seed()
            self.run.rewind(0, stage)
            self.run.decision("resume", "step 0", f"there is no checkpoint of stage {stage!r} yet")
            return
        self.state = self.world.checked(lambda: self._taken_up(path))
        self.saved_step = self.state.step
        self.run.rewind(self.state.step, stage)
        self.run.decision("resume", f"step {self.state.step}", f"newest checkpoint that is whole: {path.name}")

    def _taken_up(self, path: Path) -> Counters:
        """Reads a checkpoint of this format, of any number of processes."""
        read_manifest(path)
        kept = self._kept()
        saved = load_checkpoint(path, kept.live)
        counters = kept.put_back(saved, path, warn=self._warn)
        self.meter = Meter.of(saved["meter"], self.device)
        return counters

    def _is_stopped(self, signals: StopSignals) -> bool:
        """Whether a stop signal came, here or to another process."""
        if self.world.worst(int(signals.requested is not None)) and signals.requested is None:
            signals.requested = "SIGTERM"
        return signals.requested is not None

    def _batches(self) -> Iterator[Batch]:
        """Yields batches; what a loader draws when it starts is hidden from the training's generators."""
        with kept_random_state():
            batches = iter(self.task.make_batches(self.state.step * self.settings.accumulate))
            first = next(batches, None)
        if first is not None:
            yield from prefetched(itertools.chain((first,), batches), self.device)

    def _one_step(self, batches: Iterator[Batch]) -> None:
        """Fetches the batches of one step and updates the weights."""
        settings, state, task = self.settings, self.state, self.task
        start = time.perf_counter()
        fetched = self._fetched(batches)
        ready = time.perf_counter()
        factor = task.schedule.factor(state.step)
        for group in task.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        stats = train_step(
            self.parallel.forward if task.forward is None else task.forward,
            task.criterion,
            fetched,
            task.optimizer,
            preprocessing=task.preprocessing,
            precision=settings.precision,
            channels_last=settings.channels_last,
            clip_norm=settings.clip_norm,
            scaler=self.scaler,
            parallel=self.parallel,
        )
        if self.ema is not None:
            self.ema.update()
        state.step += 1
        self.guard.add(state.step, tuple(name for batch in fetched for name in batch.names), stats.skipped)
        self.meter.add(stats.values)
        seconds = self.meter.seconds
        seconds["data"] += ready - start
        seconds["step"] += time.perf_counter() - ready
        if self.progress is not None:
            rate = self.last_rate or self.meter.steps_per_second
            self.progress(Progress(state.step, settings.steps, self.last_values, rate))

    def _fetched(self, batches: Iterator[Batch]) -> list[Batch]:
        """Returns the batches of one step; what keeps one process from getting them ends all."""
        settings, fetched = self.settings, []
        error: Exception | None = None
        try:
            for _ in range(settings.accumulate):
                batch = next(batches, None)
                if batch is None:
                    raise RunError(
                        f"stage {settings.stage!r}: the batches ended in step {self.state.step + 1} of "
                        f"{settings.steps}; {settings.steps * settings.accumulate} are needed in all"
                    )
                fetched.append(batch.to(self.device, non_blocking=True))
        except Exception as failure:
            error = failure
        if self.world.worst(int(error is not None)):
            self.world.agree(error)
        return fetched

    def _log(self) -> None:
        """Reads the losses since the last reading and writes them; stops the run when a step was skipped."""
        start = time.perf_counter()
        self.guard.stop_if_skipped(self.state.step, self.scaler)
        if not self.meter.steps:
            return
        self.last_values = self.meter.read(self.world.mean)
        self.meter.seconds["step"] += time.perf_counter() - start
        self.last_rate = self.meter.steps_per_second
        group = self.task.optimizer.param_groups[0]
        self.run.event(
            "train",
            stage=self.settings.stage,
            step=self.state.step,
            lr=group["lr"] / (group.get("lr_factor") or 1.0),
            values=self.last_values,
            seconds={name: round(value, 4) for name, value in self.meter.seconds.items()},
        )
        self.meter = Meter()

    def _evaluate_if_due(self, signals: StopSignals) -> None:
        """Evaluates at its steps, once; a signal in between leaves it for the resumed run."""
        every, step = self.settings.evaluate_every, self.state.step
        due = step == self.settings.steps or (every > 0 and step > 0 and step % every == 0)
        if self.task.evaluate is None or not due or self.state.evaluated_step == step:
            return
        self._log()
        start = time.perf_counter()
        try:
            # Of several processes none may leave an evaluation that the others wait in.
            droppable = signals.droppable() if self.world.size == 1 else nullcontext()
            with kept_random_state(), self._delivered() as network, droppable:
                found = self.task.evaluate(network)
        except Interrupted:
            return
        seconds = time.perf_counter() - start
        self.meter.seconds["evaluation"] += seconds
        self._judge(found, seconds)

    def _judge(self, found: Mapping[str, Any], seconds: float) -> None:
        """Writes an evaluation's event, keeps the weights when they are the best, and counts towards an early stop."""
        state, settings = self.state, self.settings
        scores = {name: float(value) for name, value in found.items() if isinstance(value, Real)}
        if settings.monitor not in scores:
            raise RunError(
                f"stage {settings.stage!r}: the evaluation gave no score {settings.monitor!r}, which decides on the "
                f"best weights; it gave {', '.join(scores) or 'none'}{nearest(settings.monitor, scores)}"
            )
        per_class = found.get("per_class_iou", [entry.get("iou") for entry in found.get("per_class", ())])
        self.run.event(
            "evaluation",
            stage=settings.stage,
            step=state.step,
            split=found.get("split", "val"),
            values=scores,
            per_class_iou=per_class,
            seconds=round(seconds, 4),
        )
        state.scores, state.evaluated_step = scores, state.step
        score = scores[settings.monitor]
        self.task.schedule.observe(score)
        if not math.isnan(score) and (state.best_score is None or score > state.best_score):
            state.best_score, state.best_step, state.without_gain = score, state.step, 0
            self._save_artifact("best")
            self.run.event("best", stage=settings.stage, step=state.step, score=score, monitor=settings.monitor)
            return
        state.without_gain += 1
        if settings.patience is not None and state.without_gain >= settings.patience:
            state.stopped_early = True
            self.run.decision(
                "early stop",
                f"step {state.step}",
                f"{state.without_gain} evaluations without a better {settings.monitor} than at step {state.best_step}",
            )

    def _finish(self, signals: StopSignals) -> None:
        """Saves the state, and at a regular end logs the rest and writes the artifacts."""
        if signals.requested is None:
            self._log()
        if self.saved_step != self.state.step:
            self._checkpoint()
        stage, step = self.settings.stage, self.state.step
        if signals.requested is not None:
            self.run.event("interrupted", stage=stage, step=step, signal=signals.requested)
            return
        self._save_artifact("last")
        if self.state.best_step is None:
            self.state.best_step = step
            self._save_artifact("best")
            self.run.decision("best weights", f"step {step}", "no evaluation gave a score, so the last weights stand")
        self.run.event("end", stage=stage, step=step, best_step=self.state.best_step, best_score=self.state.best_score)

    def _checkpoint(self) -> None:
        """Saves the full state, unless the steps since the last reading were bad."""
        self.guard.stop_if_skipped(self.state.step, self.scaler)
        self.parallel.share_buffers()
        state, keep = self._kept().take(self.state), self.settings.keep_checkpoints
        state["meter"] = self.meter.held(self.world.mean)  # the next train event is that of an unbroken run
        path = save_checkpoint(self.run.checkpoints, state, step=self.state.step, keep=keep, world=self.world)
        self.saved_step = self.state.step
        self.run.event("checkpoint", stage=self.settings.stage, step=self.state.step, path=f"checkpoints/{path.name}")

    def _kept(self) -> TrainingState:
        """What changes while the stage trains."""
        task = self.task
        return TrainingState(
            network=self.network,
            optimizer=task.optimizer,
            schedule=task.schedule,
            settings=self.settings,
            scaler=self.scaler,
            ema=self.ema,
            world=self.world,
        )

    def _save_artifact(self, name: str) -> None:
        """Hands the weights that count, averaged ones if there are, to ``save_artifact``."""
        facts = {"stage": self.settings.stage, "steps": self.state.step, "scores": dict(self.state.scores)}
        with self._delivered() as network:

            def write() -> None:
                with self.run.replace(name) as folder:
                    self.task.save_artifact(network, folder, facts)

            self.world.main_only(write)

    @contextmanager
    def _delivered(self) -> Iterator[nn.Module]:
        """Yields the network as it would be delivered: in evaluation mode, with averaged weights if there are any."""
        self.network.eval()
        try:
            with self.ema.swap() if self.ema is not None else nullcontext():
                yield self.parallel.delivered()
        finally:
            self._training_mode()

    def _training_mode(self) -> None:
        self.network.train()
        if self.settings.freeze_batch_norm:
            freeze_batch_norm(self.network)

    def _warn(self, message: str) -> None:
        self.run.event("warning", stage=self.settings.stage, message=message)

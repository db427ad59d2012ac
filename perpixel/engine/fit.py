"""The training loop of one stage: steps, evaluations, checkpoints, artifacts. It builds none of what it uses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from perpixel.engine.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from perpixel.engine.ema import ExponentialMovingAverage
from perpixel.engine.groups import freeze_batch_norm
from perpixel.engine.interrupts import Interrupted, StopSignals
from perpixel.engine.meter import Meter
from perpixel.engine.nonfinite import SkipRecord, explain_nonfinite
from perpixel.engine.randomness import kept_random_state, random_state, seed_all, set_random_state
from perpixel.engine.run_folder import RunFolder
from perpixel.engine.step import train_step
from perpixel.engine.task import FitResult, FitSettings, FitTask, Progress
from perpixel.errors import CheckpointError, RunError, nearest

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
        seed_all(settings.seed)
    with StopSignals() as signals:
        return training.run_to_end(signals)


@dataclass
class _State:
    """The plain values that a checkpoint holds beside tensors."""

    step: int = 0
    evaluated_step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    stopped_early: bool = False
    scores: dict[str, float] = field(default_factory=dict)


class _Training:
    """A stage between two steps: everything that ``fit`` keeps, saves and restores."""

    def __init__(
        self, task: FitTask, settings: FitSettings, run: RunFolder, progress: Callable[[Progress], None] | None
    ) -> None:
        self.task, self.settings, self.run, self.progress = task, settings, run, progress
        self.device = torch.device(settings.device)
        self.network = task.network.to(self.device)
        if settings.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.scaler = torch.amp.GradScaler(self.device.type) if settings.precision == "fp16" else None
        decay = settings.ema_decay
        self.ema = ExponentialMovingAverage(self.network, decay=decay) if decay is not None else None
        for group in task.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.state = _State()
        self.meter = Meter()
        self.skips = SkipRecord(settings.log_every)
        self.last_values: dict[str, float] = {}
        self.last_rate = 0.0
        self.saved_step: int | None = None

    def run_to_end(self, signals: StopSignals) -> FitResult:
        """Steps, evaluates and saves until the stage is over or a signal comes."""
        state, settings = self.state, self.settings
        self._evaluate_if_due(signals)
        batches = self._batches() if state.step < settings.steps and not state.stopped_early else iter(())
        self._training_mode()
        while state.step < settings.steps and not state.stopped_early and signals.requested is None:
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
        path = latest_checkpoint(self.run.checkpoints, warn=self._warn)
        if path is None:
            seed_all(self.settings.seed)
            self.run.rewind(0, stage)
            self.run.decision("resume", "step 0", f"there is no checkpoint of stage {stage!r} yet")
            return
        saved = load_checkpoint(path)
        try:
            self.network.load_state_dict(saved["network"])
            self.task.optimizer.load_state_dict(saved["optimizer"])
            self.task.schedule.load_state_dict(saved["schedule"])
            if self.ema is not None:
                self.ema.load_state_dict(saved["ema"])
            if self.scaler is not None:
                self.scaler.load_state_dict(saved["scaler"])
            self.state = _State(**saved["state"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())  # torch lists what does not fit on lines of their own
            raise CheckpointError(
                f"{path} does not fit this run: {reason}; resume with the configuration that wrote it"
            ) from error
        set_random_state(saved["random"])
        self.saved_step = self.state.step
        self.run.rewind(self.state.step, stage)
        now = asdict(self.settings)
        for name in ("steps", "accumulate", "precision", "clip_norm", "ema_decay", "freeze_batch_norm", "seed"):
            if saved["settings"].get(name) != now[name]:
                self._warn(f"{name} was {saved['settings'].get(name)} before the resume and is {now[name]} now")
        self.run.decision("resume", f"step {self.state.step}", f"newest checkpoint that is whole: {path.name}")

    def _batches(self) -> Iterator[Batch]:
        """Yields batches; what a loader draws when it starts is hidden from the training's generators."""
        with kept_random_state():
            batches = iter(self.task.make_batches(self.state.step * self.settings.accumulate))
            first = next(batches, None)
        if first is not None:
            yield first
            yield from batches

    def _one_step(self, batches: Iterator[Batch]) -> None:
        """Fetches the batches of one step and updates the weights."""
        settings, state, task = self.settings, self.state, self.task
        start = time.perf_counter()
        fetched = []
        for _ in range(settings.accumulate):
            batch = next(batches, None)
            if batch is None:
                raise RunError(
                    f"stage {settings.stage!r}: the batches ended in step {state.step + 1} of {settings.steps}; "
                    f"{settings.steps * settings.accumulate} are needed in all"
                )
            fetched.append(batch.to(self.device, non_blocking=True))
        ready = time.perf_counter()
        factor = task.schedule.factor(state.step)
        for group in task.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        stats = train_step(
            self.network,
            task.criterion,
            fetched,
            task.optimizer,
            preprocessing=task.preprocessing,
            precision=settings.precision,
            channels_last=settings.channels_last,
            clip_norm=settings.clip_norm,
            scaler=self.scaler,
        )
        if self.ema is not None:
            self.ema.update()
        state.step += 1
        self.skips.add(state.step, tuple(name for batch in fetched for name in batch.names), stats.skipped)
        self.meter.add(stats.values)
        seconds = self.meter.seconds
        seconds["data"] += ready - start
        seconds["step"] += time.perf_counter() - ready
        if self.progress is not None:
            rate = self.last_rate or self.meter.steps_per_second
            self.progress(Progress(state.step, settings.steps, self.last_values, rate))

    def _log(self) -> None:
        """Reads the losses since the last reading and writes them; stops the run when a step was skipped."""
        start = time.perf_counter()
        self._stop_if_skipped()
        if not self.meter.steps:
            return
        self.last_values = self.meter.read()
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

    def _stop_if_skipped(self) -> None:
        """Raises RunError when one of the remembered steps was skipped, after finding out why."""
        bad = self.skips.read()
        if self.scaler is not None and not bad and self.scaler.get_scale() < 1:
            raise RunError(
                f"stage {self.settings.stage!r}, step {self.state.step}: fp16 gradients overflow at any scale; use "
                "precision bf16 or fp32"
            )
        if not bad:
            return
        names = self.skips.names()
        reason = self._explain(bad[-1])
        self.run.event(
            "non_finite",
            stage=self.settings.stage,
            steps=bad,
            reason=reason,
            batches={str(k): v for k, v in names.items()},
        )
        shown = "; ".join(f"step {step}: {', '.join(batch)}" for step, batch in names.items())
        raise RunError(
            f"stage {self.settings.stage!r}: loss or gradient was not finite in {len(bad)} of the last {len(names)} "
            f"steps ({', '.join(map(str, bad))}), and they were skipped. In the batch of step {bad[-1]}, {reason}. "
            f"Batches of these steps: {shown}. Look at those images and masks, lower the learning rate, set clip_norm "
            "or use precision fp32, then resume from the last checkpoint"
        )

    def _explain(self, step: int) -> str:
        """Fetches the batches of a step again and returns where the first of them goes bad."""
        reason = "the batch could not be fetched again"
        source = iter(self.task.make_batches((step - 1) * self.settings.accumulate))
        self._training_mode()
        for _, batch in zip(range(self.settings.accumulate), source, strict=False):
            reason = explain_nonfinite(
                self.network,
                self.task.criterion,
                batch.to(self.device, non_blocking=True),
                preprocessing=self.task.preprocessing,
                precision=self.settings.precision,
                channels_last=self.settings.channels_last,
            )
            if not reason.startswith("run again"):
                break
        return reason

    def _evaluate_if_due(self, signals: StopSignals) -> None:
        """Evaluates at its steps, once; a signal in between leaves it for the resumed run."""
        every, step = self.settings.evaluate_every, self.state.step
        due = step == self.settings.steps or (every > 0 and step > 0 and step % every == 0)
        if self.task.evaluate is None or not due or self.state.evaluated_step == step:
            return
        self._log()
        start = time.perf_counter()
        try:
            with kept_random_state(), self._delivered() as network, signals.droppable():
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
        """Logs the rest, saves the state, and at a regular end the artifacts."""
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
        self._stop_if_skipped()
        state = {
            "step": self.state.step,
            "state": asdict(self.state),
            "network": self.network.state_dict(),
            "optimizer": self.task.optimizer.state_dict(),
            "schedule": self.task.schedule.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "random": random_state(),
            "settings": asdict(self.settings),
        }
        keep = self.settings.keep_checkpoints
        path = save_checkpoint(self.run.checkpoints, state, step=self.state.step, keep=keep)
        self.saved_step = self.state.step
        self.run.event("checkpoint", stage=self.settings.stage, step=self.state.step, path=f"checkpoints/{path.name}")

    def _save_artifact(self, name: str) -> None:
        """Hands the weights that count, averaged ones if there are, to ``save_artifact``."""
        facts = {"stage": self.settings.stage, "steps": self.state.step, "scores": dict(self.state.scores)}
        with self._delivered() as network, self.run.replace(name) as folder:
            self.task.save_artifact(network, folder, facts)

    @contextmanager
    def _delivered(self) -> Iterator[nn.Module]:
        """Yields the network as it would be delivered: in evaluation mode, with averaged weights if there are any."""
        self.network.eval()
        try:
            with self.ema.swap() if self.ema is not None else nullcontext():
                yield self.network
        finally:
            self._training_mode()

    def _training_mode(self) -> None:
        self.network.train()
        if self.settings.freeze_batch_norm:
            freeze_batch_norm(self.network)

    def _warn(self, message: str) -> None:
        self.run.event("warning", stage=self.settings.stage, message=message)

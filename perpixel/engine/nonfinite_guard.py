"""Ends a stage whose loss or gradient is not finite, with the images that it came from."""

from __future__ import annotations

import torch

from perpixel.engine.groups import freeze_batch_norm
from perpixel.engine.nonfinite import SkipRecord, blamed, explain_nonfinite
from perpixel.engine.parallel import Parallel
from perpixel.engine.run_folder import RunFolder
from perpixel.engine.task import FitSettings, FitTask
from perpixel.errors import RunError

__all__ = ["NonFiniteGuard"]


class NonFiniteGuard:
    """Remembers the last steps of a stage and looks, whenever the device is read anyway, whether one was skipped."""

    def __init__(self, task: FitTask, settings: FitSettings, run: RunFolder, parallel: Parallel) -> None:
        self.task, self.settings, self.run, self.parallel = task, settings, run, parallel
        self.skips = SkipRecord(settings.log_every)

    def add(self, step: int, names: tuple[str, ...], skipped: torch.Tensor) -> None:
        """Takes one step in; does not wait for the device."""
        self.skips.add(step, names, skipped)

    def stop_if_skipped(self, now: int, scaler: torch.amp.GradScaler | None) -> None:
        """Waits for the device; all processes call it together.

        Raises:
            RunError: one of the remembered steps was skipped; says why and in which images, of whichever process.
        """
        bad = self.skips.read()
        if scaler is not None and not bad and scaler.get_scale() < 1:
            raise RunError(
                f"stage {self.settings.stage!r}, step {now}: fp16 gradients overflow at any scale; use "
                "precision bf16 or fp32"
            )
        if not bad:
            return
        reason = self.parallel.world.checked(lambda: self._explain(bad[-1]))
        names, reason = blamed(self.parallel.world.gather((self.skips.names(), reason)))
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
        if self.parallel.replica is not None:
            return "the place is not looked for, as the weights are spread over the processes (parallel = fsdp2)"
        reason = "the batch could not be fetched again"
        source = iter(self.task.make_batches((step - 1) * self.settings.accumulate))
        network = self.parallel.network.train()
        if self.settings.freeze_batch_norm:
            freeze_batch_norm(network)
        for _, batch in zip(range(self.settings.accumulate), source, strict=False):
            reason = explain_nonfinite(
                network,
                self.task.criterion,
                batch.to(self.settings.device, non_blocking=True),
                preprocessing=self.task.preprocessing,
                precision=self.settings.precision,
                channels_last=self.settings.channels_last,
            )
            if not reason.startswith("run again"):
                break
        return reason

"""One run from its prepared data to its report: the stages in order, then the final scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

import perpixel
from perpixel.build.datasets import RunData, choose_workers, record_data
from perpixel.build.final import write_scores
from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.build.several_processes import launch
from perpixel.build.stage_job import StageJob
from perpixel.config import RunConfig, Stage, dump_config
from perpixel.engine import FitResult, PrecisionChoice, RunFolder, TensorBoardTracker
from perpixel.engine.atomic import write_bytes
from perpixel.engine.determinism import deterministic_mode
from perpixel.engine.distributed import World
from perpixel.errors import CheckpointError, InvalidValue, RunError
from perpixel.evaluation import evaluate_network
from perpixel.inference import Segmenter
from perpixel.inference.segmenter import Precision
from perpixel.metrics import to_json
from perpixel.models import Network
from perpixel.report import write_report
from perpixel.weights import load_artifact, save_artifact

__all__ = ["RunJob"]


class RunJob:
    """What the stages of a run share, and what happens before and after them.

    Args:
        config: Checked.
        run: The run folder.
        data: Prepared from ``config``.
        device: Where to train, and why.
        precision: The number format, and why.
        resume: Goes on where the folder's checkpoints end.
        on_progress: Receives `Progress`.
        world: The processes that train together; None: this one alone.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        data: RunData,
        *,
        device: tuple[torch.device, str],
        precision: PrecisionChoice,
        resume: bool,
        on_progress: ProgressCallback | None,
        world: World | None = None,
    ) -> None:
        self.config, self.run, self.data = config, run, data
        self.resume, self.on_progress = resume, on_progress
        self.device, self.precision = device[0], precision.name
        self.world = World(device=device[0]) if world is None else world
        self.world.main_only(self._write_config)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        deterministic = deterministic_mode(config.deterministic, self.device)
        facts = {"precision": self.precision, "processes": self.world.size}
        facts |= {} if launch() is None else {"launch": launch()}
        self.commit = run.environment(self.device, facts).get("commit")
        tracked = config.tensorboard and self.world.is_main
        self.tracker = TensorBoardTracker(run.path / "tensorboard") if tracked else None
        if self.tracker is not None:
            run.listeners.append(self.tracker)
        self.workers, workers_reason = choose_workers(config.data, self.device, self.world.size)
        run.decision("device", str(self.device), f"{device[1]}; {torch.get_num_threads()} CPU threads")
        run.decision("precision", self.precision, precision.reason)
        for choice, reason in deterministic:
            run.decision("deterministic", choice, reason)
        record_data(data, run)
        run.decision("loading processes", str(self.workers), workers_reason)

    def train_stages(self) -> FitResult | None:
        """Trains the stages in order, those that ended before an interruption not again; None when all had ended.

        Raises:
            RunError: the run is complete, or training failed.
        """
        result: FitResult | None = None
        previous: Path | None = None
        for index, stage in enumerate(self.config.stages):
            folder, done = self._stage_folder(index, stage)
            if not done:
                result = StageJob(self, index, folder).train(previous)
                if result.interrupted is not None:
                    return result
            previous = folder.path / "best"
        if result is None and self.world.from_main((self.run.path / "metrics.json").exists):
            raise RunError(
                f"{self.run.path}: every stage of this run has ended, so there is nothing to resume. "
                "`perpixel report` writes its report again; a new run needs a new folder."
            )
        if len(self.config.stages) > 1 and previous is not None:
            last = previous.parent
            self.world.main_only(lambda: self._deliver(last))
        return result

    def finish(self) -> Mapping[str, Any]:
        """Scores the best weights in float32, writes predictions and the report; the main process does, all return."""
        return self.world.from_main(self._scored)

    def _scored(self) -> Mapping[str, Any]:
        scores = write_scores(self.config, self.run, self.data, self.device, self.on_progress)
        if self.tracker is not None:
            self.tracker.close()
        self.run.finish()
        write_report(self.run.path)
        return scores

    def evaluate(self, network: nn.Module) -> Mapping[str, Any]:
        """Scores on the validation split in the precision of training; the final scores are computed in float32."""
        segmenter = Segmenter(
            network, self.data.labels, device=self.device, precision=cast("Precision", self.precision)
        )
        evaluation = evaluate_network(
            segmenter,
            self.data.val,
            batch_size=self.config.evaluation.batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            on_progress=Reporter("evaluate", self.on_progress),
        )
        return {**evaluation.scores(self.data.labels.names), "split": self.config.data.val_split}

    def save(self, network: nn.Module, folder: Path, facts: dict[str, Any]) -> None:
        """Writes an artifact with what is known of its making."""
        if not isinstance(network, Network):
            raise InvalidValue(f"{type(network).__name__} is no network that an artifact can describe")
        provenance = {
            "recipe": self.config.recipe,
            "run": self.config.name,
            "data": self.data.fingerprint,
            "mask_encoding": self.config.data.mask_encoding,
            "perpixel": perpixel.__version__,
            "torch": str(torch.__version__),
            "commit": self.commit,
            **to_json(facts),
        }
        try:
            save_artifact(folder, network, self.data.labels, provenance)
        except CheckpointError as error:
            raise RunError(f"{error} The training states in {folder.parent} stay: make room, then resume") from error

    def _stage_folder(self, index: int, stage: Stage) -> tuple[RunFolder, bool]:
        """Returns where a stage works, and whether it has ended already; a single stage works in the run folder."""
        if len(self.config.stages) == 1:
            return self.run, False
        path = self.run.path / "stages" / f"{index + 1}-{stage.name}"
        exists = self.world.from_main((path / "metrics.jsonl").exists)
        folder = self.world.main_first(
            lambda: RunFolder(
                path, resume=exists, on_event=lambda event: self.run.event(**event), writes=self.world.is_main
            )
        )
        return folder, self.world.from_main(lambda: exists and _has_ended(folder, stage))

    def _write_config(self) -> None:
        try:
            write_bytes(self.run.path / "config.yaml", dump_config(self.config).encode())
        except OSError as error:
            raise RunError(
                f"cannot write config.yaml in {self.run.path}: {error}; free space or mend the folder"
            ) from error

    def _deliver(self, stage: Path) -> None:
        """The last stage's artifacts become the run's."""
        for name in ("best", "last"):
            artifact = load_artifact(stage / name)
            save_artifact(self.run.path / name, artifact.network, artifact.labels, artifact.provenance)


def _has_ended(folder: RunFolder, stage: Stage) -> bool:
    """Whether a stage has come to its end: its steps, which may be more by now, or an early stop."""
    events = folder.events()
    stopped = any(event["event"] == "decision" and event.get("what") == "early stop" for event in events)
    return any(event["event"] == "end" and (stopped or event["step"] >= stage.steps) for event in events)

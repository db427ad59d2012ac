"""All networks against each other: the small form of each, the same scenes, the same schedule, several seeds.

Every network trains by its published loss on generated street scenes whose classes look inconsistent and alike, for
the same number of steps, with the same optimiser. At this size and length the order says how fast the networks learn
small scenes from nothing, not how good they are on the data sets of their papers.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from perpixel.backbones import BackboneConfig
from perpixel.bench.row_file import Row, RowFile
from perpixel.build import Progress, load, train
from perpixel.build.progress import ProgressCallback
from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    Stage,
)
from perpixel.data import SceneConfig, open_data, read_image, write_scenes
from perpixel.data.scenes import SCENE_CLASSES
from perpixel.errors import InvalidValue, RunError, nearest
from perpixel.inference import Segmenter
from perpixel.models import MODELS, create_model, list_models
from perpixel.models.cost import count_macs, count_parameters

__all__ = ["LIGHT_TRUNKS", "LineageSettings", "run_config", "run_lineage", "small_choice"]

LIGHT_TRUNK = "test_resnet"
"""Trunk of the networks that take any: four stages of one block each, half a million parameters at most."""
LIGHT_TRUNKS = {"deeplab_v2": "caffe_resnet50", "refinenet_lw": LIGHT_TRUNK}
"""Trunk of the networks that take several, but not any; the others have one of their own."""

_TIMED_IMAGES = 20
_COLUMNS = ("border_wrong", "interior_wrong", "border_pixels", "interior_pixels")

RowCallback = Callable[[Row, int, int], None]
"""(row, rows that are there, rows in all)."""


@dataclass(frozen=True, kw_only=True)
class LineageSettings:
    """What the runs share. Rows that were made with other settings do not count.

    Attributes:
        steps: Updates of the weights, the same for all; the default keeps the slowest network (the original U-Net,
            about 0.65 s of one core a step) under 90 seconds a run on two cores.
        batch_size: Images per step.
        size: Height and width of the scenes, pixels; a network that does not take it trains on its next larger size.
        train_scenes: Scenes to train on.
        val_scenes: Scenes to score on.
        knobs: Inconsistency within classes and indistinction between them, in [0, 1].
        lr: First learning rate of AdamW, which falls by (1 - step / steps) ** 0.9.
        weight_decay: Of AdamW.
        border_width_px: Largest distance from a true border that counts as boundary, pixels.

    Raises:
        InvalidValue: there are no steps.
    """

    steps: int = 160
    batch_size: int = 4
    size: int = 96
    train_scenes: int = 240
    val_scenes: int = 40
    knobs: float = 0.7
    lr: float = 2e-3
    weight_decay: float = 1e-2
    border_width_px: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidValue(f"steps must be >= 1, got {self.steps}")


def run_lineage(
    file: RowFile,
    settings: LineageSettings,
    *,
    networks: Sequence[str] = (),
    seeds: int = 3,
    retry: bool = False,
    on_row: RowCallback | None = None,
    on_progress: ProgressCallback | None = None,
) -> list[Row]:
    """Trains and measures what the file does not hold yet, and stores each row as soon as it is there.

    A network that fails is a row that says why, and the next one is run. Seeds are the outer loop, so that a benchmark
    that was stopped holds whole rounds.

    Args:
        file: Where rows are and go.
        settings: What the runs share.
        networks: Names of `MODELS`; none of them means all.
        seeds: Runs of each network, with the seeds 0, 1, …
        retry: Runs again what failed.
        on_row: Called with every row, new or old.
        on_progress: Receives the `Progress` of each run; its phase names network and seed.

    Returns:
        The rows of these networks, seeds and settings.

    Raises:
        InvalidValue: a network is unknown, or there are no seeds.
        RunError: the file cannot be written.
        KeyboardInterrupt: the work was stopped; the rows so far are stored.
    """
    names = _checked_names(networks)
    if seeds < 1:
        raise InvalidValue(f"seeds must be >= 1, got {seeds}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="perpixel-lineage-") as folder:
        for seed in range(seeds):
            for name in names:
                key = {"network": name, "seed": seed, **_key(name, settings)}
                row = file.find(key)
                if row is None or (retry and row["failed"]):
                    scenes = _scenes(Path(folder), settings)
                    row = file.put({"key": key, **_measured(name, seed, settings, scenes, on_progress)})
                rows.append(row)
                if on_row is not None:
                    on_row(row, len(rows), seeds * len(names))
    return rows


def small_choice(name: str) -> ModelChoice:
    """Returns a network's small form on its lightest trunk, with the strides and dilation that it was published with.

    The multi-grid of DeepLab v3 is left away: a stage of one block has none.
    """
    entry = MODELS[name]
    small, usual = entry.config.small(), entry.config()
    options = {f.name: getattr(small, f.name) for f in fields(small)}
    changed = {key: value for key, value in options.items() if value != getattr(usual, key)}
    trunk = LIGHT_TRUNK if entry.takes_any_backbone else LIGHT_TRUNKS.get(name)
    if trunk is None or entry.backbone is None:
        return ModelChoice(name=name, options=changed)
    light = replace(entry.backbone, name=trunk, stem="default", multi_grid=())
    return ModelChoice(name=name, options=changed, backbone=BackboneChoice(**light.to_dict()))


def run_config(name: str, seed: int, settings: LineageSettings, scenes: Path) -> RunConfig:
    """Returns the run of one network: windows are whole scenes, with its margin mirrored around them."""
    choice = small_choice(name)
    backbone = None if choice.backbone is None else BackboneConfig(**choice.backbone.model_dump())
    with torch.device("meta"):
        network = create_model(name, choice.options, num_classes=len(SCENE_CLASSES), backbone=backbone)
    side = settings.size + 2 * network.margin
    return RunConfig(
        name=f"lineage-{name}",
        data=DataChoice(
            source=str(scenes),
            crop_size=network.valid_size(side, side),
            mirror=network.margin,
            batch_size=settings.batch_size,
            allow_absent_classes=True,
        ),
        seed=seed,
        precision="fp32",
        device="cpu",
        evaluation=EvaluationChoice(
            every=settings.steps, save_predictions=False, border_width_px=settings.border_width_px
        ),
        stages=(
            Stage(
                model=choice,
                optimizer=OptimizerChoice(name="adamw", lr=settings.lr, weight_decay=settings.weight_decay),
                steps=settings.steps,
            ),
        ),
    )


def _checked_names(networks: Sequence[str]) -> list[str]:
    for name in networks:
        if name not in MODELS:
            known = ", ".join(list_models())
            raise InvalidValue(f"unknown network {name!r}{nearest(name, MODELS, end='.')} Known: {known}")
    return list(dict.fromkeys(networks)) or list_models()


def _key(name: str, settings: LineageSettings) -> dict[str, Any]:
    """What a stored row must share with a run to count as done: the settings, and the network's small form."""
    return {**asdict(settings), "model": small_choice(name).model_dump(mode="json")}


def _scenes(folder: Path, settings: LineageSettings) -> Path:
    """Writes the scenes at the first call; a benchmark that is complete makes none."""
    scenes = folder / "scenes"
    if not scenes.exists():
        looks = SceneConfig(
            height=settings.size,
            width=settings.size,
            inconsistency=settings.knobs,
            indistinction=settings.knobs,
            seed=1,
        )
        write_scenes(scenes, looks, train=settings.train_scenes, val=settings.val_scenes)
    return scenes


def _measured(
    name: str, seed: int, settings: LineageSettings, scenes: Path, on_progress: ProgressCallback | None
) -> dict[str, Any]:
    started = time.perf_counter()
    facts: dict[str, Any] = {
        "failed": None,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    watch = _StepWatch(f"{name}, seed {seed}", on_progress)
    try:
        with tempfile.TemporaryDirectory(dir=scenes.parent) as folder:
            config = run_config(name, seed, settings, scenes)
            result = train(config, out=Path(folder) / "run", on_progress=watch)
            if result.interrupted:
                raise KeyboardInterrupt
            facts |= _score_values(result.scores)
            facts |= _cost_values(load(result.folder / "best"), scenes)
    except Exception as error:  # whatever is wrong with one network, the others are measured
        text = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        facts["failed"] = text or type(error).__name__
    facts["seconds_per_step"] = watch.seconds_per_step
    facts["seconds"] = round(time.perf_counter() - started, 2)
    return facts


class _StepWatch:
    """Passes progress on under a run's own name, and measures how long a training step takes."""

    def __init__(self, title: str, callback: ProgressCallback | None) -> None:
        self.title, self.callback = title, callback
        self.seen: list[tuple[int, float]] = []

    def __call__(self, progress: Progress) -> None:
        if progress.phase == "train":
            self.seen.append((progress.done, time.perf_counter()))
        if self.callback is not None:
            self.callback(replace(progress, phase=f"{self.title}: {progress.phase}"))

    @property
    def seconds_per_step(self) -> float | None:
        """Mean over all steps but the first, which sets things up; None with fewer than two."""
        if len(self.seen) < 2:
            return None
        (first, began), (last, ended) = self.seen[0], self.seen[-1]
        return (ended - began) / (last - first)


def _score_values(scores: Any) -> dict[str, Any]:
    """Mean IoU, and the share of wrong pixels among those near a true border and among those inside regions."""
    rows = scores["error_split"]["per_class"]
    total = {column: sum(row[column] for row in rows) for column in _COLUMNS}
    return {
        "mean_iou": scores["mean_iou"],
        "pixel_accuracy": scores["pixel_accuracy"],
        "per_class_iou": {row["name"]: row["iou"] for row in scores["per_class"]},
        "boundary_error": total["border_wrong"] / max(1, total["border_pixels"]),
        "interior_error": total["interior_wrong"] / max(1, total["interior_pixels"]),
    }


def _cost_values(segmenter: Segmenter, scenes: Path) -> dict[str, Any]:
    """Parameters, MACs and time from one raw scene to its classes, alone."""
    items = open_data(scenes).splits["val"][:_TIMED_IMAGES]
    images = [read_image(item.image)[None] for item in items]
    segmenter.network.eval()
    seconds = list(_times(segmenter, images))
    return {
        "parameters": count_parameters(segmenter.network),
        "macs": count_macs(segmenter.network, _network_input(segmenter, images[0])),
        "ms_per_image": 1e3 * statistics.median(seconds),
        "ms_per_image_fastest": 1e3 * min(seconds),
    }


def _times(segmenter: Segmenter, images: Sequence[torch.Tensor]) -> Iterator[float]:
    segmenter.classes(images[0])  # sets things up
    for image in images:
        started = time.perf_counter()
        segmenter.classes(image)
        yield time.perf_counter() - started


def _network_input(segmenter: Segmenter, image: torch.Tensor) -> torch.Tensor:
    """What the network is given for a raw image, margin and padding included."""
    given: list[torch.Tensor] = []
    # The outermost module is called first, be it the network or a faster copy of it.
    hook = register_module_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        segmenter.classes(image)
    finally:
        hook.remove()
    return given[0]

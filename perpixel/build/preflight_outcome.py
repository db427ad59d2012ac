"""What a pre-flight check does with the weights of its two steps: scores, tiles, and the room on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from perpixel.build.datasets import RunData
from perpixel.config import RunConfig
from perpixel.evaluation import evaluate_network
from perpixel.inference import Segmenter
from perpixel.inference.large_images import tile_cost
from perpixel.inference.memory import bytes_text
from perpixel.inference.tile_plan import TilePlan, least_bytes, whole_bytes
from perpixel.inference.tiled_classes import TiledClasses
from perpixel.metrics import to_json
from perpixel.weights import load_artifact

__all__ = ["Outcome", "check_disk", "check_evaluation", "check_tiles"]

_EXACT_SHARE = 0.999
_TILED_SIDE = 320  # a corner of the image shows as much as the whole of it
_MASK_BYTES_PER_PIXEL = 0.5
"""PNG masks take less: regions of one class compress well."""


class Outcome(NamedTuple):
    """What was found: a sentence, what to be warned of, the numbers, and whether the real run would get by."""

    text: str
    warnings: tuple[str, ...] = ()
    values: Mapping[str, Any] = MappingProxyType({})
    fits: bool = True


def check_evaluation(artifact: Path, data: RunData) -> Outcome:
    """Scores the saved weights on the few validation images that ``data`` holds.

    Raises:
        PerpixelError: an image cannot be scored.
    """
    segmenter = _opened(artifact, data)
    evaluation = evaluate_network(segmenter, data.val)
    scores = to_json(evaluation.scores(data.labels.names))
    shown = "undefined" if scores["mean_iou"] is None else f"{100 * scores['mean_iou']:.1f} %"
    text = f"{len(data.val)} validation images scored in {evaluation.seconds:.1f} s: mean IoU {shown} after two steps"
    values = {"images": len(data.val), "mean_iou": scores["mean_iou"], "seconds": evaluation.seconds}
    return Outcome(text, (), values)


def check_tiles(artifact: Path, data: RunData) -> Outcome:
    """Predicts a corner of one image whole and in the tiles of a third of that memory, and compares the classes.

    Raises:
        PerpixelError: no tiles can be planned, or the scores are not finite.
    """
    segmenter = _opened(artifact, data)
    image = data.val[0].image[:, :_TILED_SIDE, :_TILED_SIDE]
    size = int(image.shape[-2]), int(image.shape[-1])
    cost = tile_cost(segmenter, memory_bytes=1)  # small probes alone
    whole = whole_bytes(segmenter.network, size, cost)
    memory = max(whole // 3, least_bytes(segmenter.network, size, cost))
    plans: list[TilePlan] = []
    tiled = TiledClasses(segmenter, memory_bytes=memory, on_plan=plans.append, cost=cost)(image)
    expected = segmenter.classes(image[None])[0].cpu().numpy()
    agreement = float((tiled == expected).mean())
    values: dict[str, Any] = {"image_size": list(size), "agreement": agreement, "tiles": 1, "exact": None}
    if not plans:
        text = f"{size[0]} x {size[1]} pixels are too few to be cut: {bytes_text(whole)} in one piece"
        return Outcome(text, (), values)
    plan = plans[0]
    values |= {"tiles": plan.tiles, "exact": plan.exact, "memory_bytes": memory}
    text = (
        f"{size[0]} x {size[1]} pixels in {plan.tiles} tiles within {bytes_text(memory)}: {100 * agreement:.2f} % of "
        "them get the class that the whole picture gives"
    )
    if plan.exact and agreement < _EXACT_SHARE:
        return Outcome(text, ("the tiles should have been exact; after two steps classes may nearly tie",), values)
    return Outcome(text if plan.exact else f"{text}; tiles are not exact here: {plan.reason}", (), values)


def check_disk(config: RunConfig, data: RunData, trial: Path, out: Path) -> Outcome:
    """Compares what the run will write with the room there is, and looks whether it may write at all.

    Args:
        config: The real run.
        data: Its data, with the summaries of whole splits.
        trial: The folder of the two steps, whose files have the real run's sizes.
        out: The planned run folder.
    """
    place = next(above for above in (out.absolute(), *out.absolute().parents) if above.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Outcome(f"nothing can be written in {place}", (), {"out": str(out)}, fits=False)
    stages = [trial] if len(config.stages) == 1 else sorted((trial / "stages").iterdir())
    checkpoints = sum(
        _size(stage / "checkpoints" / "step-2") * (config.keep_checkpoints + 1) for stage in stages
    )  # one more while the newest is written
    models = sum(_size(folder / name) for folder in {trial, *stages} for name in ("best", "last"))
    sizes = data.summaries[config.data.val_split].sizes
    saved = config.evaluation.save_predictions
    images = sum(sizes.values()) if saved is True else min(int(saved), sum(sizes.values()))
    largest = max((height * width for height, width in sizes), default=0)
    predictions = round(images * largest * _MASK_BYTES_PER_PIXEL)
    needed, free = checkpoints + models + predictions, shutil.disk_usage(place).free
    text = (
        f"about {bytes_text(needed)} for checkpoints, models and at most {images} masks; {bytes_text(free)} are free "
        f"in {place}"
    )
    values = {"needed_bytes": needed, "free_bytes": free, "out": str(out)}
    warnings = ("that is more than half of what is free",) if needed > free / 2 else ()
    return Outcome(text, warnings, values, fits=needed <= free)


def _opened(artifact: Path, data: RunData) -> Segmenter:
    return Segmenter(load_artifact(artifact).network, data.labels, device="cpu", precision="fp32")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

"""Training transforms and loading against torchvision v2 and albumentations: 480x360 images, crop 320.

All get the same images and one thread, whose processor time counts; a time is that of one image. ``geometry`` is random
scale, crop and flip of image and labels; ``batch`` goes on to a jittered and normalised float batch. Then each further
transform, always applied, against its counterpart in albumentations: within that batch, and alone on the uint8 window
and its labels. ``from files`` reads JPEG and PNG files, by the same decoder for all, and ends in the batch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perpixel.bench.contest import Contender, Contest, contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.bench.transform_pipelines import (
    AUGMENTATION,
    BATCH,
    FURTHER,
    PREPROCESSING,
    Albumentations,
    Pairs,
    Perpixel,
    Torchvision,
    alone,
    alone_there,
    interleaved,
    pictures,
    theirs,
)
from perpixel.data.batches import TrainBatches
from perpixel.data.dataset import Sample
from perpixel.data.image_files import read_image, read_mask
from perpixel.ops.normalize import normalize, padding_fractions

__all__ = ["measure"]

LEAST_OF_TORCHVISION, LEAST_OF_ALBUMENTATIONS = 2.0, 1.0
PACKAGES = ("torchvision", "albumentations", "opencv-python-headless")
OURS = ("perpixel, (H, W, C) memory", "perpixel, (C, H, W) memory")
V2 = ("torchvision v2, (H, W, C) memory", "torchvision v2, (C, H, W) memory")
A = "albumentations"


def measure(request: Request) -> Report:
    """Measures pipelines, further transforms and reading."""
    use_threads(1)
    torch.manual_seed(0)
    rounds = request.rounds_or(12)
    calls = 1 if request.tiny else 3
    rows: dict[str, tuple[Callable[[], Row], list[dict[str, Any]]]] = {
        name: (partial(_pipeline, name, rounds, calls), _pipeline_limits({})) for name in ("geometry", "batch")
    }
    rows["from files"] = (partial(_from_files, rounds, calls), _pipeline_limits({}, of_torchvision=1.0))
    for name in FURTHER:
        rows[name] = (partial(_further, name, name, rounds, calls), [])
        rows[f"{name}, alone"] = (partial(_further, f"{name}, alone", name, rounds, calls), [])
    report = Report(
        request.json,
        "loader",
        environment=describe_environment(threads=1, packages=PACKAGES),
        settings={"image": [360, 480], "crop": 320, "batch": BATCH, "scales": [0.5, 2.0]},
        rounds=rounds,
    )
    for name in request.chosen(rows):
        run, targets = rows[name]
        row = measured_row(name, run, targets=targets)
        if row["contenders"] or row["failed"]:
            request.say_row(report.put(row))
    return report


def _timed(functions: Mapping[str, Callable[[], object]], rounds: int, calls: int) -> Contest:
    """Seconds of an image; every function makes a batch."""
    offered = [
        Contender(name=name, prepare=lambda: None, run=partial(_called, function))
        for name, function in functions.items()
    ]
    found = contest(offered, rounds=rounds, calls=calls, clock=time.thread_time)
    return Contest({name: [value / BATCH for value in values] for name, values in found.seconds.items()})


def _called(function: Callable[[], object], _: object) -> object:
    return function()


def _pipeline(part: str, rounds: int, calls: int) -> Row:
    planar = pictures()
    packed = interleaved(planar)
    sources: dict[str, Any] = {
        V2[0]: Torchvision(packed),
        V2[1]: Torchvision(planar),
        A: Albumentations(packed),
        OURS[0]: Perpixel(packed),
        OURS[1]: Perpixel(planar),
    }
    found = _timed({name: getattr(source, part) for name, source in sources.items()}, rounds, calls)
    return row_of(part, found.rows(V2[0]), reference=V2[0], limits=_pipeline_limits(found.rows(V2[0])))


def _pipeline_limits(
    rows: Mapping[str, Mapping[str, Any]], *, of_torchvision: float = LEAST_OF_TORCHVISION
) -> list[dict[str, Any]]:
    """Ours in the memory order of decoders against the faster layout of each toolkit."""
    limits = []
    for peers, title, least in (
        (V2, "torchvision v2", of_torchvision),
        ((A,), "albumentations", LEAST_OF_ALBUMENTATIONS),
    ):
        there = [rows[name]["median_s"] for name in peers if name in rows]
        value = min(there) / rows[OURS[0]]["median_s"] if there and OURS[0] in rows else None
        limits.append(limit(f"times as fast as {title}, by medians", value, least, sense="at least"))
    return limits


def _further(row: str, name: str, rounds: int, calls: int) -> Row:
    """A further transform within the batch, or alone; without times where perpixel has no such form."""
    pairs = interleaved(pictures())
    single = row.endswith(", alone")
    ours = alone(name, pairs) if single else Perpixel(pairs, FURTHER[name]).batch
    if ours is None:
        return row_of(row, {})
    functions: dict[str, Callable[[], object]] = {}
    others = pairs[:3] if name == "mosaic" else None
    for number, transform in enumerate(theirs(name)):
        peer = alone_there(transform, pairs) if single else Albumentations(pairs, (transform,), others).batch
        functions[f"{A}, form {number + 1}" if number else A] = peer
    found = _timed({**functions, OURS[0]: ours}, rounds, calls)
    reference = min(functions, key=found.median) if functions else OURS[0]
    rows = found.rows(reference)
    limits = []
    if functions and not single:
        ratio = rows[OURS[0]]["times_as_fast"]["per_round"]
        limits = [limit("times as fast as albumentations", ratio, LEAST_OF_ALBUMENTATIONS, sense="at least")]
    return row_of(row, rows, reference=reference if functions else None, limits=limits)


class _Files:
    """Images and masks on disk; what a loader reads."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[tuple[Path, Path]] = []
        for number, (image, target) in enumerate(interleaved(pictures())):
            self.paths.append((folder / f"{number}.jpg", folder / f"{number}.png"))
            Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(self.paths[-1][0], quality=90)
            Image.fromarray(target.numpy()).save(self.paths[-1][1])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Sample:
        image, mask = self.paths[index]
        pixels = read_image(image)
        labels = torch.from_numpy(np.array(read_mask(mask)))
        return Sample(image=pixels, target=labels, name=image.name, size=(pixels.shape[1], pixels.shape[2]))

    def pairs(self) -> Pairs:
        """Reads all of them."""
        samples = [self[index] for index in range(len(self))]
        return [(sample.image, sample.target) for sample in samples if sample.target is not None]


def _from_files(rounds: int, calls: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(Path(folder))
        functions: dict[str, Callable[[], object]] = {
            V2[0]: partial(_read_into, Torchvision(files.pairs()), files),
            A: partial(_read_into, Albumentations(files.pairs()), files),
            OURS[0]: _read_by_perpixel(files),
        }
        found = _timed(functions, rounds, calls)
    rows = found.rows(V2[0])
    return row_of("from files", rows, reference=V2[0], limits=_pipeline_limits(rows, of_torchvision=1.0))


def _read_by_perpixel(files: _Files) -> Callable[[], object]:
    """Its loader without workers."""
    batches: Iterator[Any] = iter(
        TrainBatches(
            files, AUGMENTATION, batch_size=BATCH, steps=10**6, seed=0, pad_value=padding_fractions(PREPROCESSING)
        )
    )

    def read() -> object:
        batch = next(batches)
        return normalize(batch.images, PREPROCESSING, jitter=batch.jitter), batch.target

    return read


def _read_into(pipeline: Torchvision | Albumentations, files: _Files) -> object:
    pipeline.take(files.pairs())
    return pipeline.batch()

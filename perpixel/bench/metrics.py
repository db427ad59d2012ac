"""The confusion matrix against torchmetrics' on the same label maps.

Two kinds of maps. ``regions``: convex cells of a random layout, predicted with their borders displaced by up to four
pixels and one cell in ten given a wrong class, as networks err; a band around each true border is ignored. ``noise``:
square cells with 10 % of the pixels mispredicted and 5 % ignored, each pixel drawn on its own, as no network errs: the
worst case for counting runs. Both sides see the same tensors; torchmetrics runs without its own validation of
arguments, perpixel with its own, and the matrices must be equal.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.bench.contest import Contender, contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.packages import load_package
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.errors import RunError
from perpixel.metrics import confusion_matrix

__all__ = ["measure", "noise_maps", "region_maps"]

LEAST = 5.0
BATCH, SIDE, CLASSES = 4, 512, 19
PEER = "torchmetrics"
MAPS = ("regions", "noise")
DTYPES = {"uint8": torch.uint8, "int64": torch.int64}


def measure(request: Request) -> Report:
    """Measures both kinds of maps as uint8 and int64."""
    side = 64 if request.tiny else SIDE
    report = Report(
        request.json,
        "metrics",
        environment=describe_environment(threads=use_threads(request.threads), packages=(PEER,)),
        settings={"batch": BATCH, "side": side, "num_classes": CLASSES},
        rounds=request.rounds_or(30),
    )
    names = {f"{kind}, {dtype}": (kind, dtype) for kind in MAPS for dtype in DTYPES}
    for name in request.chosen(names):
        row = measured_row(name, partial(_row, name, *names[name], side, report.rounds), targets=[_limit(None)])
        request.say_row(report.put(row))
    return report


def region_maps(batch: int, side: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Returns prediction and target (B, side, side) uint8: cells of the nearest of 60 seeds, and the same displaced."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    predictions, targets = [], []
    for _ in range(batch):
        seeds = random.uniform(0, side, (60, 2)).astype(np.float32)
        truth = random.integers(0, num_classes, 60).astype(np.uint8)
        guess = np.where(random.random(60) < 0.1, random.integers(0, num_classes, 60), truth).astype(np.uint8)
        waves = [4 * np.sin(axis / 17 + phase) for axis, phase in ((columns, 0), (rows, 1))]
        targets.append(truth[_nearest(rows, columns, seeds)])
        predictions.append(guess[_nearest(rows + waves[0], columns + waves[1], seeds)])
        border = np.zeros((side, side), dtype=bool)
        border[:, 1:] |= targets[-1][:, 1:] != targets[-1][:, :-1]
        border[1:] |= targets[-1][1:] != targets[-1][:-1]
        targets[-1][border] = 255
    return torch.from_numpy(np.stack(predictions)), torch.from_numpy(np.stack(targets))


def noise_maps(batch: int, side: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Returns prediction and target (B, side, side) uint8; side is a multiple of 16."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, num_classes, (batch, 16, 16), generator=generator, dtype=torch.uint8)
    target = cells.repeat_interleave(side // 16, 1).repeat_interleave(side // 16, 2)
    prediction = target.clone()
    wrong = torch.rand(target.shape, generator=generator) < 0.1
    noise = torch.randint(0, num_classes, target.shape, generator=generator, dtype=torch.uint8)
    prediction[wrong] = noise[wrong]
    target[torch.rand(target.shape, generator=generator) < 0.05] = 255
    return prediction, target


def _nearest(rows: NDArray[np.float32], columns: NDArray[np.float32], seeds: NDArray[np.float32]) -> NDArray[np.intp]:
    """Index (H, W) of the seed (N, 2) nearest to each place."""
    distances = np.stack([(rows - row) ** 2 + (columns - column) ** 2 for row, column in seeds])
    index: NDArray[np.intp] = distances.argmin(axis=0)
    return index


def _row(name: str, kind: str, dtype: str, side: int, rounds: int) -> Row:
    made = {"regions": region_maps, "noise": noise_maps}[kind](BATCH, side, CLASSES)
    prediction, target = (labels.to(DTYPES[dtype]) for labels in made)
    classification = load_package("torchmetrics.classification")
    peer = classification.MulticlassConfusionMatrix(CLASSES, ignore_index=255, validate_args=False)

    def theirs(_: Any) -> Tensor:
        peer.reset()
        peer.update(prediction, target)
        return torch.as_tensor(peer.compute())

    if not torch.equal(confusion_matrix(prediction, target, CLASSES), theirs(None)):
        raise RunError("the two matrices differ, so their times cannot be compared")
    found = contest(
        [
            Contender(name=PEER, prepare=lambda: None, run=theirs),
            Contender(
                name="perpixel", prepare=lambda: None, run=lambda _: confusion_matrix(prediction, target, CLASSES)
            ),
        ],
        rounds=rounds,
    )
    return row_of(
        name,
        found.rows(PEER),
        reference=PEER,
        values={"batch": BATCH, "side": side, "classes": CLASSES},
        limits=[_limit(found.ratio("perpixel", PEER).per_round)],
    )


def _limit(value: float | None) -> dict[str, Any]:
    return limit("times as fast as torchmetrics", value, LEAST, sense="at least")

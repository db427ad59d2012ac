"""Data sets of coloured blocks and the smallest runs over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    Stage,
    variant,
)

NAMES = ("wall", "door", "window")
COLORS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))
TINY = BackboneChoice(name="test_resnet")
"""timm's own test network: four stages, half a million parameters."""


def blocks(seed: int, size: tuple[int, int] = (40, 48)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A noisy picture (H, W, 3) of three vertical blocks and its mask (H, W), whose top row is ignored."""
    random = np.random.default_rng(seed)
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[:, width // 3 + seed % 3 :] = 1
    mask[:, 2 * width // 3 :] = 2
    image = np.array(COLORS, np.int16)[mask] + random.integers(-20, 21, (height, width, 1))
    mask[0] = 255
    return image.clip(0, 255).astype(np.uint8), mask


def write_pair(folder: Path, name: str, image: NDArray[Any], mask: NDArray[Any]) -> None:
    """Writes ``images/NAME.png`` and ``masks/NAME.png``."""
    for kind, pixels in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def write_labels(folder: Path, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"names": list(NAMES), "colors": [list(color) for color in COLORS], **content}
    (folder / "labels.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def write_blocks(folder: Path, *, train: int = 5, val: int = 3) -> Path:
    """Writes a data set with the splits train and val; the images of val differ in size."""
    write_labels(folder)
    for number in range(train):
        write_pair(folder / "train", f"t{number}", *blocks(number))
    for number in range(val):
        write_pair(folder / "val", f"v {number}", *blocks(100 + number, (40 + 3 * (number // 2), 48)))
    return folder


def small_config(source: Path | str, **changes: Any) -> RunConfig:
    """A run of four steps that every test can afford."""
    base = RunConfig(
        name="small",
        data=DataChoice(source=str(source), crop_size=(32, 32), batch_size=2, workers=0),
        stages=(
            Stage(
                model=ModelChoice(
                    name="dfn", backbone=TINY, options={"width": 8, "border_width": 4, "head_expansion": 2}
                ),
                optimizer=OptimizerChoice(name="sgd", lr=0.01),
                steps=4,
            ),
        ),
        evaluation=EvaluationChoice(every=2),
        checkpoint_every=1,
        device="cpu",
        precision="fp32",
        threads=torch.get_num_threads(),
        seed=3,
    )
    return variant(base, **changes) if changes else base


def events(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, of one kind if wanted."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if kind in (None, line["event"])]


def decisions(run: Path) -> dict[str, str]:
    """What was decided -> the last choice with its reason."""
    return {event["what"]: f"{event['choice']}: {event['reason']}" for event in events(run, "decision")}


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / name / "model.safetensors")


def stem(tensors: dict[str, torch.Tensor]) -> str:
    """Returns the key of the backbone's first convolution."""
    return next(key for key, value in tensors.items() if key.startswith("backbone.") and value.ndim == 4)


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two artifacts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def without_times(scores: Any) -> dict[str, Any]:
    return {key: value for key, value in scores.items() if key != "seconds"}


class Interrupt:
    """An on_progress callback that raises when training, phase ``phase``, has done ``step`` steps."""

    def __init__(self, step: int, phase: str = "train") -> None:
        self.step, self.phase = step, phase

    def __call__(self, progress: Any) -> None:
        if progress.phase == self.phase and progress.done == self.step:
            raise KeyboardInterrupt

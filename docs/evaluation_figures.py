"""Draws the pictures of docs/evaluation.md: ``python docs/evaluation_figures.py``.

Each shows a truth, a prediction, and what perpixel and one toolkit print for them; the numbers come from the code. A
framed red label is outside the classes, a grey cell is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perpixel.metrics import CONVENTIONS, ConventionScores

OUT = Path(__file__).parent / "images"
X = 255


class Example(NamedTuple):
    """Label pairs on which a toolkit differs from perpixel."""

    num_classes: int
    pairs: tuple[tuple[list[list[int]], list[list[int]]], ...]
    """(truth, prediction) of each image."""
    reason: str


ABSENT = (([[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 0, 1], [0, 0, 1, 1]]),)
OUTSIDE_TRUTH = (([[0, 0, 1, 1], [0, 2, 2, 1]], [[0, 0, 1, 1], [0, 0, 1, 1]]),)

EXAMPLES = {
    "perpixel": Example(
        4,
        (([[0, 0, 1, 1]], [[0, 0, 0, 1]]), ([[0], [0]], [[0], [2]])),
        "3/5, 1/2, 0 over both images; class 3 is nowhere and left out",
    ),
    "mmseg": Example(2, OUTSIDE_TRUTH, "label 2 is dropped, what was predicted there is wrong"),
    "semseg": Example(2, OUTSIDE_TRUTH, "label 2 counts as class 1"),
    "torchseg": Example(
        2, (([[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 2, 1, 1], [0, 0, 1, 1]]),), "truth 0 as 2 is counted as truth 1 as 0"
    ),
    "encoding": Example(3, ABSENT, "class 2, on neither side, counts 0"),
    "paddleseg": Example(3, ABSENT, "class 2, on neither side, counts 1"),
    "torchvision": Example(3, ABSENT, "class 2, on neither side, is 0/0"),
    "ultralytics": Example(
        3, (([[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [2, 2, 1, 1]]),), "class 2, only predicted, is left out"
    ),
    "smp-micro": Example(
        2, (([[0, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]]),), "7 right of 7 + 1 + 1: class 1 vanishes"
    ),
    "smp-macro": Example(
        4, (([[0, 0, 1, 1], [0, 0, 1, 1]], [[1, 1, 0, 0], [1, 1, 0, 0]]),), "classes 2 and 3, on neither side, count 1"
    ),
    "smp-macro-imagewise": Example(
        2,
        (([[0, 0], [0, 1]], [[0, 0], [0, 0]]), ([[0, 0], [0, 0]], [[0, 0], [0, 0]])),
        "class 1, on neither side of the second image, counts 1 there",
    ),
    "torchmetrics": Example(
        2, (([[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [2, 0, 1, 1]]),), "3 distinct labels pass, and 2 is folded"
    ),
    "torchmetrics-meaniou": Example(
        2,
        (([[0, 0, 0, 1], [0, 0, 1, 1]], [[0, 0, 0, 1], [0, 0, 1, 1]]), ([[0, 1]], [[1, 0]])),
        "the small image weighs as much as the large one",
    ),
    "monai": Example(
        2,
        (([[0, 0, 1, 1]], [[0, 0, 1, 1]]), ([[0, 0, 0, 0]], [[0, 1, 1, 1]])),
        "class 1 is wrong in an image without it: no cost",
    ),
    "nnunet": Example(
        2, (([[0, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 0, 1, 1]]),), "class 0 is background and left out"
    ),
}

_COLORS = [(64, 105, 168), (230, 159, 64), (110, 168, 98), (160, 110, 180)]
_IGNORED, _INK, _RED, _PAPER = (190, 190, 190), (30, 30, 30), (200, 30, 30), (255, 255, 255)
_CELL, _GAP, _TOP = 24, 18, 22


def printed(name: str) -> dict[str, str]:
    """What perpixel and the toolkit print for the example."""
    example = EXAMPLES[name]
    scores = ConventionScores(example.num_classes, names=dict.fromkeys(("perpixel", name)))
    for truth, prediction in example.pairs:
        scores.add(np.array(prediction), np.array(truth))
    return {key: result.printed for key, result in scores.results().items()}


def draw(name: str) -> Image.Image:
    """Paints the example's maps beside its numbers."""
    example = EXAMPLES[name]
    maps = [labels for pair in example.pairs for labels in pair]
    widths, heights = [len(labels[0]) * _CELL for labels in maps], [len(labels) * _CELL for labels in maps]
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    lines = [f"{key}: {value}" for key, value in printed(name).items()]
    text_width = max(small.getlength(example.reason), *(large.getlength(line) for line in lines))
    size = (sum(widths) + _GAP * (len(maps) + 2) + round(text_width), _TOP + max(*heights, 60) + 8)
    picture = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(picture)
    left = _GAP
    for index, labels in enumerate(maps):
        pen.text((left, 4), "prediction" if index % 2 else "truth", fill=_INK, font=small)
        _draw_map(pen, labels, left, example.num_classes, small)
        left += widths[index] + _GAP
    for row, text in enumerate(lines):
        pen.text((left, _TOP - 2 + 20 * row), text, fill=_INK, font=large)
    pen.text((left, _TOP + 44), example.reason, fill=_INK, font=small)
    return picture.quantize(32)


def _draw_map(
    pen: ImageDraw.ImageDraw, labels: list[list[int]], left: int, num_classes: int, font: ImageFont.FreeTypeFont
) -> None:
    for row, line in enumerate(labels):
        for column, label in enumerate(line):
            x, y = left + column * _CELL, _TOP + row * _CELL
            inside = label < num_classes
            fill = _COLORS[label] if inside else _IGNORED if label == X else _PAPER
            pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=fill, outline=None if inside else _RED)
            pen.text((x + 8, y + 4), str(label), fill=_PAPER if inside else _RED, font=font)


def main() -> None:
    """Writes one picture per convention."""
    OUT.mkdir(exist_ok=True)
    for name in CONVENTIONS:
        draw(name).save(OUT / f"convention_{name}.png", optimize=True)


if __name__ == "__main__":
    main()

"""Times multi-scale and mirrored inference against the network's own forward passes over the same views.

CPU, float32, one image, the six usual scales, each plain and mirrored: raw image in, classes at its size out. The limit
is 1.1 times the sum of the twelve forward passes, one after the other, without resizing, softmax or anything else. The
two take turns; ratios are of medians. Beside them stands the plain way: every view's scores resized to the image, all
classes at once, softmaxed, mirrored back and added. Networks have random weights: DFN as `perpixel demo` trains it, at
the demo's size, and PSPNet on ResNet-18 at 512x512.

    python benchmarks/multi_scale.py --json benchmarks/results/multi_scale.json [--rounds 7] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.backbones import BackboneConfig
from perpixel.data.scenes import SCENE_CLASSES
from perpixel.inference import MultiScale, Segmenter
from perpixel.inference.multi_scale import SCALES
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.models.dfn import DFNConfig
from perpixel.ops import resize
from perpixel.ops.normalize import normalize
from perpixel.recipes import RECIPES

LIMIT = 1.1


def cases() -> dict[str, tuple[Segmenter, Tensor]]:
    """Segmenters and one raw image (1, C, H, W) for each."""
    demo: Any = RECIPES["dfn_demo"]()
    choice, scenes = demo.stages[0].model, demo.data.scenes
    torch.manual_seed(0)
    backbone = BackboneConfig(**choice.backbone.model_dump())
    dfn = create_model(choice.name, DFNConfig(**choice.options), num_classes=len(SCENE_CLASSES), backbone=backbone)
    pspnet = create_model("pspnet", num_classes=21, backbone="resnet18")
    return {
        "demo_dfn": (Segmenter(dfn, LabelSpace.numbered(len(SCENE_CLASSES))), image(scenes.height, scenes.width)),
        "pspnet_resnet18_512": (Segmenter(pspnet, LabelSpace.numbered(21)), image(512, 512)),
    }


def image(height: int, width: int) -> Tensor:
    """Random pixels: nothing that is timed depends on what they show."""
    return torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def views(segmenter: Segmenter, images: Tensor) -> list[Tensor]:
    """The inputs of all forward passes, as the network gets them."""
    x = normalize(images, segmenter.preprocessing)
    found = []
    for scale in SCALES:
        sides = [round(side * scale) for side in x.shape[-2:]]
        view = (
            F.interpolate(x, size=segmenter.fitting_size(*sides), mode="bilinear", antialias=True) if scale != 1 else x
        )
        found += [v.contiguous(memory_format=torch.channels_last) for v in (view, view.flip(-1))]
    return found


@torch.inference_mode()
def forward_passes(segmenter: Segmenter, inputs: list[Tensor]) -> None:
    """The network alone."""
    segmenter.network.eval()
    for x in inputs:
        segmenter.network(x)


@torch.inference_mode()
def plainly(segmenter: Segmenter, images: Tensor) -> Tensor:
    """Classes of the mean softmax, a full map per view."""
    segmenter.network.eval()
    size = images.shape[-2:]
    total = torch.zeros(1, segmenter.num_classes, *size)
    for index, x in enumerate(views(segmenter, images)):
        scores = resize(segmenter.network(x).logits, size, align_corners=False).softmax(1)
        total += scores.flip(-1) if index % 2 else scores
    return total.argmax(1).to(torch.uint8)


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measured(segmenter: Segmenter, images: Tensor, rounds: int) -> dict[str, Any]:
    """Seconds of each way, alternating."""
    segmenter.procedure = MultiScale()
    inputs = views(segmenter, images)
    ways: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward_passes(segmenter, inputs),
        "multi_scale": lambda: segmenter.classes(images),
        "plain": lambda: plainly(segmenter, images),
    }
    differing = float((segmenter.classes(images) != plainly(segmenter, images)).float().mean())
    forward_passes(segmenter, inputs)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways) if number % 2 else list(reversed(ways))
        for name in names:
            times[name].append(timed(ways[name]))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {
        "size": list(images.shape[-2:]),
        "num_classes": segmenter.num_classes,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "ratio": round(seconds["multi_scale"] / seconds["forward"], 3),
        "ratio_of_the_plain_way": round(seconds["plain"] / seconds["forward"], 3),
        "ratios_per_round": [round(a / b, 3) for a, b in zip(times["multi_scale"], times["forward"], strict=True)],
        "differing_pixels": differing,
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Multi-scale inference against its forward passes.")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", nargs="*", help="cases to measure, all without")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = {}
    for name, (segmenter, images) in cases().items():
        if arguments.rows and name not in arguments.rows:
            continue
        rows[name] = measured(segmenter, images, arguments.rounds)
        row = rows[name]
        print(
            f"{name}: {row['seconds']['multi_scale']:.3f} s, the forward passes {row['seconds']['forward']:.3f} s: "
            f"{row['ratio']:.3f} (limit {LIMIT}); the plain way {row['ratio_of_the_plain_way']:.3f}",
            flush=True,
        )
    result = {
        "limit": LIMIT,
        "scales": list(SCALES),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "rows": rows,
        "holds": all(row["ratio"] <= LIMIT for row in rows.values()),
    }
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

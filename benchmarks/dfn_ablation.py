"""DFN's parts on generated scenes that ask for them: the paper's ablation, small, with several seeds.

Scenes have ``inconsistency`` and ``indistinction`` turned up. Every variant trains on the same scenes with the same
steps; the table gives mean IoU and, from the same confusion of pixels, the share of pixels that are wrong within
``--border-width`` of a true border (indistinction) and inside regions (inconsistency), as mean ± deviation over
the seeds.

    python benchmarks/dfn_ablation.py --json benchmarks/results/dfn_ablation.json [--seeds 3] [--steps 300]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from perpixel.build import train
from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    Stage,
)
from perpixel.data import SceneConfig, write_scenes

PARTS = ("refinement_blocks", "global_pooling", "channel_attention", "deep_supervision", "border_network")
# Additions in the order of the paper's tables 2 and 3, then the whole network less one part at a time.
VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "+ RRB": PARTS[:1],
    "+ global pooling": PARTS[:2],
    "+ channel attention": PARTS[:3],
    "+ deep supervision (smooth network)": PARTS[:4],
    "+ border network (DFN)": PARTS,
    "DFN, border loss x10": PARTS,
}


def run_config(variant: str, seed: int, scenes: Path, steps: int, width_px: int) -> RunConfig:
    """Returns one small run; only the network's switches and the seed differ."""
    options: dict[str, Any] = {"width": 32, "border_width": 8, "head_expansion": 4}
    options |= {part: part in VARIANTS[variant] for part in PARTS}
    if variant.endswith("x10"):
        options["border_loss_weight"] = 1.0
    return RunConfig(
        name="ablation",
        data=DataChoice(source=str(scenes), crop_size=(128, 128), batch_size=8),
        seed=seed,
        evaluation=EvaluationChoice(every=steps, save_predictions=False, border_width_px=width_px),
        stages=(
            Stage(
                model=ModelChoice(name="dfn", backbone=BackboneChoice(name="test_resnet"), options=options),
                class_weights="sqrt_median_frequency",
                optimizer=OptimizerChoice(name="adamw", lr=2e-3, weight_decay=1e-2),
                steps=steps,
            ),
        ),
    )


def measure(variant: str, seed: int, scenes: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Trains one variant with one seed and returns its scores."""
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(variant, seed, scenes, arguments.steps, arguments.border_width)
        result = train(config, out=Path(folder) / "run")
    rows = result.scores["error_split"]["per_class"]
    pixels = sum(row["border_pixels"] + row["interior_pixels"] for row in rows)
    return {
        "mean_iou": result.scores["mean_iou"],
        "wrong_at_borders": sum(row["border_wrong"] for row in rows) / pixels,
        "wrong_inside": sum(row["interior_wrong"] for row in rows) / pixels,
    }


def main() -> None:
    """Runs every variant with every seed and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--scenes", type=int, default=240)
    parser.add_argument("--knobs", type=float, default=0.7, help="inconsistency and indistinction")
    parser.add_argument("--border-width", type=int, default=3)
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder) / "scenes"
        knobs = SceneConfig(height=128, width=128, inconsistency=arguments.knobs, indistinction=arguments.knobs, seed=1)
        write_scenes(scenes, knobs, train=arguments.scenes, val=40)
        for seed in range(arguments.seeds):  # seeds outside, so that a stopped benchmark has whole rounds
            for variant, found in rows.items():
                found.append(measure(variant, seed, scenes, arguments))
                print(f"seed {seed}  {variant:38s} mean IoU {found[-1]['mean_iou']:.4f}", flush=True)
    summary = {v: {k: _spread([row[k] for row in found]) for k in found[0]} for v, found in rows.items()}
    print(f"\n{'variant':38s} {'mean IoU':>16s} {'wrong at borders':>18s} {'wrong inside':>18s}")
    for variant, values in summary.items():
        shown = [f"{100 * values[k]['mean']:6.2f} ± {100 * values[k]['deviation']:.2f}" for k in values]
        print(f"{variant:38s} {shown[0]:>16s} {shown[1]:>18s} {shown[2]:>18s}")
    if arguments.json:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        content = {
            "settings": settings,
            "summary": summary,
            "runs": rows,
            "seconds": round(time.perf_counter() - started, 1),
            "commit": commit or None,
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _spread(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "deviation": deviation}


if __name__ == "__main__":
    main()

"""U-Net on the ISBI 2012 membranes: 20 slices to train, 4 to validate; membrane and cell IoU, pixel error.

The recipe ``unet_isbi`` through the public surface, with a narrower network, smaller tiles and AdamW, so that two CPU
cores get through it; a GPU can take ``--width 64 --crop 572``. ``--variants`` adds what two of the paper's ideas are
worth: the same run without the weight map's border term, and without elastic deformation.

    python benchmarks/unet_isbi.py --steps 1500 [--variants published "no border term" "no elastic"] [--seed 0]

Scores are those of the best of five evaluations on the four slices that they are reported on: there is no third set.
The slices lie under PERPIXEL_DATA (default ../shared/data) in isbi2012/image and isbi2012/label. The JSON file is
written after every variant.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import perpixel
from perpixel.config import RunConfig, TermChoice, variant
from perpixel.recipes import get_recipe

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("PERPIXEL_DATA", HERE.parents[1] / "shared" / "data")) / "isbi2012"
TRAIN_SLICES = 20
CLASSES = ("membrane", "cell")
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "no border term": {"terms": (TermChoice(name="main", loss="distance_weighted", options={"w0": 0.0}),)},
    "no elastic": {"data": {"elastic": 0.0}},
}


def lay_out(folder: Path) -> int:
    """Copies the slices into train/ and val/ and returns how many there are to validate on."""
    slices = sorted(path.name for path in (DATA / "image").glob("*.png"))
    if len(slices) <= TRAIN_SLICES:
        raise SystemExit(f"{DATA} holds {len(slices)} slices; set PERPIXEL_DATA to the folder that holds isbi2012/")
    for index, name in enumerate(slices):
        split = folder / ("train" if index < TRAIN_SLICES else "val")
        for source, target in (("image", "images"), ("label", "masks")):
            (split / target).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(DATA / source / name, split / target / name)
    return len(slices) - TRAIN_SLICES


def run_config(name: str, data: Path, arguments: argparse.Namespace) -> RunConfig:
    """Returns the recipe at the size that was asked for, with the variant's changes."""
    base = variant(
        get_recipe("unet_isbi"),
        steps=arguments.steps,
        seed=arguments.seed,
        data={"source": str(data), "crop_size": (arguments.crop, arguments.crop), "batch_size": arguments.batch},
        model={"options": {"width": arguments.width, "dropout": arguments.dropout}},
        optimizer={"name": "adamw", "lr": arguments.lr, "weight_decay": 1e-4},
        schedule={"name": "poly"},
        evaluation={"every": max(1, arguments.steps // 5), "save_predictions": False},
    )
    return variant(base, **VARIANTS[name])


def measure(name: str, data: Path, out: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Trains one variant and returns its scores on the validation slices."""
    result = perpixel.train(run_config(name, data, arguments), out=out)
    scores: Mapping[str, Any] = result.scores
    found = {f"{label}_iou": row["iou"] for label, row in zip(CLASSES, scores["per_class"], strict=True)}
    return {
        **found,
        "mean_iou": scores["mean_iou"],
        "pixel_error": 1 - scores["pixel_accuracy"],
        "seconds": round(result.seconds, 1),
    }


def main() -> None:
    """Trains the chosen variants one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "unet_isbi.json")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--variants", nargs="+", default=["published"], choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level; the paper has 64")
    parser.add_argument("--crop", type=int, default=316, help="input tile, 16k + 60 pixels; the paper has 572")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.2)
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        validated = lay_out(Path(folder) / "data")
        for name in arguments.variants:
            rows[name] = measure(name, Path(folder) / "data", Path(folder) / name.replace(" ", "-"), arguments)
            shown = "  ".join(f"{key} {value:.4f}" for key, value in rows[name].items())
            print(f"{name:16s} {shown}", flush=True)
            _write(arguments, rows, validated)


def _write(arguments: argparse.Namespace, rows: dict[str, dict[str, float]], validated: int) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    content = {
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("json", "variants")},
        "slices": {"train": TRAIN_SLICES, "val": validated},
        "variants": rows,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": commit or None,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

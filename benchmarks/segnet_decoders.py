"""The eight decoders of SegNet's table 1 on CamVid, small: the same encoder, data, steps and seed, beside the paper.

Every decoder of ``segnet_basic`` trains on windows of 180x240 pixels (a quarter of the image) of CamVid's training
images, with the class weights of the authors' tutorial and SGD (momentum 0.9), and is scored on the 101 validation
images whole. The paper's rate, 0.1, makes the decoders without batch norm diverge within ten steps in this setting; all
take 0.01 and gradients clipped to norm 1. The paper's column is the test split after training to convergence on whole
images, so only the order of the methods can be compared: Kendall's tau over all pairs says how well it agrees.

A decoder that the JSON file already holds with the same settings is not run again, and one that was interrupted goes on
from its last checkpoint in ``--runs``.

    python benchmarks/segnet_decoders.py --json benchmarks/results/segnet_decoders.json [--data camvid:FOLDER]

Several processes may share ``--runs``, each with its own ``--decoders`` and JSON file; a last call without collects.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from perpixel.build import train
from perpixel.config import (
    DataChoice,
    EvaluationChoice,
    GroupRule,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    ScheduleChoice,
    Stage,
    TermChoice,
)
from perpixel.errors import PerpixelError, RunError
from perpixel.models.segnet_basic import DECODERS
from perpixel.recipes.segnet import CAMVID_CLASS_WEIGHTS

WINDOW = (180, 240)
# Table 1, test split, median frequency balancing: global accuracy, class accuracy, mean IoU, in per cent.
PUBLISHED: dict[str, tuple[float, float, float]] = {
    "bilinear": (77.9, 61.1, 43.3),
    "unpool": (82.7, 62.0, 47.7),
    "unpool_add_encoder": (83.4, 63.6, 48.5),
    "unpool_single_channel": (81.2, 60.7, 46.1),
    "fcn": (81.7, 62.4, 47.3),
    "fcn_no_addition": (80.5, 58.6, 44.1),
    "fcn_no_reduction": (84.1, 63.4, 50.1),
    "fcn_no_addition_no_reduction": (80.5, 61.6, 45.9),
}
SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iou")
SETTINGS = ("steps", "batch_size", "lr", "clip_norm", "seed")


def run_config(decoder: str, arguments: argparse.Namespace) -> RunConfig:
    """Returns one run; only the decoder differs."""
    return RunConfig(
        name=decoder,
        labels="camvid11",
        data=DataChoice(source=arguments.data, crop_size=WINDOW, flip=0.5, batch_size=arguments.batch_size),
        seed=arguments.seed,
        evaluation=EvaluationChoice(every=arguments.steps, save_predictions=False, border_width_px=None),
        checkpoint_every=arguments.checkpoint_every,
        stages=(
            Stage(
                model=ModelChoice(name="segnet_basic", options={"decoder": decoder}),
                terms=(TermChoice(name="main", options={"normalise": "pixels"}),),
                class_weights=CAMVID_CLASS_WEIGHTS,
                optimizer=OptimizerChoice(name="sgd", lr=arguments.lr, momentum=0.9, weight_decay=5e-4),
                schedule=ScheduleChoice(name="constant"),
                groups=(GroupRule(pattern=r"(^|\.)(conv|classifier|reduce)\w*\.bias$", lr_factor=2.0, weight_decay=0),),
                no_decay_norm_bias=False,
                clip_norm=arguments.clip_norm,
                steps=arguments.steps,
            ),
        ),
    )


def measure(decoder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains one decoder, or goes on with its interrupted run, and returns its scores; a diverged run says so."""
    shared = settings(arguments)
    folder = arguments.runs / "-".join([decoder, *(f"{name}_{value}" for name, value in shared.items())])
    finished = folder / "metrics.json"
    resumed = not finished.exists() and (folder / "checkpoints").is_dir()
    row: dict[str, Any] = {"settings": shared, "resumed": resumed}
    if not finished.exists():
        config = run_config(decoder, arguments)
        try:
            result = train(config, resume=folder) if resumed else train(config, out=folder, overwrite=True)
        except RunError as error:
            return {**row, "failed": str(error)}
        if result.interrupted:
            raise SystemExit(f"{decoder}: stopped at step {result.steps}; the same command goes on from there")
    scores = json.loads(finished.read_text(encoding="utf-8"))
    return {**row, **{score: scores[score] for score in SCORES}}


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what a stored row must share with this call to count as done."""
    return {name: getattr(arguments, name) for name in SETTINGS}


def kendall_tau(pairs: list[tuple[float, float]]) -> float:
    """Returns how two orders agree, in [-1, 1]: pairs ordered alike less pairs ordered otherwise, by all pairs."""
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in itertools.combinations(pairs, 2)]
    return sum((s > 0) - (s < 0) for s in signs) / max(1, len(signs))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns the scores beside the published ones, in per cent."""
    head = "global / class / mean IoU"
    lines = [f"{'decoder':36s}{f'ours, validation ({head})':>46s}{f'paper, test ({head})':>46s}"]
    for decoder, published in PUBLISHED.items():
        row = rows.get(decoder, {"failed": "not run yet"})
        ours = row.get("failed") or " / ".join(f"{100 * row[score]:.1f}" for score in SCORES)
        theirs = " / ".join(f"{value:.1f}" for value in published)
        lines.append(f"{DECODERS[decoder].published:36s}{ours[:44]:>46s}{theirs:>46s}")  # type: ignore[index]
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing, saves after every decoder, and prints the table."""
    arguments = parsed()
    stored = json.loads(arguments.json.read_text(encoding="utf-8"))["rows"] if arguments.json.exists() else {}
    rows = {d: row for d, row in stored.items() if row["settings"] == settings(arguments)}
    for decoder in arguments.decoders:
        if decoder in rows:
            print(f"{decoder}: done already", flush=True)
            continue
        rows[decoder] = measure(decoder, arguments)
        print(f"{decoder}: {json.dumps(rows[decoder])}", flush=True)
        save(rows, arguments.json)
    print("\n" + table(rows))
    print(f"Kendall's tau of the two orders by mean IoU: {order_agreement(rows):+.2f}")


def order_agreement(rows: dict[str, dict[str, Any]]) -> float:
    """Returns Kendall's tau between our and the published mean IoU of the decoders that trained."""
    return kendall_tau([(rows[d]["mean_iou"], p[2]) for d, p in PUBLISHED.items() if "mean_iou" in rows.get(d, {})])


def save(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Writes what is there so far."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    content = {
        "rows": rows,
        "published": {decoder: dict(zip(SCORES, values, strict=True)) for decoder, values in PUBLISHED.items()},
        "kendall_tau": order_agreement(rows),
        "commit": commit or None,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/segnet_decoders.json"))
    parser.add_argument("--data", default=f"camvid:{os.environ.get('PERPIXEL_DATA', '../shared/data')}/camvid")
    parser.add_argument("--runs", type=Path, default=Path("runs/segnet_decoders"), help="run folders, for going on")
    parser.add_argument("--decoders", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED), metavar="NAME")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except PerpixelError as error:
        raise SystemExit(str(error)) from error

"""Makes run folders that look like real ones: 11 classes, curves, 12 small images with plausible mistakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from perpixel.labels import LabelSpace
from perpixel.metrics import border_error_counts, confusion_matrix, scores, to_json
from perpixel.metrics.image_counts import image_counts
from perpixel.report.per_image import COUNTS_FILE

SIZE = (90, 120)
WIDTH_PX = 3


def make_run(
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    skill: float = 0.8,
    images: int = 12,
    measured: bool = True,
) -> Path:
    """Writes a finished run. ``skill`` in [0, 1] is how good its predictions are; ``measured`` as new runs are."""
    camvid = LabelSpace.load("camvid11")
    labels = camvid if names is None else LabelSpace(**{**_fields(camvid), "names": tuple(names)})
    rng = np.random.default_rng(seed)
    (folder / "predictions").mkdir(parents=True)
    pictures = folder.parent / f"{folder.name}-data"
    pictures.mkdir()
    confusion = np.zeros((labels.num_classes,) * 2, dtype=np.int64)
    border = np.zeros((labels.num_classes, 4), dtype=np.int64)
    entries, counts = [], []
    for index in range(images):
        truth = _scene(np.random.default_rng(index), labels.num_classes)
        prediction = _mistaken(truth, rng, labels.num_classes, float(np.clip(skill + rng.normal(0, 0.08), 0.1, 1)))
        own = confusion_matrix(prediction, truth, labels.num_classes)
        confusion += own
        counts.append(image_counts(own))
        border += border_error_counts(prediction, truth, labels.num_classes, width_px=WIDTH_PX)
        name = f"frame_{index:04d}"
        entries.append(_write_pictures(folder, pictures, name, labels, truth, prediction, scores(own)))
    _json(folder / "predictions/images.json", entries)
    final = {**scores(confusion, labels.names), "images": images, "split": "val", "model": "dfn on resnet18"}
    final["error_split"] = {"width_px": WIDTH_PX, "per_class": _split_rows(labels, border)}
    final["baseline"] = {
        "name": "fcn",
        "mean_iou": 0.93 * final["mean_iou"],
        "pixel_accuracy": 0.98 * final["pixel_accuracy"],
        "per_class": [
            {"name": c["name"], "iou": float(np.clip(c["iou"] * rng.uniform(0.8, 1.05), 0, 1))}
            for c in final["per_class"]
        ],
    }
    if measured:
        final |= measures(final, rng)
        np.savez_compressed(
            folder / COUNTS_FILE, names=np.array([entry["name"] for entry in entries]), counts=np.stack(counts)
        )
    _json(folder / "metrics.json", to_json(final))
    _write_rest(folder, labels, rng, final["mean_iou"], confusion)
    return folder


def measures(final: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Makes boundary scores, intervals, region sizes and calibration that go with the scores."""
    score, names = final["mean_iou"], [entry["name"] for entry in final["per_class"]]
    iou = [entry["iou"] for entry in final["per_class"]]
    confidence = np.linspace(0.07, 0.97, 10)
    sizes = {"small": (1, 1024, 0.4), "medium": (1024, 9216, 0.7), "large": (9216, None, 1.0)}
    bins = [
        {"name": n, "from_pixels": low, "to_pixels": high, "regions": 90, "pixels": 4000, "recalled": 4000 * f * score,
         "recall": f * score}
        for n, (low, high, f) in sizes.items()
    ]  # fmt: skip
    return {
        "boundary": {
            "bf_score": 0.8 * score,
            "boundary_iou": 0.6 * score,
            "trimap_iou": {str(w): score * (1 - 0.6 * np.exp(-w / 5)) for w in (1, 3, 5, 10, 20)},
            "per_class": [
                {"name": n, "bf_score": 0.8 * v, "boundary_iou": 0.6 * v} for n, v in zip(names, iou, strict=True)
            ],
        },
        "intervals": {
            "level": 0.95,
            "samples": 1000,
            "mean_iou": [score - 0.03, score + 0.02],
            "pixel_accuracy": [final["pixel_accuracy"] - 0.01, final["pixel_accuracy"] + 0.01],
            "per_class_iou": [[max(v - 0.05, 0), min(v + 0.05, 1)] for v in iou],
        },
        "region_sizes": {"bins": bins, "per_class": [{"name": n, "bins": bins} for n in names]},
        "calibration": {
            "ece": 0.0431,
            "bins": [
                {
                    "low": i / 10,
                    "high": (i + 1) / 10,
                    "confidence": c,
                    "accuracy": rng.uniform(0.85, 0.98) * c,
                    "pixels": 10 * 4**i,
                }
                for i, c in enumerate(confidence)
            ],
            "per_class": [{"name": n, "ece": float(rng.uniform(0.01, 0.1))} for n in names],
        },
    }


def _fields(labels: LabelSpace) -> dict[str, Any]:
    return {
        "colors": labels.colors,
        "stored_to_train": labels.stored_to_train,
        "train_to_stored": labels.train_to_stored,
    }


def _scene(rng: np.random.Generator, classes: int) -> NDArray[np.uint8]:
    """Draws sky, buildings, a road and things on it, with an ignored strip."""
    width = SIZE[1]
    truth = np.zeros(SIZE, dtype=np.uint8)
    for left in range(0, width, 20):
        top = int(rng.integers(15, 35))
        truth[top:60, left : left + 20] = 1 if rng.random() < 0.7 else 5 % classes
    truth[55:62] = 4 % classes
    truth[62:] = 3 % classes
    for _ in range(9):
        kind = int(rng.integers(2, classes)) if classes > 2 else 1
        row, column = int(rng.integers(30, 70)), int(rng.integers(0, width - 16))
        tall, wide = (26, 3) if kind == 2 else (int(rng.integers(8, 18)), int(rng.integers(6, 16)))
        truth[row : row + tall, column : column + wide] = kind
    truth[-4:] = 255
    return truth


def _mistaken(truth: NDArray[np.uint8], rng: np.random.Generator, classes: int, skill: float) -> NDArray[np.uint8]:
    """Shakes borders and fills blobs with other classes."""
    rows, columns = np.indices(SIZE)
    shake = gaussian_filter(rng.normal(size=(2, *SIZE)), (0, 2, 2)) * 14 * (1.3 - skill)
    source = truth.copy()
    source[source == 255] = 3 % classes
    moved = source[
        np.clip(rows + shake[0], 0, SIZE[0] - 1).astype(int), np.clip(columns + shake[1], 0, SIZE[1] - 1).astype(int)
    ]
    field = gaussian_filter(rng.normal(size=SIZE), 5)
    swap = np.roll(np.arange(classes), -1)
    blobs = field > np.quantile(field, 0.75 + 0.25 * skill)
    return np.where(blobs, swap[moved], moved).astype(np.uint8)


def _write_pictures(
    folder: Path, data: Path, name: str, labels: LabelSpace, truth: Any, prediction: Any, own: Any
) -> dict[str, Any]:
    shade = labels.colorize(truth).astype(float) * 0.5 + 60
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(*SIZE, 3)), (1, 1, 0)) * 40
    Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(data / f"{name}.png")
    stored = np.where(truth == 255, labels.ignored_ids[0], labels.decode(truth)).astype(np.uint8)
    written = ((stored, data / f"{name}_mask.png"), (labels.decode(prediction), folder / f"predictions/{name}.png"))
    for ids, path in written:
        picture = Image.fromarray(ids).convert("P")
        picture.putpalette(labels.palette())
        picture.save(path)
    return {
        "name": name,
        "image": str(data / f"{name}.png"),
        "target": str(data / f"{name}_mask.png"),
        "prediction": f"predictions/{name}.png",
        "mean_iou": own["mean_iou"],
        "pixel_accuracy": own["pixel_accuracy"],
    }


def _split_rows(labels: LabelSpace, counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    keys = ("border_wrong", "interior_wrong", "border_pixels", "interior_pixels")
    return [
        {"name": name, **dict(zip(keys, map(int, row), strict=True))}
        for name, row in zip(labels.names, counts, strict=True)
    ]


def _write_rest(folder: Path, labels: LabelSpace, rng: np.random.Generator, score: float, confusion: Any) -> None:
    pixels = [int(n) for n in confusion.sum(axis=1)]
    split = {"images": 12, "pixels_per_class": pixels, "images_per_class": [9] * labels.num_classes,
             "ignored_pixels": 5000, "sizes": {"90x120": 12}}  # fmt: skip
    train = {
        **split,
        "images": 80,
        "pixels_per_class": [7 * n + 50 for n in pixels],
        "sizes": {"90x120": 70, "96x128": 10},
    }
    _json(
        folder / "data.json",
        {"labels": labels.to_dict(), "fingerprint": "sha256:4bf1c0", "splits": {"train": train, "val": split}},
    )
    environment = {"python": "3.11.9", "platform": "Linux", "perpixel": "0.1.0", "torch": "2.14.1", "device": "cpu",
                   "device_name": "x86_64", "threads": 2, "commit": None, "command": "perpixel train --recipe dfn",
                   "start": "2026-11-21T09:00:00+00:00", "end": "2026-11-21T09:21:40+00:00"}  # fmt: skip
    _json(folder / "environment.json", environment)
    stage = {"name": "main", "model": {"name": "dfn"}, "class_weights": "median_frequency", "steps": 1200}
    data = {"source": "scenes", "crop_size": [96, 96]}
    config = {"name": folder.name, "recipe": "dfn", "precision": "fp32", "data": data, "stages": [stage]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    lines = [json.dumps(event) for event in events(rng, score, labels.num_classes)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def events(rng: np.random.Generator, score: float, classes: int, steps: int = 1200) -> list[dict[str, Any]]:
    """Makes the lines of metrics.jsonl: decisions, falling losses, rising scores, a warning."""
    found: list[dict[str, Any]] = [
        {"event": "decision", "what": "precision", "choice": "fp32", "reason": "this CPU is slower with bf16"},
        {"event": "decision", "what": "class weights", "choice": "median frequency",
         "reason": "the rarest class holds 0.4 % of the training pixels"},
        {"event": "decision", "what": "workers", "choice": 0, "reason": "the decoded images fit in memory"},
    ]  # fmt: skip
    for step in range(10, steps + 1, 10):
        fall = np.exp(-step / 300)
        noise = rng.normal(1, 0.06, 3)
        values = {
            "main": (0.4 + 2 * fall) * noise[0],
            "deep": (0.2 + 0.9 * fall) * noise[1],
            "border": (0.03 + 0.06 * fall) * noise[2],
        }
        values["total"] = sum(values.values())
        seconds = {"data": 1.1, "step": 7.6, "evaluation": 1.2 if step % 100 == 0 else 0}
        lr = 0.01 * (1 - step / (steps + 1)) ** 0.9
        found.append({"event": "train", "stage": "main", "step": step, "lr": lr, "values": values, "seconds": seconds})
        if step % 100 == 0:
            now = score * (1 - 0.8 * fall) * rng.normal(1, 0.015)
            found.append({"event": "evaluation", "stage": "main", "step": step, "split": "val", "seconds": 1.2,
                          "values": {"mean_iou": now, "pixel_accuracy": 0.3 + 0.85 * now, "mean_accuracy": now * 1.08},
                          "per_class_iou": [now] * classes})  # fmt: skip
    found.append({"event": "warning", "step": 400, "message": "gradient norm 38 was clipped to 10"})
    found.append({"event": "end", "stage": "main", "step": steps})
    return found


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")

"""Checks every stored score: of the label pairs, of the Cityscapes case, and of the toolkits' conventions.

A row is one entry of a case (its confusion matrix, its IoU of all classes, …); null stands for undefined and must be
NaN here. A row's error is max |ours - expected| / max(1, max |expected|), infinite where one side alone is undefined.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import CheckpointError
from perpixel.metrics.bf_score import bf_score
from perpixel.metrics.boundary_iou import boundary_iou_counts
from perpixel.metrics.cityscapes import CITYSCAPES_IDS, CityscapesResult, CityscapesScores
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.conventions import ConventionScores
from perpixel.metrics.scores import Scores, scores
from perpixel.metrics.trimap import trimap_confusion
from perpixel.weights.checkers.vector import TOLERANCE, Row, Vector

__all__ = ["CONVENTION_TOLERANCE", "TORCHMETRICS_TOLERANCE", "check_metrics"]

TORCHMETRICS_TOLERANCE = 1e-6
"""torchmetrics divides in float32."""
CONVENTION_TOLERANCE = 0.005 + 1e-9
"""Percent points: the toolkits' numbers are stored with two decimals."""

Pair = tuple[NDArray[Any], NDArray[Any]]

_CONVENTIONS = {
    "mmseg / HF evaluate": ("mmseg",),
    "hszhao/semseg": ("semseg",),
    "TorchSeg": ("torchseg",),
    "PyTorch-Encoding": ("encoding",),
    "PaddleSeg / SMP macro": ("paddleseg", "smp-macro"),
    "torchvision ref": ("torchvision",),
    "Ultralytics semantic": ("ultralytics",),
    "SMP micro": ("smp-micro",),
    "SMP macro-imagewise": ("smp-macro-imagewise",),
    "torchmetrics segmentation.MeanIoU": ("torchmetrics-meaniou",),
    "torchmetrics MulticlassJaccardIndex": ("torchmetrics",),
    "MONAI MeanIoU (mean_batch)": ("monai",),
    "nnU-Net foreground mean": ("nnunet",),
}
"""Toolkits of the stored table, and our names for them."""
_CONVENTION_CLASSES = 5
_BF_OPTIONS: dict[str, dict[str, Any]] = {
    "theta_0.0075_diag": {},
    "theta_0.0075_diag_strict": {"strict": True},
    "theta_2px": {"tolerance_px": 2.0},
    "theta_2px_strict": {"tolerance_px": 2.0, "strict": True},
    "theta_2px_8conn": {"tolerance_px": 2.0, "connectivity": 8},
    "theta_2px_border_counts": {"tolerance_px": 2.0, "border_is_contour": True},
}


def check_metrics(vector: Vector) -> list[Row]:
    """Compares everything that expected.json, cityscapes_expected.json and conventions_expected.json state."""
    maps, rows = _arrays(vector, "cases.npz"), []
    for name, case in _json(vector, "expected.json").items():
        pairs = _case_pairs(name, case, maps)
        rows += [_prefixed(name, row) for row in _case_rows(pairs, case)]
    rows += _cityscapes_rows(_arrays(vector, "cityscapes.npz"), _json(vector, "cityscapes_expected.json"))
    return rows + _convention_rows(_arrays(vector, "conventions.npz"), _json(vector, "conventions_expected.json"))


def _case_pairs(name: str, case: Mapping[str, Any], maps: Mapping[str, NDArray[Any]]) -> list[Pair]:
    """Returns predictions and targets; a truth that is stored one up, with 0 ignored, is brought down."""
    target = maps[f"{name}_gt"]
    if "truth 0 = ignore" in str(case.get("convention", "")):
        target = target - np.uint8(1)
    return list(zip(maps[f"{name}_pred"], target, strict=True))


def _case_rows(pairs: list[Pair], case: Mapping[str, Any]) -> list[Row]:
    classes, ignored = int(case["classes"]), int(case["ignore"])
    matrices = [confusion_matrix(p, t, classes, ignore_index=ignored) for p, t in pairs]
    total, each = _sum(matrices), [scores(matrix) for matrix in matrices]
    rows = [_row("shape", [len(pairs), *pairs[0][1].shape], case["shape"]), _row("images", len(pairs), case["images"])]
    rows += _score_rows("dataset", scores(total), case["dataset"])
    for index, (ours, expected) in enumerate(zip(each, case["per_image"], strict=True)):
        rows += _score_rows(f"image {index}", ours, expected)
    mean = _mean(ours["mean_iou"] for ours in each)
    rows.append(_row("per_image mean", mean, case["mean_of_per_image_miou_union_nonzero"]))
    if "torchmetrics" in case:
        rows += _torchmetrics_rows(scores(total), each, case)
    if "bf" in case:
        rows += _bf_rows(pairs, classes, ignored, case["bf"])
        rows += _boundary_iou_rows(pairs, classes, ignored, case["boundary_iou_0.02"])
        for entry in case["trimap"]:
            rows += _trimap_rows(pairs, classes, ignored, entry)
    return rows


def _score_rows(place: str, ours: Scores, expected: Mapping[str, Any]) -> list[Row]:
    columns = {key: [entry[key] for entry in ours["per_class"]] for key in ("iou", "accuracy", "precision", "dice")}
    present = [entry["pixels"] > 0 for entry in ours["per_class"]]
    iou, accuracy = columns["iou"], columns["accuracy"]
    values = {
        "confusion": ours["confusion"],
        "pixel_accuracy": ours["pixel_accuracy"],
        "class_accuracy": accuracy,
        "mean_accuracy_present_in_truth": ours["mean_accuracy"],
        "mean_accuracy_absent_as_zero": float(np.nan_to_num(accuracy).mean()),
        "class_precision": columns["precision"],
        "iou": iou,
        "miou_union_nonzero": ours["mean_iou"],
        "miou_present_in_truth": _mean(value for value, there in zip(iou, present, strict=True) if there),
        "miou_absent_as_zero": float(np.nan_to_num(iou).mean()),
        "miou_absent_as_one": float(np.nan_to_num(iou, nan=1.0).mean()),
        "fwiou": ours["frequency_weighted_iou"],
        "dice": columns["dice"],
    }
    return [_row(f"{place} {key}", values[key], value) for key, value in expected.items() if key != "obtained"]


def _torchmetrics_rows(ours: Scores, each: Sequence[Scores], case: Mapping[str, Any]) -> list[Row]:
    """Its float32 values from ours, and where its definitions agree with ours."""
    n = np.array(ours["confusion"])
    right, truth, predicted = np.diag(n), n.sum(axis=1), n.sum(axis=0)
    seen = truth + predicted > 0
    recall = np.divide(right, truth, out=np.zeros(len(n)), where=truth > 0)
    iou = [entry["iou"] for entry in ours["per_class"]]
    values = {
        "jaccard_none": np.nan_to_num(iou).tolist(),
        "jaccard_macro": ours["mean_iou"],
        "jaccard_weighted": ours["frequency_weighted_iou"],
        "jaccard_micro": right.sum() / (truth + predicted - right).sum(),
        "accuracy_micro": ours["pixel_accuracy"],
        "accuracy_macro": float(recall[seen].mean()),
        "segmentation.MeanIoU": _mean(entry["iou"] for image in each for entry in image["per_class"]),
    }
    agreement = {
        "jaccard_macro_equals_miou_union_nonzero": True,
        "jaccard_weighted_equals_fwiou": True,
        "accuracy_micro_equals_pixel_accuracy": True,
        "accuracy_macro_equals_mean_accuracy_present": bool((truth > 0)[seen].all()),
    }
    stored = {key: value for key, value in case["torchmetrics"].items() if key not in ("version", "note")}
    rows = [_row(f"torchmetrics {key}", values[key], value, TORCHMETRICS_TOLERANCE) for key, value in stored.items()]
    return rows + [_row(f"agreement {key}", agreement[key], value) for key, value in case["agreement"].items()]


def _bf_rows(pairs: list[Pair], classes: int, ignored: int, expected: Mapping[str, Any]) -> list[Row]:
    rows = []
    for variant, stored in expected.items():
        if variant not in _BF_OPTIONS:  # texts
            continue
        options = _BF_OPTIONS[variant]
        table = [bf_score(p, t, classes, ignore_index=ignored, **options).tolist() for p, t in pairs]
        images = [_mean(line) for line in table]
        in_truth = [
            _mean(value for k, value in enumerate(line) if (t == k).any())
            for line, (_, t) in zip(table, pairs, strict=True)
        ]
        per_class = [_mean(column) for column in zip(*table, strict=True)]
        values = {
            "per_image_class": table,
            "per_image": images,
            "mean_over_images": _mean(images),
            "mean_over_images_truth_classes": _mean(in_truth),
            "per_class": per_class,
            "mean_over_classes": _mean(per_class),
        }
        rows += [_row(f"bf {variant} {key}", values[key], value) for key, value in stored.items()]
    return rows


def _boundary_iou_rows(pairs: list[Pair], classes: int, ignored: int, expected: Mapping[str, Any]) -> list[Row]:
    counts = [boundary_iou_counts(p, t, classes, ignore_index=ignored) for p, t in pairs]
    intersection, union = (_sum([pair[side] for pair in counts]) for side in (0, 1))
    iou = np.divide(intersection, union, out=np.full(classes, math.nan), where=union > 0).tolist()
    sides = [t.shape for _, t in pairs]
    values = {
        "dilation_px": sorted({max(1, round(0.02 * math.hypot(*shape))) for shape in sides}),
        "intersection": intersection.tolist(),
        "union": union.tolist(),
        "iou": iou,
        "mean": _mean(iou),
    }
    return [_row(f"boundary_iou_0.02 {key}", values[key], value) for key, value in expected.items()]


def _trimap_rows(pairs: list[Pair], classes: int, ignored: int, expected: Mapping[str, Any]) -> list[Row]:
    width = expected["width"]
    counts = _sum([trimap_confusion(p, t, classes, width_px=width, ignore_index=ignored) for p, t in pairs])
    ours = scores(counts)
    values = {
        "width": width,
        "pixels": ours["pixels"],
        "confusion": ours["confusion"],
        "pixel_accuracy": ours["pixel_accuracy"],
        "iou": [entry["iou"] for entry in ours["per_class"]],
        "miou_union_nonzero": ours["mean_iou"],
    }
    return [_row(f"trimap {width} {key}", values[key], value) for key, value in expected.items()]


def _cityscapes_rows(maps: Mapping[str, NDArray[Any]], expected: Mapping[str, Any]) -> list[Row]:
    total = CityscapesScores()
    for prediction, target, instances in zip(maps["pred"], maps["gt"], maps["instance"], strict=True):
        total.add(prediction, target, instances)
    ours = total.result()
    names = [label.name for label in CITYSCAPES_IDS]
    rows = []
    for key in ("iou", "iiou", "category_iou", "category_iiou"):
        values = getattr(ours, key)
        rows.append(_row(key, [values.get(name, math.inf) for name in expected[key]], list(expected[key].values())))
        rows.append(_row(f"average_{key}", getattr(ours, f"average_{key}"), expected[f"average_{key}"]))
    wanted = [[expected["confusion"].get(true, {}).get(guess, 0) for guess in names] for true in names]
    rows.append(_row("confusion", ours.confusion.tolist(), wanted))
    sizes = {label.name: label.average_size for label in CITYSCAPES_IDS}
    stored = expected["avg_class_size"]
    rows.append(_row("avg_class_size", [sizes[name] for name in stored], list(stored.values())))
    return [_prefixed("cityscapes", row) for row in [*rows, *_instance_rows(ours, expected["instance_stats"])]]


def _instance_rows(ours: CityscapesResult, expected: Mapping[str, Any]) -> list[Row]:
    rows = []
    for key, sums in (("classes", ours.class_instances), ("categories", ours.category_instances)):
        for name, stored in expected[key].items():
            tp, tp_weighted, fn, fn_weighted = sums[name]
            values = {"tp": tp, "tpWeighted": tp_weighted, "fn": fn, "fnWeighted": fn_weighted}
            wanted = [stored[field] for field in values]
            rows.append(_row(f"instance_stats {name}", list(values.values()), wanted))
            if "labelIds" in stored:
                members = [i for i, label in enumerate(CITYSCAPES_IDS) if label.category == name]
                rows.append(_row(f"instance_stats {name} labelIds", members, stored["labelIds"]))
    return rows


def _convention_rows(maps: Mapping[str, NDArray[Any]], expected: Mapping[str, Any]) -> list[Row]:
    rows = []
    for case in expected["cases"]:
        total = ConventionScores(_CONVENTION_CLASSES)
        for prediction, target in zip(maps[f"{case}_prediction"], maps[f"{case}_target"], strict=True):
            total.add(prediction, target)
        results = total.results()
        for toolkit, printed in expected["values"].items():
            for name in _CONVENTIONS[toolkit]:
                row = f"conventions {case} {name}"
                rows.append(_printed_row(row, results[name].printed, 100 * results[name].value, printed[case]))
    return rows


def _printed_row(name: str, ours: str, percent: float, expected: float | str) -> Row:
    if isinstance(expected, str) or ours in ("nan", "error"):
        note = f"ours prints {ours}, expected {expected}"
        return Row(name=name, error=0.0 if ours == expected else math.inf, tolerance=CONVENTION_TOLERANCE, note=note)
    return Row(name=name, error=abs(percent - expected), tolerance=CONVENTION_TOLERANCE, note="percent points")


def _row(name: str, ours: Any, expected: Any, tolerance: float = TOLERANCE) -> Row:
    values, wanted = np.array(_flat(ours)), np.array(_flat(expected))
    if values.shape != wanted.shape:
        note = f"{values.size} values, expected {wanted.size}"
        return Row(name=name, error=math.inf, tolerance=tolerance, note=note)
    if not np.array_equal(np.isnan(values), np.isnan(wanted)):
        return Row(name=name, error=math.inf, tolerance=tolerance, note="undefined on one side alone")
    defined = ~np.isnan(wanted)
    scale = max(1.0, float(np.abs(wanted[defined]).max(initial=0.0)))
    error = float(np.abs(values[defined] - wanted[defined]).max(initial=0.0)) / scale
    return Row(name=name, error=error, tolerance=tolerance)


def _flat(value: Any) -> list[float]:
    """Flattens nested lists; None, which is undefined on disk, becomes NaN."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in _flat(item)]
    return [math.nan if value is None else float(value)]


def _mean(values: Iterable[float]) -> float:
    """Mean of the defined values."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _sum(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum(arrays, axis=0)
    return total


def _prefixed(place: str, row: Row) -> Row:
    return Row(name=f"{place} {row.name}", error=row.error, tolerance=row.tolerance, note=row.note)


def _arrays(vector: Vector, name: str) -> dict[str, NDArray[Any]]:
    path = vector.folder / name
    try:
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); fetch the reference vector again") from error


def _json(vector: Vector, name: str) -> dict[str, Any]:
    path = vector.folder / name
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); fetch the reference vector again") from error
    return content

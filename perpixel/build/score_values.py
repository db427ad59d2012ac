"""What metrics.json holds: an evaluation, and the comparison of two, as plain values."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.evaluation import Comparison, Evaluation, Totals
from perpixel.labels import LabelSpace
from perpixel.metrics import region_size_scores, to_json
from perpixel.metrics.cityscapes import CITYSCAPES_IDS, CityscapesScores
from perpixel.metrics.conventions import CONVENTIONS
from perpixel.metrics.image_counts import SUMMARY_SCORES, mean_of_defined, ratio, scores_of_counts
from perpixel.metrics.neuron_segmentation import NEURON_SCORES
from perpixel.metrics.resampling import Interval, bootstrap, interval
from perpixel.metrics.scores import scores
from perpixel.metrics.statistics import intervals, mean_intervals, ratio_intervals

__all__ = ["comparison_values", "score_values"]

_RESAMPLES = 1000
_CONFIDENCE = 0.95
_SPLIT_COLUMNS = ("border_wrong", "interior_wrong", "border_pixels", "interior_pixels")


def score_values(
    evaluation: Evaluation, labels: LabelSpace, *, with_intervals: bool = False, per_image: bool = False
) -> dict[str, Any]:
    """Returns the keys of metrics.json: the scores, and what else was measured; undefined is None.

    Args:
        evaluation: Of a data set.
        labels: Its classes.
        with_intervals: Adds ``intervals``, 95 % over images.
        per_image: Adds ``per_image``, the scores of every image.
    """
    totals = evaluation.totals
    values: dict[str, Any] = {}
    if evaluation.refused is None:
        values |= to_json(evaluation.scores(labels.names))
        values |= _optional(evaluation, labels)
        if with_intervals:
            values["intervals"] = to_json(_interval_values(totals))
        if per_image:
            values["per_image"] = to_json(_image_values(evaluation))
    else:
        values |= {"refused": evaluation.refused, "images": len(totals)}
    if totals.measures.conventions:
        values["conventions"] = to_json(_convention_values(totals))
    if evaluation.unread:
        values["unread"] = [asdict(file) for file in evaluation.unread]
    if evaluation.notes:
        values["notes"] = list(evaluation.notes)
    values["seconds"] = round(evaluation.seconds, 3)
    return values


def comparison_values(comparison: Comparison, labels: LabelSpace) -> dict[str, Any]:
    """Returns a comparison as plain values: the tests with their answers in words, classes, and images by change."""
    tests = [
        {
            "score": test.score,
            "first": test.first,
            "second": test.second,
            "difference": test.difference,
            "interval": [test.low, test.high],
            "p_value": test.p_value,
            "beyond_chance": test.beyond_chance,
            "words": test.words,
        }
        for test in comparison.tests
    ]
    classes = [
        {"name": name, "iou_difference": span.value, "interval": [span.low, span.high]}
        for name, span in zip(labels.names, comparison.class_iou, strict=True)
    ]
    images = [{"name": i.name, "first": i.first, "second": i.second, "change": i.change} for i in comparison.images]
    result: dict[str, Any] = to_json(
        {
            "tests": tests,
            "per_class": classes,
            "images": images,
            "undefined": comparison.undefined,
            "left_out": comparison.left_out,
        }
    )
    return result


def _optional(evaluation: Evaluation, labels: LabelSpace) -> dict[str, Any]:
    totals, values = evaluation.totals, dict[str, Any]()
    measures = totals.measures
    if evaluation.border_errors is not None:
        values["error_split"] = {
            "width_px": evaluation.border_width_px,
            "per_class": [
                {"name": name, **{c: int(v) for c, v in zip(_SPLIT_COLUMNS, row, strict=True)}}
                for name, row in zip(labels.names, evaluation.border_errors, strict=True)
            ],
        }
    if measures.boundary or measures.trimap_px:
        values["boundary"] = to_json(_boundary_values(totals, labels))
    if measures.region_sizes:
        values["region_sizes"] = to_json(region_size_scores(totals.region_sizes, labels.names))
    if totals.calibration is not None:
        values["calibration"] = to_json(totals.calibration.result(labels.names))
    if measures.neurons:
        values["neuron_segmentation"] = to_json(totals.neurons.result())
    if measures.cityscapes:
        values["cityscapes"] = to_json(_cityscapes_values(totals))
    return values


def _boundary_values(totals: Totals, labels: LabelSpace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if totals.measures.boundary:
        bf_scores, counts = totals.bf_scores, totals.boundary_iou.sum(axis=0)
        bf, iou = _mean_over_images(bf_scores), ratio(counts[:, 0], counts[:, 1])
        values["bf_score"] = float(mean_of_defined(_bf_per_image(totals)))
        values["bf_score_mean_over_classes"] = float(mean_of_defined(bf))
        values["boundary_iou"] = float(mean_of_defined(iou))
        values["options"] = asdict(totals.measures.boundary_options)
        values["per_class"] = [
            {"name": name, "bf_score": b, "boundary_iou": i}
            for name, b, i in zip(labels.names, bf.tolist(), iou.tolist(), strict=True)
        ]
    if widths := totals.measures.trimap_px:
        bands = {f"{width:g}": _trimap_scores(band) for width, band in zip(widths, totals.trimaps, strict=True)}
        values["trimap_iou"] = {width: band["mean_iou"] for width, band in bands.items()}
        values["trimap_accuracy"] = {width: band["pixel_accuracy"] for width, band in bands.items()}
    return values


def _trimap_scores(band: NDArray[np.int64]) -> dict[str, Any]:
    values: dict[str, Any] = dict(scores(band[:, :-1], unpredicted=band[:, -1]))
    return values


def _mean_over_images(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_of_defined(values.T)


def _bf_per_image(totals: Totals) -> NDArray[np.float64]:
    """(N,) mean over the classes in each image's truth, as Csurka et al. 2013 average."""
    return mean_of_defined(np.where(totals.counts[..., 1] > 0, totals.bf_scores, np.nan))


def _interval_values(totals: Totals) -> dict[str, Any]:
    found = intervals(totals.counts, resamples=_RESAMPLES, confidence=_CONFIDENCE)
    values: dict[str, Any] = {"level": _CONFIDENCE, "samples": _RESAMPLES, "images": len(totals)}
    values |= {name: _ends(found.summary[name]) for name in SUMMARY_SCORES}
    values |= {f"per_class_{name}": [_ends(span) for span in spans] for name, spans in found.classes.items()}
    if totals.measures.boundary:
        values["bf_score"] = _ends(mean_intervals(_bf_per_image(totals)[:, None], resamples=_RESAMPLES)[0])
        values["per_class_bf_score"] = [_ends(span) for span in mean_intervals(totals.bf_scores, resamples=_RESAMPLES)]
        mean, classes = ratio_intervals(totals.boundary_iou, resamples=_RESAMPLES)
        values["boundary_iou"] = _ends(mean)
        values["per_class_boundary_iou"] = [_ends(span) for span in classes]
    return values | _optional_intervals(totals)


def _optional_intervals(totals: Totals) -> dict[str, Any]:
    """Under the keys of the scores themselves; calibration and other toolkits' numbers have no interval."""
    measures, values = totals.measures, dict[str, Any]()
    if widths := measures.trimap_px:
        bands = [intervals(totals.image_trimaps[:, w], resamples=_RESAMPLES).summary for w in range(len(widths))]
        for key, score in (("trimap_iou", "mean_iou"), ("trimap_accuracy", "pixel_accuracy")):
            values[key] = {f"{width:g}": _ends(band[score]) for width, band in zip(widths, bands, strict=True)}
    if measures.region_sizes:
        _, sizes = ratio_intervals(totals.image_region_sizes[..., [2, 1]], resamples=_RESAMPLES)
        names = [size["name"] for size in region_size_scores(totals.region_sizes)["bins"]]
        values["region_sizes"] = {name: _ends(span) for name, span in zip(names, sizes, strict=True)}
    if measures.neurons:
        spans = mean_intervals(totals.image_neurons, resamples=_RESAMPLES)
        values["neuron_segmentation"] = {name: _ends(span) for name, span in zip(NEURON_SCORES, spans, strict=True)}
    if measures.cityscapes:
        values["cityscapes"] = _cityscapes_intervals(totals)
    return values


def _cityscapes_intervals(totals: Totals) -> dict[str, Any]:
    sums = np.array([scores.sums() for scores in totals.image_cityscapes])
    averages = partial(CityscapesScores.averages_of, with_instances=bool(totals.cityscapes.with_instances))
    whole, drawn = averages(sums.sum(axis=0)[None]), bootstrap(sums, averages, resamples=_RESAMPLES)
    return {name: _ends(interval(whole[name][0], drawn[name], _CONFIDENCE, len(sums))) for name in drawn}


def _ends(span: Interval) -> list[float]:
    return [span.low, span.high]


def _image_values(evaluation: Evaluation) -> list[dict[str, Any]]:
    totals = evaluation.totals
    iou = scores_of_counts(totals.counts)["iou"].tolist()
    rows: list[dict[str, Any]] = [
        {
            "name": image.name,
            "mean_iou": image.mean_iou,
            "pixel_accuracy": image.pixel_accuracy,
            "pixels": image.pixels,
            "iou": values,
        }
        for image, values in zip(evaluation.images, iou, strict=True)
    ]
    if totals.measures.boundary:
        for row, score, values in zip(rows, _bf_per_image(totals).tolist(), totals.bf_scores.tolist(), strict=True):
            row |= {"bf_score": score, "bf_scores": values}
    return rows


def _convention_values(totals: Totals) -> dict[str, Any]:
    return {
        name: {
            "mean_iou": result.value,
            "printed": result.printed,
            "error": result.error or None,
            "toolkit": CONVENTIONS[name].toolkit,
            "why": result.why,
        }
        for name, result in totals.conventions.results().items()
    }


def _cityscapes_values(totals: Totals) -> dict[str, Any]:
    found = totals.cityscapes.result()
    evaluated = {label.name for label in CITYSCAPES_IDS if label.evaluated}
    return {
        "average_iou": found.average_iou,
        "average_iiou": found.average_iiou,
        "average_category_iou": found.average_category_iou,
        "average_category_iiou": found.average_category_iiou,
        "iou": {name: value for name, value in found.iou.items() if name in evaluated},
        "iiou": {name: value for name, value in found.iiou.items() if not math.isnan(value)},
        "category_iou": {name: value for name, value in found.category_iou.items() if name != "void"},
        "category_iiou": {name: value for name, value in found.category_iiou.items() if not math.isnan(value)},
    }

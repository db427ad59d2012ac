"""Cityscapes' scores: the official evaluator's values, a hand-worked pair, and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.labels import LabelSpace
from perpixel.metrics.cityscapes import CITYSCAPES_IDS, CityscapesScores

STORED = Path(__file__).parents[1] / "reference" / "scores"
ROAD, SIDEWALK, PARKING, BUILDING, PERSON, RIDER, CAR, CARAVAN = 7, 8, 9, 11, 24, 25, 26, 29
PERSON_SIZE, CAR_SIZE = 3462.4756337644, 12794.0202738185


@pytest.fixture(scope="module")
def case():
    with np.load(STORED / "cityscapes.npz") as maps:
        return list(zip(maps["pred"], maps["gt"], maps["instance"], strict=True))


def total(images):
    scores = CityscapesScores()
    for image in images:
        scores.add(*(np.asarray(labels) for labels in image))
    return scores


def assert_equal_results(first, second):
    for key in ("iou", "iiou", "category_iou", "category_iiou"):
        assert dict(getattr(first, key)) == pytest.approx(dict(getattr(second, key)), abs=1e-12, nan_ok=True)
    np.testing.assert_array_equal(first.confusion, second.confusion)


def test_cityscapes_ids_and_ignored_ones_are_those_of_the_label_space():
    space = LabelSpace.load("cityscapes")
    evaluated = [i for i, label in enumerate(CITYSCAPES_IDS) if label.evaluated]
    assert tuple(evaluated) == space.train_to_stored
    assert [CITYSCAPES_IDS[i].name for i in evaluated] == list(space.names)


def test_cityscapes_official_case_equals_the_official_evaluator(case):
    expected = json.loads((STORED / "cityscapes_expected.json").read_text(encoding="utf-8"))
    got = total(case).result()
    for key in ("iou", "iiou", "category_iou", "category_iiou"):
        wanted = {name: math.nan if value is None else value for name, value in expected[key].items()}
        assert dict(getattr(got, key)) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
        assert getattr(got, f"average_{key}") == pytest.approx(expected[f"average_{key}"], abs=1e-9)
    names = [label.name for label in CITYSCAPES_IDS]
    confusion = [[expected["confusion"].get(true, {}).get(guess, 0) for guess in names] for true in names]
    assert got.confusion.tolist() == confusion
    for key, ours in (("classes", got.class_instances), ("categories", got.category_instances)):
        for name, stats in expected["instance_stats"][key].items():
            wanted = [stats[field] for field in ("tp", "tpWeighted", "fn", "fnWeighted")]
            assert list(ours[name]) == pytest.approx(wanted, rel=1e-12)


def test_cityscapes_iou_hand_worked():
    """Parking is ignored as truth and a miss as prediction; road for sidewalk is right for the category."""
    target = [[ROAD, ROAD, ROAD, SIDEWALK, PARKING, BUILDING]]
    prediction = [[ROAD, PARKING, SIDEWALK, SIDEWALK, ROAD, ROAD]]
    got = total([(prediction, target)]).result()
    assert got.iou["road"] == pytest.approx(1 / (3 + 1))
    assert got.iou["sidewalk"] == pytest.approx(1 / 2)
    assert got.iou["building"] == 0
    assert got.average_iou == pytest.approx((1 / 4 + 1 / 2) / 3)
    assert got.category_iou["flat"] == pytest.approx(3 / (4 + 1))
    assert math.isnan(got.iou["parking"])
    assert math.isnan(got.category_iou["void"])
    assert math.isnan(got.average_iiou)


def test_cityscapes_iiou_hand_worked():
    """Two persons of 2 and 1 pixels, a group without number, and a caravan predicted on a car."""
    target = [[PERSON, PERSON, PERSON, PERSON, CAR, CAR, ROAD]]
    prediction = [[PERSON, ROAD, PERSON, PERSON, CAR, CARAVAN, PERSON]]
    instances = [[24000 + 1, 24000 + 1, 24000 + 2, PERSON, 26000 + 1, 26000 + 1, ROAD]]
    got = total([(prediction, target, instances)]).result()
    tp, fn = PERSON_SIZE / 2 + PERSON_SIZE, PERSON_SIZE / 2
    assert got.class_instances["person"] == pytest.approx((2, tp, 1, fn))
    assert got.iiou["person"] == pytest.approx(tp / (tp + fn + 1))
    assert got.iiou["car"] == pytest.approx(1 / 2)
    assert got.category_iiou["vehicle"] == 1
    assert got.category_iiou["human"] == pytest.approx(tp / (tp + fn + 1))
    assert got.category_instances["vehicle"] == pytest.approx((2, CAR_SIZE, 0, 0))
    assert math.isnan(got.category_iiou["flat"])
    assert math.isnan(got.iiou["rider"])


def test_cityscapes_instances_of_ignored_classes_count_nowhere():
    target, instances = [[CARAVAN, CARAVAN]], [[29000 + 1, 29000 + 1]]
    got = total([(target, target, instances)]).result()
    assert got.category_instances["vehicle"] == (0, 0, 0, 0)


def test_cityscapes_merged_parts_equal_the_whole(case):
    first, second = total(case[:1]), total(case[1:])
    first.merge(second)
    first.merge(CityscapesScores())
    assert_equal_results(first.result(), total(case).result())
    assert first.images == 2


def test_cityscapes_mirrored_images_score_the_same(case):
    mirrored = [tuple(labels[:, ::-1] for labels in image) for image in case]
    assert_equal_results(total(mirrored).result(), total(case).result())


def test_cityscapes_predictions_on_ignored_truth_never_matter(case):
    prediction, target, instances = case[0]
    ignored = ~np.isin(target, [i for i, label in enumerate(CITYSCAPES_IDS) if label.evaluated])
    other = np.where(ignored, CAR, prediction)
    first, second = (total([(guess, target, instances)]).result() for guess in (prediction, other))
    assert dict(first.iou) == pytest.approx(dict(second.iou), nan_ok=True)
    assert dict(first.category_iiou) == pytest.approx(dict(second.category_iiou), nan_ok=True)


def test_cityscapes_perfect_prediction_scores_one(case):
    got = total([(target, target, instances) for _, target, instances in case]).result()
    assert (got.average_iou, got.average_category_iou) == (1, 1)
    assert (got.average_iiou, got.average_category_iiou) == pytest.approx((1, 1))


@pytest.mark.parametrize("with_instances", [True, False])
def test_cityscapes_averages_of_summed_vectors_equal_those_of_the_images(case, with_instances):
    images = [image if with_instances else image[:2] for image in case]
    each = [total([image]).sums() for image in images]
    found = CityscapesScores.averages_of(np.stack([sum(each), each[0]]), with_instances=with_instances)
    for row, result in enumerate((total(images).result(), total(images[:1]).result())):
        for name, values in found.items():
            assert values[row] == pytest.approx(getattr(result, name), abs=1e-12, nan_ok=True)


def test_cityscapes_no_image_is_undefined():
    assert math.isnan(CityscapesScores().result().average_iou)


@pytest.mark.parametrize("bad", [255, 34, -1])
def test_cityscapes_id_out_of_range_refused(bad):
    with pytest.raises(InvalidValue, match=rf"prediction holds id {bad} at row 0, column 1.*Train ids"):
        total([([[7, bad]], [[7, 7]])])


def test_cityscapes_shapes_differ_refused():
    with pytest.raises(InvalidValue, match=r"one shape \(H, W\), got prediction \(1, 2\), target \(1, 1\)"):
        total([([[7, 7]], [[7]])])


def test_cityscapes_scores_instead_of_ids_refused():
    with pytest.raises(InvalidValue, match="prediction must hold integer class ids, got float64"):
        total([([[7.0]], [[7]])])


def test_cityscapes_tensors_count_as_arrays(case):
    prediction, target, instances = case[0]
    got = [CityscapesScores() for _ in range(2)]
    got[0].add(prediction, target, instances)
    got[1].add(*(torch.from_numpy(labels.astype(np.int32)) for labels in (prediction, target, instances)))
    assert got[1].result().average_iiou == got[0].result().average_iiou
    np.testing.assert_array_equal(got[1].confusion, got[0].confusion)


@pytest.mark.parametrize("number", [7001, 40_000])
def test_cityscapes_instance_of_a_class_without_instances_refused(number):
    with pytest.raises(InvalidValue, match=f"instance {number} is of id {number // 1000}, which has no instances"):
        total([([[7]], [[7]], [[number]])])


def test_cityscapes_refused_image_leaves_nothing_behind(case):
    scores = total(case)
    with pytest.raises(InvalidValue, match="has no instances"):
        scores.add(*(np.array([[label]]) for label in (7, 7, 7001)))
    assert scores.images == 2
    assert_equal_results(scores.result(), total(case).result())


def test_cityscapes_instances_for_some_images_only_refused(case):
    scores = total(case[:1])
    with pytest.raises(InvalidValue, match="for some images only"):
        scores.add(*case[1][:2])
    with pytest.raises(InvalidValue, match="one set of images has instances"):
        scores.merge(total([case[1][:2]]))

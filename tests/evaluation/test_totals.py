"""Records of images add up, whatever way they are divided; and the properties that every score must have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perpixel.build.score_values import score_values
from perpixel.errors import InvalidValue
from perpixel.evaluation import Evaluation, Measures, Totals
from perpixel.evaluation.measures import BoundaryOptions
from perpixel.evaluation.pixel_measures import measure
from perpixel.labels import LabelSpace
from perpixel.metrics import CONVENTIONS, bf_score, boundary_iou_counts

K = 3
LABELS = LabelSpace.numbered(K)
ALL = Measures(
    border_width_px=2, boundary=True, trimap_px=(1, 4), region_sizes=True, neurons=True, conventions=tuple(CONVENTIONS)
)
TRIMAP_KEYS = ("trimap_iou", "trimap_accuracy")
BOUNDED = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_dice")


def made_pairs(images=5, seed=0):
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(images):
        cells = rng.integers(0, K, (3, 4)).astype(np.uint8)
        target = np.kron(cells, np.ones((6 + index, 5), np.uint8))
        prediction = np.roll(target, (1, index - 2), (0, 1))
        prediction[rng.random(target.shape) < 0.05] = 0
        target[rng.random(target.shape) < 0.1] = 255
        pairs.append((prediction, target))
    return pairs


def records(pairs, measures=ALL, num_classes=K):
    return [measure(*pair, num_classes, measures, index=i, name=f"{i}") for i, pair in enumerate(pairs)]


def totals_of(found, measures=ALL, num_classes=K):
    totals = Totals(num_classes, measures)
    for record in found:
        totals.add(record)
    return totals


def values_of(pairs, measures=ALL, labels=LABELS):
    totals = totals_of(records(pairs, measures, labels.num_classes), measures, labels.num_classes)
    evaluation = Evaluation(totals=totals, seconds=0, counts_unpredicted=bool(totals.unpredicted.any()))
    return score_values(evaluation, labels, with_intervals=True, per_image=True)


def test_totals_parts_in_any_order_give_the_same_values() -> None:
    found = records(made_pairs())
    whole = values_of(made_pairs())
    for parts in ([(0, 3), (4, 1, 2)], [(4,), (2, 0), (3, 1)]):
        merged = Totals(K, ALL)
        for part in parts:
            merged.merge(totals_of(found[i] for i in part))
        values = score_values(Evaluation(totals=merged, seconds=0), LABELS, with_intervals=True, per_image=True)
        for name, entry in values.pop("neuron_segmentation").items():  # means of fractions, summed in another order
            assert entry == pytest.approx(whole["neuron_segmentation"][name], abs=1e-12)
        for name, entry in values.pop("conventions").items():
            assert entry["printed"] == whole["conventions"][name]["printed"]
        assert values.items() <= whole.items()


def test_totals_image_added_twice_refused() -> None:
    (record,) = records(made_pairs(1))
    totals = totals_of([record])
    with pytest.raises(InvalidValue, match=r"image 0 \(0\) was added before; each image counts once"):
        totals.add(record)
    with pytest.raises(InvalidValue, match=r"1 images are in both parts, the first is number 0"):
        totals.merge(totals_of([record]))


def test_totals_of_other_classes_or_measures_refused() -> None:
    with pytest.raises(InvalidValue, match="totals of other classes or measures cannot be added"):
        Totals(K, ALL).merge(Totals(K))
    with pytest.raises(InvalidValue, match="3 classes added to 4"):
        Totals(4, ALL).add(records(made_pairs(1))[0])


def test_scores_permuted_classes_permute_them() -> None:
    measures = replace(ALL, neurons=False, conventions=())
    order = np.array([2, 0, 1])
    table = np.append(order, np.full(253, 255)).astype(np.uint8)
    pairs = made_pairs()
    one = values_of(pairs, measures)
    other = values_of([(table[p], table[t]) for p, t in pairs], measures)
    for name in BOUNDED:
        assert other[name] == pytest.approx(one[name], abs=1e-12)
    for key in ("bf_score", "boundary_iou"):
        assert other["boundary"][key] == pytest.approx(one["boundary"][key], abs=1e-12)
        for k, row in enumerate(one["boundary"]["per_class"]):
            assert other["boundary"]["per_class"][order[k]][key] == pytest.approx(row[key], abs=1e-12)
    for k, row in enumerate(one["per_class"]):
        assert other["per_class"][order[k]]["iou"] == row["iou"]


def test_scores_pixels_under_ignored_truth_do_not_matter() -> None:
    measures = replace(ALL, conventions=())  # toolkits differ
    pairs = made_pairs()
    rng = np.random.default_rng(1)
    other = [(np.where(t == 255, rng.choice([0, 1, 200, 255], t.shape), p).astype(np.uint8), t) for p, t in pairs]
    assert values_of(other, measures) == values_of(pairs, measures)


def test_scores_perfect_prediction_is_one_everywhere() -> None:
    values = values_of([(np.where(t == 255, 0, t).astype(np.uint8), t) for _, t in made_pairs()])
    assert all(values[name] == 1 for name in BOUNDED)
    assert values["boundary"]["bf_score"] == values["boundary"]["boundary_iou"] == 1
    assert values["boundary"]["trimap_iou"] == {"1": 1, "4": 1}
    assert set(values["neuron_segmentation"].values()) == {1}
    assert all(size["recall"] in (1, None) for size in values["region_sizes"]["bins"])
    assert values["intervals"]["mean_iou"] == [1, 1]


def test_scores_mirrored_images_keep_them() -> None:
    pairs = made_pairs()
    one, other = values_of(pairs), values_of([(p[:, ::-1].copy(), t[:, ::-1].copy()) for p, t in pairs])
    for key in (*BOUNDED, "boundary", "region_sizes", "error_split", "intervals", "per_image"):
        assert one[key] == other[key]


def test_scores_are_fractions() -> None:
    values = values_of(made_pairs(seed=3))
    found = [values[name] for name in BOUNDED] + list(values["boundary"]["trimap_iou"].values())
    found += [values["boundary"][key] for key in ("bf_score", "boundary_iou")]
    found += [end for name in BOUNDED for end in values["intervals"][name]]
    assert all(0 < value < 1 for value in found)


def test_measure_pixels_without_a_class_are_wrong_and_in_no_column() -> None:
    target = np.array([[0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 255, 255, 255]], np.uint8)
    record = measure(prediction, target, 2, Measures(boundary=True, trimap_px=(1,), border_width_px=1))
    assert record.confusion.tolist() == [[1, 0], [0, 0]]
    assert record.unpredicted.tolist() == [1, 1]
    assert record.counts.tolist() == [[1, 2, 1], [0, 1, 0]]
    assert record.trimaps[0].sum(axis=0).tolist() == [1, 0, 2]
    assert record.bf_scores.shape == (2,)
    assert record.boundary_iou[1].tolist() == [0, 1]


def test_measure_pixels_without_a_class_are_in_no_cell() -> None:
    target, prediction = np.ones((1, 4), np.uint8), np.full((1, 4), 255, np.uint8)
    found = measure(prediction, target, 2, Measures(neurons=True)).neurons
    assert found["v_rand"] == pytest.approx(4 / 16 / (0.5 * 4 / 16 + 0.5))  # four segments of one pixel
    assert found["v_info"] == 0


def test_intervals_of_every_measure_hold_its_score() -> None:
    values = values_of(made_pairs(8, seed=2))
    spans = values["intervals"]
    found = [(spans[key][width], values["boundary"][key][width]) for key in TRIMAP_KEYS for width in ("1", "4")]
    found += [(spans["neuron_segmentation"][name], value) for name, value in values["neuron_segmentation"].items()]
    found += [(spans["region_sizes"]["small"], values["region_sizes"]["bins"][0]["recall"])]
    found += [
        (span, row[name])
        for name in ("iou", "accuracy", "precision", "dice")
        for span, row in zip(spans[f"per_class_{name}"], values["per_class"], strict=True)
    ]
    assert len(found) == 4 + 6 + 1 + 4 * K
    for (low, high), value in found:
        assert low < value < high
    assert spans["region_sizes"]["large"] == [None, None]


@pytest.mark.parametrize("key", ["trimaps", "region_sizes", "neurons"])
def test_images_counts_add_up_to_the_totals(key: str) -> None:
    totals = totals_of(records(made_pairs()))
    if key == "trimaps":
        bands = totals.image_trimaps.sum(axis=0)
        np.testing.assert_array_equal(bands[..., 1], totals.trimaps.sum(axis=2))
        np.testing.assert_array_equal(bands[..., 2], totals.trimaps[..., :-1].sum(axis=1))
    elif key == "region_sizes":
        np.testing.assert_array_equal(totals.image_region_sizes.sum(axis=0), totals.region_sizes.sum(axis=0))
    else:
        assert totals.image_neurons.mean(axis=0) == pytest.approx(list(totals.neurons.result().values()))


def test_measure_boundary_options_reach_both_scores_and_the_json() -> None:
    ((prediction, target),) = made_pairs(1)
    given = {
        "tolerance_px": 2.0,
        "strict": True,
        "connectivity": 8,
        "border_is_contour": True,
        "void": "dropped",
        "matching": "one_to_one",
    }
    measures = Measures(boundary=True, boundary_options=BoundaryOptions(**given, dilation_ratio=0.1))
    record = measure(prediction, target, K, measures)
    np.testing.assert_array_equal(record.bf_scores, bf_score(prediction, target, K, **given))
    counts = np.stack(boundary_iou_counts(prediction, target, K, dilation_ratio=0.1), axis=1)
    np.testing.assert_array_equal(record.boundary_iou, counts)
    plain = measure(prediction, target, K, Measures(boundary=True))
    assert (plain.bf_scores != record.bf_scores).any()
    assert (plain.boundary_iou != record.boundary_iou).any()
    options = values_of([(prediction, target)], measures)["boundary"]["options"]
    assert options == {**given, "tolerance_diagonal": 0.0075, "dilation_ratio": 0.1}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"connectivity": 6}, "4 or 8, got 6"),
        ({"tolerance_px": -1}, "tolerance_px is a distance in pixels, at least 0, got -1"),
        ({"void": "kept"}, "void is 'copied' or 'dropped', got 'kept'"),
        ({"matching": "all"}, "matching is 'nearest' or 'one_to_one', got 'all'"),
        ({"dilation_ratio": -0.1}, "dilation_ratio is a share of the image's diagonal, at least 0, got -0.1"),
    ],
)
def test_boundary_options_bad_values_refused_before_any_image(option, message) -> None:
    with pytest.raises(InvalidValue, match=message):
        BoundaryOptions(**option)


def test_measure_hand_worked_pair() -> None:
    target = np.repeat(np.array([[0, 0, 0, 1, 1, 1]], np.uint8), 6, axis=0)
    prediction = np.repeat(np.array([[0, 0, 0, 0, 1, 1]], np.uint8), 6, axis=0)
    values = values_of([(prediction, target)], Measures(boundary=True, trimap_px=(0,)), LabelSpace.numbered(2))
    assert values["mean_iou"] == pytest.approx((18 / 24 + 12 / 18) / 2)
    assert values["boundary"]["trimap_accuracy"] == {"0": 0.5}
    assert values["intervals"]["mean_iou"] == [None, None]  # of one image


def test_measure_no_room_for_a_class_not_predicted_refused() -> None:
    target, prediction = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
    with pytest.raises(InvalidValue, match="boundaries can be measured for up to 254 classes"):
        measure(prediction, target, 255, Measures(boundary=True))


def test_measures_bad_choices_refused() -> None:
    with pytest.raises(InvalidValue, match="trimap_px is a distance in pixels, at least 0, got -1"):
        Measures(trimap_px=(-1,))
    with pytest.raises(InvalidValue, match="trimap_px holds a width twice: 3, 3"):
        Measures(trimap_px=(3, 3))
    with pytest.raises(InvalidValue, match="no convention 'mmsge'; did you mean 'mmseg'"):
        Measures(conventions=("mmsge",))

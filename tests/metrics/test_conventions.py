"""What each toolkit prints: the published table, hand-worked pairs, torchmetrics itself, and what must never matter."""

from __future__ import annotations

import json
import math
from fractions import Fraction as Frac
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from perpixel.errors import InvalidValue
from perpixel.metrics.convention_rules import joint_counts
from perpixel.metrics.conventions import CONVENTIONS, ConventionScore, ConventionScores

STORED = Path(__file__).parents[1] / "reference" / "scores"
EXPECTED = json.loads((STORED / "conventions_expected.json").read_text(encoding="utf-8"))
NAN, ERROR = "nan", "error"
NAMES = [
    "perpixel",
    "mmseg",
    "semseg",
    "torchseg",
    "encoding",
    "paddleseg",
    "torchvision",
    "ultralytics",
    "smp-micro",
    "smp-macro",
    "smp-macro-imagewise",
    "torchmetrics",
    "torchmetrics-meaniou",
    "monai",
    "nnunet",
]
REFUSED_255 = ("torchmetrics-meaniou", "monai")


def results(pairs, num_classes, **options):
    total = ConventionScores(num_classes, **options)
    for prediction, target in pairs:
        total.add(np.asarray(prediction), np.asarray(target))
    return total.results()


def assert_prints(pairs, num_classes, values, **options):
    """Values in the order of NAMES: fractions, NAN or ERROR."""
    got = results(pairs, num_classes, **options)
    assert list(got) == NAMES
    for name, wanted in zip(NAMES, values, strict=True):
        if isinstance(wanted, str):
            assert got[name].printed == wanted, name
        else:
            assert not got[name].error, (name, got[name].error)
            assert got[name].value == pytest.approx(float(wanted), abs=2e-10), name


def random_pairs(seed, num_classes, count=3, ignored=0.2):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = tuple(rng.integers(3, 9, 2))
        target = rng.integers(0, num_classes, size).astype(np.uint8)
        target[rng.random(size) < ignored] = 255
        yield rng.integers(0, num_classes, size).astype(np.uint8), target


def test_conventions_have_the_names_of_the_command_line():
    assert list(CONVENTIONS) == NAMES
    assert all(convention.toolkit and convention.why.endswith(".") for convention in CONVENTIONS.values())


@pytest.mark.parametrize("case", EXPECTED["cases"])
def test_conventions_reference_case_prints_the_published_table(case):
    with np.load(STORED / "conventions.npz") as maps:
        got = results(zip(maps[f"{case}_prediction"], maps[f"{case}_target"], strict=True), 5)
    ours = {
        "mmseg / HF evaluate": "mmseg",
        "hszhao/semseg": "semseg",
        "TorchSeg": "torchseg",
        "PyTorch-Encoding": "encoding",
        "PaddleSeg / SMP macro": "paddleseg",
        "torchvision ref": "torchvision",
        "Ultralytics semantic": "ultralytics",
        "SMP micro": "smp-micro",
        "SMP macro-imagewise": "smp-macro-imagewise",
        "torchmetrics segmentation.MeanIoU": "torchmetrics-meaniou",
        "torchmetrics MulticlassJaccardIndex": "torchmetrics",
        "MONAI MeanIoU (mean_batch)": "monai",
        "nnU-Net foreground mean": "nnunet",
    }
    assert set(ours) == set(EXPECTED["values"])
    for toolkit, values in EXPECTED["values"].items():
        wanted = values[case] if isinstance(values[case], str) else f"{values[case]:.2f}"
        assert got[ours[toolkit]].printed == wanted, toolkit
    assert got["smp-macro"].printed == got["paddleseg"].printed
    assert got["perpixel"].printed == (ERROR if case == "E" else got["mmseg"].printed)


def test_conventions_two_images_hand_worked():
    """Class 2 is only predicted, class 3 nowhere. Data set: 3/5, 1/2, 0; image 1: 2/3, 1/2; image 2: 1/2, -, 0."""
    pairs = [([[0, 0, 0, 1]], [[0, 0, 1, 1]]), ([[0], [2]], [[0], [0]])]
    mean = Frac(11, 30)
    wanted = [
        mean,
        mean,
        Frac(11, 40),
        mean,
        Frac(11, 40),
        Frac(21, 40),
        NAN,
        Frac(11, 20),
        Frac(4, 8),
        Frac(21, 40),
        Frac(17, 24),
    ]
    assert_prints(pairs, 4, [*wanted, mean, Frac(5, 12), Frac(13, 48), Frac(1, 4)])


def test_conventions_truth_outside_the_classes_hand_worked():
    wanted = [
        ERROR,
        Frac(3, 4),
        Frac(2, 3),
        1,
        Frac(3, 4),
        Frac(3, 4),
        1,
        1,
        Frac(2, 3),
        Frac(3, 4),
        Frac(3, 4),
        ERROR,
        ERROR,
        ERROR,
    ]
    assert_prints([([[0, 1, 1]], [[0, 1, 2]])], 2, [*wanted, Frac(1, 2)])


def test_conventions_prediction_outside_the_classes_hand_worked():
    """Label 2 on truth 0: one more wrong pixel, class 1 (closed bin), the pair (1, 0) (folded), or dropped."""
    half = Frac(1, 2)
    wanted = [
        ERROR,
        Frac(3, 4),
        half,
        half,
        Frac(3, 4),
        Frac(3, 4),
        half,
        1,
        Frac(2, 3),
        Frac(3, 4),
        Frac(3, 4),
        half,
        ERROR,
        ERROR,
    ]
    assert_prints([([[0, 2, 1]], [[0, 0, 1]])], 2, [*wanted, 1])


def test_conventions_prediction_that_leaves_the_table_raises_where_it_is_folded():
    got = results([([[0, 0, 255]], [[0, 0, 1]])], 2)
    assert {name for name, result in got.items() if result.error} == {
        *REFUSED_255,
        "perpixel",
        "torchseg",
        "torchvision",
        "torchmetrics",
    }
    assert "truth 1 with prediction 255 leaves the table" in got["torchseg"].error
    assert math.isnan(got["torchseg"].value)


def test_conventions_ignored_strip_hand_worked():
    wanted = [1, 1, Frac(1, 2), 1, Frac(1, 2), 1, NAN, 1, 1, 1, 1, 1, ERROR, ERROR, NAN]
    assert_prints([([[0, 1]], [[0, 255]])], 2, wanted)


def test_conventions_image_that_is_ignored_whole_hand_worked():
    wanted = [NAN, NAN, 0, NAN, 0, 1, NAN, 0, NAN, 1, 1, NAN, ERROR, ERROR, NAN]
    assert_prints([([[0, 1]], [[255, 255]])], 2, wanted)


def test_conventions_one_class_hand_worked():
    """SMP's single bin counts all, Ultralytics looks for label 1, nnU-Net has no foreground, torchmetrics refuses."""
    wanted = [1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, ERROR, 1, 1, NAN]
    assert_prints([([[0, 0]], [[0, 0]])], 1, wanted)


def test_ultralytics_one_class_scores_label_one_against_label_zero():
    assert results([([[0, 1, 1]], [[0, 1, 0]])], 1, names=["ultralytics"])["ultralytics"].value == 0.5


def test_mmseg_one_class_counts_every_label_in_its_only_bin():
    assert results([([[0, 7, 7]], [[0, 0, 7]])], 1, names=["mmseg"])["mmseg"].value == pytest.approx(2 / 4)


def test_semseg_ignored_label_equal_to_the_number_of_classes_counts_as_right():
    got = results([([[0, 0, 0]], [[0, 1, 2]])], 2, ignore_index=2, names=["semseg", "mmseg"])
    assert (got["semseg"].printed, got["mmseg"].printed) == ("50.00", "25.00")


def test_paddleseg_ignored_class_is_never_found():
    """Ignored label 0 of two classes: its three true pixels stay in the union."""
    got = results(
        [([[0, 0, 0, 1]], [[0, 0, 0, 1]])], 2, ignore_index=0, names=["paddleseg", "smp-macro", "torchmetrics"]
    )
    assert got["paddleseg"].value == 0.5
    assert "ignore_index 0 must lie outside" in got["smp-macro"].error
    assert got["torchmetrics"].value == 1.0


def test_torchmetrics_counts_distinct_labels_before_anything_else():
    error = results([([[0, 0, 0, 0]], [[0, 1, 7, 9]])], 2, names=["torchmetrics"])["torchmetrics"].error
    assert "4 distinct labels in target, at most 3" in error


@pytest.mark.parametrize("seed", range(12))
def test_torchmetrics_conventions_equal_torchmetrics(seed):
    """Clean, with ignored pixels, and with labels outside the classes on either side."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(2, 6))
    pairs = list(random_pairs(seed, num_classes, ignored=0.2 if seed % 2 else 0.0))
    for prediction, target in pairs:
        if seed % 4 >= 2:
            (prediction if seed % 3 else target)[0, :2] = num_classes
    metrics = {
        "torchmetrics": MulticlassJaccardIndex(num_classes=num_classes, ignore_index=255),
        "torchmetrics-meaniou": MeanIoU(num_classes=num_classes, input_format="index"),
    }
    got = results(pairs, num_classes, names=metrics)
    for name, metric in metrics.items():
        try:
            for prediction, target in pairs:
                metric.update(torch.from_numpy(prediction).long()[None], torch.from_numpy(target).long()[None])
            wanted = float(metric.compute())
        except RuntimeError:
            assert got[name].printed == ERROR
        else:
            assert got[name].value == pytest.approx(wanted, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_convention_parts_that_are_merged_equal_the_whole(name):
    pairs = list(random_pairs(3, 4, count=5, ignored=0.0))
    whole, first, second = (ConventionScore(name, 5) for _ in range(3))
    for index, pair in enumerate(pairs):
        whole.add(*pair)
        (first if index < 2 else second).add(*pair)
    second.merge(first)
    assert second.result().value == pytest.approx(whole.result().value, abs=1e-12, nan_ok=True)
    assert second.totals.images == 5


def test_convention_merge_keeps_the_error_of_either():
    bad, good = ConventionScores(2), ConventionScores(2)
    bad.add(np.array([[0]]), np.array([[9]]))
    good.add(np.array([[0]]), np.array([[0]]))
    good.merge(bad)
    assert "target holds label 9 (classes are 0..1)" in good.results()["perpixel"].error
    assert good.results()["mmseg"].printed == "50.00"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED_255])
def test_convention_prediction_under_ignored_truth_never_matters(name):
    for prediction, target in random_pairs(5, 3):
        other = np.where(target == 255, 2 - np.minimum(prediction, 2), prediction)
        values = [results([(p, target)], 3, names=[name])[name].value for p in (prediction, other)]
        assert values[0] == pytest.approx(values[1], nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_convention_mirrored_or_renumbered_images_score_the_same(name):
    """Class 0 keeps its number: nnU-Net's background."""
    pairs = list(random_pairs(8, 4, ignored=0.0))
    order = np.array([0, 3, 1, 2], dtype=np.uint8)
    mirrored = [(p[:, ::-1], t[:, ::-1]) for p, t in pairs]
    renumbered = [(order[p], order[t]) for p, t in pairs]
    values = [results(chosen, 4, names=[name])[name].value for chosen in (pairs, mirrored, renumbered)]
    assert 0 <= values[0] <= 1
    assert values[1:] == pytest.approx([values[0]] * 2, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_convention_perfect_prediction_with_every_class_scores_one(name):
    target = np.arange(4).repeat(3).reshape(3, 4)
    assert results([(target, target)] * 2, 4, names=[name])[name].value == pytest.approx(1, abs=1e-9)


def test_convention_without_an_image_is_undefined():
    assert {result.printed for result in results([], 3).values()} == {NAN}


@pytest.mark.parametrize("shift", [0, -3, 250, 60_000])
def test_joint_counts_of_any_values_equal_loops(shift):
    rng = np.random.default_rng(1)
    prediction, target = (rng.integers(0, 9, (6, 7)) + shift for _ in range(2))
    counts = joint_counts(prediction, target.astype(np.int32))
    wanted: dict[tuple[int, int], int] = {}
    for pair in zip(target.reshape(-1).tolist(), prediction.reshape(-1).tolist(), strict=True):
        wanted[pair] = wanted.get(pair, 0) + 1
    columns = (counts.truth.tolist(), counts.prediction.tolist(), counts.pixels.tolist())
    assert {(t, p): n for t, p, n in zip(*columns, strict=True)} == wanted
    assert len(counts.pixels) == len(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_convention_batch_is_counted_image_by_image(name):
    prediction, target = np.random.default_rng(4).integers(0, 3, (2, 5, 4, 3))
    one_by_one = results(list(zip(prediction, target, strict=True)), 4, names=[name])[name]
    batch = results([(prediction, target)], 4, names=[name])[name]
    assert batch == one_by_one or batch.printed == one_by_one.printed == NAN


def test_convention_batch_of_batches_refused():
    with pytest.raises(InvalidValue, match=r"\(B, H, W\) for a batch, got \(1, 1, 2, 2\)"):
        ConventionScores(3).add(np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 1, 2, 2), np.uint8))


def test_convention_tensors_count_as_arrays():
    prediction, target = next(random_pairs(2, 3))
    got = [ConventionScore("mmseg", 3) for _ in range(2)]
    got[0].add(prediction, target)
    got[1].add(torch.from_numpy(prediction), torch.from_numpy(target))
    assert got[0].result() == got[1].result()


def test_convention_unknown_name_refused_with_the_nearest():
    with pytest.raises(InvalidValue, match=r"no convention 'mmsegg'; did you mean 'mmseg'\?.*nnunet"):
        ConventionScore("mmsegg", 3)


def test_convention_without_classes_refused():
    with pytest.raises(InvalidValue, match="at least 1, got 0"):
        ConventionScores(0)


def test_convention_shapes_differ_refused():
    with pytest.raises(InvalidValue, match=r"shape \(2, 2\), target \(2, 3\)"):
        ConventionScore("mmseg", 3).add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_convention_scores_instead_of_labels_refused():
    with pytest.raises(InvalidValue, match="prediction must hold integer class ids, got float64"):
        ConventionScore("mmseg", 3).add(np.zeros((2, 2)), np.zeros((2, 2), np.uint8))


def test_convention_merge_of_others_refused():
    with pytest.raises(InvalidValue, match=r"cannot add \('mmseg', 4, 255\) to \('mmseg', 3, 255\)"):
        ConventionScore("mmseg", 3).merge(ConventionScore("mmseg", 4))
    with pytest.raises(InvalidValue, match="cannot add monai to mmseg"):
        ConventionScores(3, names=["mmseg"]).merge(ConventionScores(3, names=["monai"]))

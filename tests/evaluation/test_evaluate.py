"""evaluate_network: streaming equals the whole set at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from perpixel.data.dataset import Sample
from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.evaluation import Measures, evaluate_network
from perpixel.inference import PostProcessing, Segmenter
from perpixel.labels import LabelSpace
from perpixel.metrics import Calibration, border_error_counts, confusion_matrix
from perpixel.types import Preprocessing, SegOutput

K = 3
SIZES = [(6, 8), (6, 8), (5, 4), (6, 8), (6, 8), (6, 8)]


class ColorNetwork(nn.Module):
    """The class is the brightest channel of the pixel."""

    num_classes = K
    align_corners = False
    preprocessing = Preprocessing(mean=(0.0,) * K, std=(1.0,) * K)
    margin = 0
    minimum_size = 1

    def __init__(self):
        super().__init__()
        self.batches = []

    def valid_size(self, height, width):
        return height, width

    def forward(self, images):
        self.batches.append(len(images))
        return SegOutput(images)


def make_samples(sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    result = []
    for index, size in enumerate(sizes):
        image = torch.randint(0, 256, (K, *size), generator=generator, dtype=torch.uint8)
        target = torch.randint(0, K, size, generator=generator, dtype=torch.uint8)
        target[0] = 255
        result.append(Sample(image=image, target=target, name=f"image {index}", size=size))
    return result


@pytest.fixture
def segmenter():
    return Segmenter(ColorNetwork(), LabelSpace.numbered(K))


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 6), (2, [2, 1, 2, 1]), (8, [2, 1, 3])])
def test_evaluate_network_any_batch_size_counts_the_whole_set(segmenter, batch_size, batches):
    samples = make_samples()
    evaluation = evaluate_network(segmenter, samples, batch_size=batch_size)
    prediction = np.concatenate([sample.image.numpy().argmax(0).reshape(-1) for sample in samples])
    target = np.concatenate([sample.target.numpy().reshape(-1) for sample in samples])
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(prediction, target, K))
    assert evaluation.confusion.dtype == np.int64
    assert segmenter.network.batches == batches
    assert evaluation.seconds > 0
    assert evaluation.border_errors is None


def test_evaluate_network_scores_hold_the_number_of_images(segmenter):
    evaluation = evaluate_network(segmenter, make_samples())
    result = evaluation.scores(["r", "g", "b"])
    assert result["images"] == 6
    assert [entry["name"] for entry in result["per_class"]] == ["r", "g", "b"]
    assert result["pixels"] == sum(entry.pixels for entry in evaluation.images)
    assert "unpredicted" not in result


def test_evaluate_network_image_scores_are_those_of_each_image_alone(segmenter):
    samples = make_samples()
    whole = evaluate_network(segmenter, samples, batch_size=3)
    for sample, entry in zip(samples, whole.images, strict=True):
        alone = evaluate_network(segmenter, [sample]).scores()
        assert (entry.name, entry.mean_iou, entry.pixel_accuracy, entry.pixels) == (
            sample.name,
            alone["mean_iou"],
            alone["pixel_accuracy"],
            alone["pixels"],
        )


def test_evaluate_network_image_without_valid_pixel_is_undefined_and_changes_nothing(segmenter):
    samples = make_samples()
    empty = Sample(image=samples[0].image, target=torch.full((6, 8), 255, dtype=torch.uint8), name="empty", size=(6, 8))
    evaluation = evaluate_network(segmenter, [*samples, empty])
    np.testing.assert_array_equal(evaluation.confusion, evaluate_network(segmenter, samples).confusion)
    assert math.isnan(evaluation.images[-1].mean_iou)
    assert evaluation.images[-1].pixels == 0


def test_evaluate_network_border_errors_are_summed(segmenter):
    samples = make_samples()
    evaluation = evaluate_network(segmenter, samples, border_width_px=1)
    expected = sum(
        border_error_counts(sample.image.numpy().argmax(0), sample.target.numpy(), K, width_px=1) for sample in samples
    )
    np.testing.assert_array_equal(evaluation.border_errors, expected)
    assert evaluation.border_width_px == 1


def test_evaluate_network_callbacks_see_every_image_in_order(segmenter):
    samples = make_samples()
    seen, progress = [], []
    evaluate_network(
        segmenter,
        samples,
        batch_size=4,
        on_image=lambda sample, prediction: seen.append((sample.name, prediction)),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [name for name, _ in seen] == [sample.name for sample in samples]
    for sample, (_, prediction) in zip(samples, seen, strict=True):
        assert prediction.dtype == np.uint8
        np.testing.assert_array_equal(prediction, sample.image.numpy().argmax(0))
    assert progress == [(i, 6) for i in range(1, 7)]


def test_evaluate_network_images_of_other_depth_are_not_stacked(segmenter):
    samples = make_samples([(4, 4), (4, 4)])
    deep = Sample(image=samples[1].image.int() * 257, target=samples[1].target, name="deep", size=(4, 4))
    np.testing.assert_array_equal(
        evaluate_network(segmenter, [samples[0], deep], batch_size=2).confusion,
        evaluate_network(segmenter, samples, batch_size=2).confusion,
    )


def test_evaluate_network_calibration_is_of_the_probabilities(segmenter):
    samples = make_samples()
    found = evaluate_network(segmenter, samples, measures=Measures(calibration=True), batch_size=2)
    expected = Calibration(K)
    for sample in samples:
        expected.add(torch.softmax(sample.image / 255, dim=0), sample.target)
    assert found.totals.calibration.result()["ece"] == pytest.approx(expected.result()["ece"], abs=1e-6)
    np.testing.assert_array_equal(found.confusion, evaluate_network(segmenter, samples).confusion)


def test_evaluate_network_pixels_below_every_threshold_count_as_wrong(segmenter):
    samples = make_samples([(6, 8)])
    segmenter.postprocessing = PostProcessing(thresholds=dict.fromkeys(segmenter.labels.names, 1.0), fallback="ignore")
    result = evaluate_network(segmenter, samples).scores()
    assert sum(result["unpredicted"]) > 0
    assert result["pixels"] == 40


def test_evaluate_network_no_images_refused(segmenter):
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate_network(segmenter, [])


def test_evaluate_network_image_without_mask_refused(segmenter):
    sample = Sample(image=torch.zeros(K, 2, 2, dtype=torch.uint8), target=None, name="bare", size=(2, 2))
    with pytest.raises(DataError, match="bare: the image has no mask"):
        evaluate_network(segmenter, [sample])


def test_evaluate_network_unknown_label_names_the_image(segmenter):
    samples = make_samples([(2, 2)])
    samples[0].target[1, 1] = 9
    with pytest.raises(InvalidValue, match=r"image 0: target holds 9 on 1 valid pixels \(first at \(1, 1\)"):
        evaluate_network(segmenter, samples)


def test_evaluate_network_batch_size_zero_refused(segmenter):
    with pytest.raises(InvalidValue, match="batch_size must be at least 1, got 0"):
        evaluate_network(segmenter, make_samples(), batch_size=0)


def test_evaluate_scores_that_are_not_finite_name_the_image(segmenter):
    samples = make_samples()

    def broken(images):
        return SegOutput(images * float("nan") if images.shape[-2:] == (5, 4) else images)

    segmenter.network.forward = broken
    with pytest.raises(RunError, match=r"image 2: .* not finite for images of 5 x 4 pixels"):
        evaluate_network(segmenter, samples)

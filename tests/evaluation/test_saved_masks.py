"""evaluate_masks: saved masks against targets, and every way in which they can fail to match."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torch import nn

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.source import Item
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation import evaluate_masks, evaluate_network
from perpixel.inference import Segmenter, predict_files, write_mask
from perpixel.labels import LabelSpace
from perpixel.metrics import confusion_matrix
from perpixel.types import Preprocessing, SegOutput

LABELS = LabelSpace(
    names=("a", "b"),
    colors=((1, 2, 3), (4, 5, 6)),
    stored_to_train={7: 0, 300: 1, 0: 255},
    train_to_stored=(7, 300),
)
TARGET = np.array([[0, 0, 1], [1, 255, 1]], np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)


@pytest.fixture
def folders(tmp_path):
    predictions, targets = tmp_path / "predictions", tmp_path / "targets"
    for name, prediction in (("x", PREDICTION), ("sub/y", np.minimum(TARGET, 1))):
        write_mask(predictions / f"{name}.png", prediction, LABELS)
        write_mask(targets / f"{name}.png", TARGET, LABELS)
    return predictions, targets


def test_evaluate_masks_matching_files_give_the_dataset_confusion(folders):
    progress = []
    evaluation = evaluate_masks(*folders, LABELS, on_progress=lambda *a: progress.append(a))
    expected = confusion_matrix(PREDICTION, TARGET, 2) + confusion_matrix(np.minimum(TARGET, 1), TARGET, 2)
    np.testing.assert_array_equal(evaluation.confusion, expected)
    assert [(entry.name, entry.pixels) for entry in evaluation.images] == [("sub/y", 5), ("x", 5)]
    assert evaluation.images[0].mean_iou == 1
    assert evaluation.scores(LABELS.names)["images"] == 2
    assert progress == [(1, 2), (2, 2)]


def test_evaluate_masks_overlays_beside_masks_are_passed_over(folders):
    Image.new("RGB", (3, 2)).save(folders[0] / "x.jpg")
    assert len(evaluate_masks(*folders, LABELS).images) == 2


def test_evaluate_masks_without_stored_ids_predictions_hold_train_ids(tmp_path):
    labels = LabelSpace(names=("a", "b"), colors=((1, 2, 3), (4, 5, 6)), stored_to_train={5: 0, 6: 1, 7: 1, 0: 255})
    write_mask(tmp_path / "p" / "x.png", PREDICTION, labels)
    (tmp_path / "t").mkdir()
    Image.fromarray(np.array([[5, 5, 6], [7, 0, 6]], np.uint8)).save(tmp_path / "t" / "x.png")
    evaluation = evaluate_masks(tmp_path / "p", tmp_path / "t", labels)
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(PREDICTION, TARGET, 2))


def test_evaluate_masks_train_id_out_of_range_names_file_and_pixel(tmp_path):
    labels = LabelSpace.numbered(2)
    write_mask(tmp_path / "t" / "x.png", TARGET, labels)
    (tmp_path / "p").mkdir()
    Image.fromarray(PREDICTION + np.uint8(1)).save(tmp_path / "p" / "x.png")
    with pytest.raises(DataError, match=r"x\.png: 3 pixels hold ids outside 0\.\.1, the first 2 at row 0, column 1"):
        evaluate_masks(tmp_path / "p", tmp_path / "t", labels)


def test_evaluate_masks_missing_prediction_refused_by_name(folders):
    (folders[0] / "sub" / "y.png").unlink()
    with pytest.raises(DataError, match=r"1 targets have no prediction in .*y\.png.*--missing wrong"):
        evaluate_masks(*folders, LABELS)


def test_evaluate_masks_missing_prediction_counts_as_wrong_when_asked(folders):
    (folders[0] / "sub" / "y.png").unlink()
    evaluation = evaluate_masks(*folders, LABELS, missing="wrong")
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(PREDICTION, TARGET, 2))
    assert evaluation.unpredicted.tolist() == [2, 3]
    result = evaluation.scores()
    assert result["pixels"] == 10
    assert result["pixel_accuracy"] == 3 / 10
    assert evaluation.images[0].pixel_accuracy == 0
    assert evaluation.images[0].pixels == 5


def test_evaluate_masks_extra_prediction_refused_by_name(folders):
    write_mask(folders[0] / "z.png", PREDICTION, LABELS)
    for missing in ("refuse", "wrong"):
        with pytest.raises(DataError, match=r"1 predictions have no target: .*z\.png"):
            evaluate_masks(*folders, LABELS, missing=missing)


def test_evaluate_masks_other_size_refused_by_name_or_wrong(folders):
    write_mask(folders[0] / "x.png", PREDICTION[:, :2], LABELS)
    with pytest.raises(DataError, match=r"1 predictions differ from their targets in size: .*x\.png"):
        evaluate_masks(*folders, LABELS)
    assert evaluate_masks(*folders, LABELS, missing="wrong").unpredicted.tolist() == [2, 3]


def test_evaluate_masks_pixels_predicted_as_ignored_refused_or_wrong(folders):
    write_mask(folders[0] / "x.png", np.array([[255, 0, 1], [1, 255, 1]], np.uint8), LABELS)
    with pytest.raises(DataError, match=r"x\.png: 1 pixels are predicted as ignored where the target is valid"):
        evaluate_masks(*folders, LABELS)
    assert evaluate_masks(*folders, LABELS, missing="wrong").unpredicted.tolist() == [1, 0]


def test_evaluate_masks_unknown_stored_id_names_the_file(folders):
    Image.fromarray(np.full((2, 3), 9, np.uint8)).save(folders[0] / "x.png")
    with pytest.raises(DataError, match=r"predictions/x\.png: ids outside label space 'custom'.*9 on 6 pixels"):
        evaluate_masks(*folders, LABELS)


def test_evaluate_masks_two_files_of_one_name_refused(folders):
    Image.fromarray(TARGET).save(folders[1] / "x.bmp")
    with pytest.raises(DataError, match=r"x\.bmp and .*x\.png share the name 'x'"):
        evaluate_masks(*folders, LABELS)


def test_evaluate_masks_absent_or_empty_folder_refused(folders, tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        evaluate_masks(tmp_path / "nowhere", folders[1], LABELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the folder and its subfolders hold no mask \(\.png"):
        evaluate_masks(folders[0], tmp_path / "empty", LABELS)


def test_evaluate_masks_unknown_rule_refused(folders):
    with pytest.raises(InvalidValue, match="missing is one of refuse, wrong, got 'skip'"):
        evaluate_masks(*folders, LABELS, missing="skip")


def test_evaluate_masks_of_written_predictions_equals_evaluating_the_network(tmp_path):
    labels = LabelSpace(
        names=("r", "g", "b"),
        colors=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
        stored_to_train={10: 0, 20: 1, 30: 2, 0: 255},
        train_to_stored=(10, 20, 30),
    )
    rng = np.random.default_rng(0)
    items = []
    for index, size in enumerate([(6, 8), (5, 3)]):
        image, mask = tmp_path / "images" / f"{index}.png", tmp_path / "targets" / f"{index}.png"
        image.parent.mkdir(exist_ok=True)
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(image)
        Image.fromarray(rng.choice([0, 10, 20, 30], size).astype(np.uint8)).save(mask)
        items.append(Item(name=str(index), image=image, mask=mask))
    segmenter = Segmenter(BrightestChannel(), labels)
    direct = evaluate_network(segmenter, SegmentationDataset(items, labels))
    predict_files(segmenter, [tmp_path / "images"], tmp_path / "out")
    saved = evaluate_masks(tmp_path / "out", tmp_path / "targets", labels)
    np.testing.assert_array_equal(saved.confusion, direct.confusion)
    assert saved.images == direct.images


class BrightestChannel(nn.Module):
    num_classes = 3
    align_corners = False
    preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    margin = 0
    minimum_size = 1

    def valid_size(self, height, width):
        return height, width

    def forward(self, images):
        return SegOutput(images)

"""evaluate_masks: saved masks against targets, and every way in which they can fail to match."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from perpixel.build.score_values import score_values
from perpixel.data.dataset import SegmentationDataset
from perpixel.data.source import Item
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation import Measures, evaluate_masks, evaluate_network
from perpixel.inference import Segmenter, predict_files, write_mask
from perpixel.labels import LabelSpace
from perpixel.metrics import CONVENTIONS, confusion_matrix
from perpixel.types import Preprocessing, SegOutput

LABELS = LabelSpace(
    names=("a", "b"),
    colors=((1, 2, 3), (4, 5, 6)),
    stored_to_train={7: 0, 300: 1, 0: 255},
    train_to_stored=(7, 300),
)
REFERENCE = Path(__file__).parents[1] / "reference" / "scores"
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


def many_pairs(root, images=7, damaged=()):
    """Folders of pairs of random masks of ``LABELS`` in different sizes; some predictions are cut short."""
    rng = np.random.default_rng(0)
    for index in range(images):
        size = (9 + index, 12)
        target = rng.choice([0, 1, 255], size).astype(np.uint8).repeat(3, 1)
        prediction = np.where(rng.random(target.shape) < 0.2, 1, target).astype(np.uint8)
        write_mask(root / "p" / f"{index}.png", np.where(prediction == 255, 0, prediction), LABELS)
        write_mask(root / "t" / f"{index}.png", target, LABELS)
    for index in damaged:
        path = root / "p" / f"{index}.png"
        path.write_bytes(path.read_bytes()[:60])
    return root / "p", root / "t"


EVERYTHING = Measures(boundary=True, trimap_px=(1, 3), border_width_px=1, region_sizes=True, neurons=True)


def test_evaluate_masks_any_number_of_processes_gives_the_same_numbers(tmp_path):
    folders = many_pairs(tmp_path)
    measures = replace(EVERYTHING, conventions=tuple(CONVENTIONS))
    alone = evaluate_masks(*folders, LABELS, measures=measures, workers=1)
    spread = evaluate_masks(*folders, LABELS, measures=measures, workers=3)
    ours, theirs = (score_values(e, LABELS, with_intervals=True, per_image=True) for e in (alone, spread))
    assert ours | {"seconds": 0} == theirs | {"seconds": 0}


def test_evaluate_masks_much_work_takes_all_cores(folders, monkeypatch):
    asked = []
    monkeypatch.setattr("perpixel.evaluation.saved_masks._PIXELS_WORTH_PROCESSES", 40)
    monkeypatch.setattr("perpixel.evaluation.saved_masks.available_cores", lambda: 3)
    monkeypatch.setattr(
        "perpixel.evaluation.saved_masks.map_in_processes",
        lambda reader, images, *, workers: asked.append(workers) or map(reader, images),
    )
    evaluate_masks(*folders, LABELS)
    assert not asked
    evaluate_masks(*folders, LABELS, measures=Measures(boundary=True))
    assert asked == [2]  # no more than images


def test_evaluate_masks_damaged_files_are_named_and_the_others_scored(tmp_path):
    folders = many_pairs(tmp_path, damaged=(2, 5))
    evaluation = evaluate_masks(*folders, LABELS)
    assert [file.file for file in evaluation.unread] == [str(folders[0] / "2.png"), str(folders[0] / "5.png")]
    assert "damaged or cut short" in evaluation.unread[0].reason
    assert evaluation.totals.names == ("0", "1", "3", "4", "6")
    whole = evaluate_masks(*many_pairs(tmp_path / "whole"), LABELS)
    left = whole.totals.counts[[0, 1, 3, 4, 6]].sum(axis=0)
    np.testing.assert_array_equal(evaluation.totals.counts.sum(axis=0), left)


def test_evaluate_masks_damaged_prediction_is_wrong_where_missing_ones_are(tmp_path):
    folders = many_pairs(tmp_path, damaged=(2,))
    evaluation = evaluate_masks(*folders, LABELS, missing="wrong")
    assert len(evaluation.unread) == 1
    assert evaluation.images[2].pixel_accuracy == 0
    assert evaluation.unpredicted.sum() == evaluation.images[2].pixels


def test_evaluate_masks_damaged_target_leaves_the_image_out(tmp_path):
    predictions, targets = many_pairs(tmp_path)
    (targets / "3.png").write_bytes(b"")
    evaluation = evaluate_masks(predictions, targets, LABELS, missing="wrong")
    assert evaluation.unread[0].reason.endswith("3.png: the file is empty")
    assert "3" not in evaluation.totals.names


def test_evaluate_masks_nothing_readable_refused(folders):
    for name in ("x", "sub/y"):
        (folders[0] / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no pair could be read; the first of 2: .*y\.png: not a JPEG"):
        evaluate_masks(*folders, LABELS)


def test_evaluate_masks_several_bad_files_are_counted_in_one_message(folders):
    for name in ("x", "sub/y"):
        Image.fromarray(np.full((2, 3), 9, np.uint8)).save(folders[0] / f"{name}.png")
    with pytest.raises(DataError, match=r"2 predictions hold ids outside .* \(10 pixels\): .*The same in .*x\.png"):
        evaluate_masks(*folders, LABELS)


def test_evaluate_masks_foreign_ids_are_wrong_when_asked(folders):
    Image.fromarray(np.full((2, 3), 9, np.uint8)).save(folders[0] / "x.png")
    assert evaluate_masks(*folders, LABELS, missing="wrong").unpredicted.tolist() == [2, 3]


def test_evaluate_masks_foreign_ids_under_ignored_truth_do_not_matter(folders):
    stored = np.asarray(Image.open(folders[0] / "x.png")).copy()
    stored[1, 1] = 9  # the truth is ignored there
    Image.fromarray(stored).save(folders[0] / "x.png")
    assert evaluate_masks(*folders, LABELS).scores()["pixels"] == 10


def test_evaluate_masks_foreign_ids_in_a_target_are_always_refused(folders):
    Image.fromarray(np.full((2, 3), 9, np.uint8)).save(folders[1] / "x.png")
    for missing in ("refuse", "wrong"):
        with pytest.raises(DataError, match=r"targets/x\.png: ids outside label space 'custom'.*9 on 6 pixels"):
            evaluate_masks(*folders, LABELS, missing=missing)


def test_evaluate_masks_colours_are_refused_with_the_way_out_or_read(tmp_path):
    labels = LabelSpace.load("camvid11")
    target, prediction = np.array([[0, 1, 2, 255]], np.uint8), np.array([[0, 1, 1, 3]], np.uint8)
    for name, train in (("t", target), ("p", prediction)):
        (tmp_path / name).mkdir()
        Image.fromarray(labels.colorize(train)).save(tmp_path / name / "x.png")
    with pytest.raises(DataError, match=r"x\.png: the mask holds colours instead of class ids.*--mask-encoding colors"):
        evaluate_masks(tmp_path / "p", tmp_path / "t", labels)
    evaluation = evaluate_masks(tmp_path / "p", tmp_path / "t", labels, mask_encoding="colors")
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(prediction, target, 11))


def test_evaluate_masks_sixteen_bit_files_with_other_ids_are_refused(folders):
    write_mask(folders[0] / "x.png", PREDICTION, LABELS)
    assert np.asarray(Image.open(folders[0] / "x.png")).dtype != np.uint8  # id 300
    Image.fromarray(np.full((2, 3), 24_001, np.uint16)).save(folders[0] / "x.png")
    with pytest.raises(DataError, match=r"x\.png: ids outside label space.*24001 on 6 pixels"):
        evaluate_masks(*folders, LABELS)
    depth = np.arange(600, dtype=np.uint16).reshape(20, 30)
    for side in folders:
        Image.fromarray(depth).save(side / "x.png")
    with pytest.raises(DataError, match="with 600 different ids is no mask of classes"):
        evaluate_masks(*folders, LABELS)


def test_evaluate_masks_other_palette_is_noted_and_changes_nothing(tmp_path):
    swapped = LabelSpace(names=("a", "b"), colors=((4, 5, 6), (1, 2, 3)), stored_to_train={7: 0, 9: 1, 0: 255},
                         train_to_stored=(7, 9))  # fmt: skip
    labels = replace(swapped, colors=((1, 2, 3), (4, 5, 6)))
    write_mask(tmp_path / "p" / "x.png", PREDICTION, swapped)
    write_mask(tmp_path / "t" / "x.png", TARGET, labels)
    evaluation = evaluate_masks(tmp_path / "p", tmp_path / "t", labels)
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(PREDICTION, TARGET, 2))
    assert len(evaluation.notes) == 1
    assert "1 of 1 predictions carry another palette" in evaluation.notes[0]
    assert "id 7 is (4, 5, 6) there and (1, 2, 3) in the target" in evaluation.notes[0]


def test_evaluate_masks_image_without_valid_pixels_and_absent_class_are_undefined(tmp_path):
    labels = LabelSpace.numbered(3)
    for index, target in enumerate((np.full((3, 4), 255, np.uint8), np.minimum(TARGET, 1))):
        write_mask(tmp_path / "t" / f"{index}.png", target, labels)
        write_mask(tmp_path / "p" / f"{index}.png", np.minimum(target, 1), labels)
    evaluation = evaluate_masks(tmp_path / "p", tmp_path / "t", labels, measures=EVERYTHING)
    values = score_values(evaluation, labels, with_intervals=True, per_image=True)
    assert (values["mean_iou"], values["classes_averaged"]) == (1, 2)
    assert values["per_class"][2]["iou"] is None
    assert values["per_image"][0]["mean_iou"] is None
    assert values["boundary"]["bf_score"] == 1
    assert values["boundary"]["per_class"][2]["bf_score"] is None


def test_evaluate_masks_missing_predictions_have_no_right_boundaries(tmp_path):
    predictions, targets = many_pairs(tmp_path, images=2)
    for path in predictions.iterdir():
        path.unlink()
    write_mask(predictions / "0.png", np.zeros((9, 36), np.uint8), LABELS)
    (predictions / "0.png").rename(predictions / "1.png")  # of another size than its target
    values = score_values(evaluate_masks(predictions, targets, LABELS, missing="wrong", measures=EVERYTHING), LABELS)
    assert values["boundary"]["bf_score"] == values["boundary"]["boundary_iou"] == 0
    assert values["boundary"]["trimap_iou"] == {"1": 0, "3": 0}
    assert (
        sum(row["border_wrong"] + row["interior_wrong"] for row in values["error_split"]["per_class"])
        == (values["pixels"])
    )


def test_evaluate_masks_conventions_take_what_we_refuse(tmp_path):
    arrays = np.load(REFERENCE / "conventions.npz")
    expected = json.loads((REFERENCE / "conventions_expected.json").read_text())["values"]
    case = "E"  # labels outside the classes
    for kind, folder in (("prediction", "p"), ("target", "t")):
        (tmp_path / folder).mkdir()
        for index, labels in enumerate(arrays[f"{case}_{kind}"]):
            Image.fromarray(labels.astype(np.uint8)).save(tmp_path / folder / f"{index}.png")
    space, chosen = LabelSpace.numbered(5), Measures(conventions=tuple(CONVENTIONS))
    with pytest.raises(DataError, match="ids outside"):
        evaluate_masks(tmp_path / "p", tmp_path / "t", space)
    evaluation = evaluate_masks(tmp_path / "p", tmp_path / "t", space, measures=chosen)
    assert "ids outside" in evaluation.refused
    values = score_values(evaluation, space)
    assert "mean_iou" not in values
    assert values["conventions"]["perpixel"]["printed"] == "error"
    assert values["conventions"]["mmseg"]["printed"] == f"{expected['mmseg / HF evaluate'][case]:.2f}"
    assert values["conventions"]["monai"]["printed"] == "error"


def test_evaluate_masks_cityscapes_scores_need_its_ids(folders):
    with pytest.raises(InvalidValue, match=r"Cityscapes' scores need masks of Cityscapes' ids 0\.\.33"):
        evaluate_masks(*folders, LABELS, measures=Measures(cityscapes=True))
    with pytest.raises(InvalidValue, match="instances are for Cityscapes' scores; ask for these too"):
        evaluate_masks(*folders, LABELS, instances_dir=folders[1])


def test_evaluate_masks_cityscapes_files_equal_the_official_evaluator(tmp_path):
    arrays = np.load(REFERENCE / "cityscapes.npz")
    expected = json.loads((REFERENCE / "cityscapes_expected.json").read_text())
    for folder, kind, dtype in (("p", "pred", np.uint8), ("t", "gt", np.uint8), ("i", "instance", np.uint16)):
        (tmp_path / folder).mkdir()
        for index, ids in enumerate(arrays[kind]):
            Image.fromarray(ids.astype(dtype)).save(tmp_path / folder / f"{index}.png")
    evaluation = evaluate_masks(
        tmp_path / "p",
        tmp_path / "t",
        LabelSpace.load("cityscapes"),
        measures=Measures(cityscapes=True),
        instances_dir=tmp_path / "i",
        missing="wrong",
    )
    values = score_values(evaluation, LabelSpace.load("cityscapes"), with_intervals=True)
    for key in ("average_iou", "average_iiou", "average_category_iou", "average_category_iiou"):
        assert values["cityscapes"][key] == pytest.approx(expected[key], abs=1e-9)
        low, high = values["intervals"]["cityscapes"][key]
        assert low <= values["cityscapes"][key] <= high
    assert values["intervals"]["cityscapes"]["average_iou"] == pytest.approx(values["intervals"]["mean_iou"])
    assert values["mean_iou"] == pytest.approx(expected["average_iou"], abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_encoding": "colours"}, "mask_encoding is one of ids, colors, got 'colours'"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_evaluate_masks_unknown_options_refused(folders, options, message):
    with pytest.raises(InvalidValue, match=message):
        evaluate_masks(*folders, LABELS, **options)


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

"""A trained model at work: load, evaluate, predict; saved masks score as the model did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import NAMES, blocks, without_times, write_labels, write_pair

from perpixel.build import Progress, RunResult, choose_measures, evaluate, evaluate_predictions, load, predict
from perpixel.build.scoring import open_scored
from perpixel.errors import CheckpointError, ConfigError, DataError, InvalidValue
from perpixel.inference import Segmenter
from perpixel.labels import LabelSpace
from perpixel.models import create_model

# Load


@pytest.mark.parametrize("name", ["", "best", "last"])
def test_load_takes_a_run_or_an_artifact(trained: RunResult, name: str) -> None:
    segmenter = load(trained.folder / name)
    assert segmenter.labels.names == NAMES
    assert segmenter.provenance["run"] == "small"
    mask = segmenter(blocks(0)[0]).mask
    assert mask.shape == (40, 48)
    assert mask.max() <= 2


def test_load_run_takes_its_best(trained: RunResult) -> None:
    assert load(trained.folder).name == str(trained.folder / "best")


def test_load_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such model\. Give an artifact folder"):
        load(tmp_path / "nowhere")


def test_load_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not an artifact, model\.safetensors and model\.yaml missing"):
        load(tmp_path)


# Evaluate


def test_evaluate_best_gives_the_numbers_of_metrics_json(trained: RunResult, data: Path) -> None:
    seen: list[Progress] = []
    scores = evaluate(trained.folder, data, device="cpu", on_progress=seen.append)
    ours = {key: value for key, value in without_times(scores).items() if key != "model"}
    assert ours.items() <= without_times(trained.scores).items()
    assert scores["model"] == str(trained.folder / "best")
    assert [(p.phase, p.done, p.total) for p in seen] == [("evaluate", n, 3) for n in (1, 2, 3)]


def test_evaluate_every_measure_gives_what_the_run_stored(trained: RunResult, data: Path) -> None:
    measures = choose_measures(boundary=True, trimap=(1, 2, 3, 5, 10, 20), region_sizes=True, calibration=True)
    scores = evaluate(trained.folder, data, device="cpu", measures=measures, intervals=True)
    for key in ("boundary", "region_sizes", "calibration", "intervals"):
        assert scores[key] == trained.scores[key]
    assert 0 <= scores["calibration"]["ece"] <= 1
    assert set(scores["boundary"]) >= {"bf_score", "boundary_iou", "trimap_iou", "per_class"}
    assert len(scores["intervals"]["per_class_iou"]) == 3


def test_evaluate_with_a_crf_scores_other_masks_and_predict_writes_them(
    trained: RunResult, data: Path, tmp_path: Path
) -> None:
    scores = evaluate(trained.folder, data, device="cpu", crf="pydensecrf", border_width_px=None)
    assert scores["confusion"] != trained.scores["confusion"]
    images = sorted((data / "val" / "images").iterdir())
    predict(trained.folder, images, tmp_path / "p", overlays=False, device="cpu", precision="fp32", crf="pydensecrf")
    refined = load(trained.folder, crf="pydensecrf")
    stored = np.asarray(Image.open(tmp_path / "p" / f"{images[0].stem}.png"))
    assert np.array_equal(stored, refined(images[0]).mask)
    assert not np.array_equal(stored, load(trained.folder)(images[0]).mask)


def test_load_unknown_crf_is_refused_with_the_nearest(trained: RunResult) -> None:
    with pytest.raises(InvalidValue, match="no dense CRF 'deeplab_v3'; did you mean 'deeplab_v1'"):
        load(trained.folder, crf="deeplab_v3")


def test_evaluate_other_split_scores_other_images(trained: RunResult, data: Path) -> None:
    scores = evaluate(load(trained.folder), data, split="train", border_width_px=None)
    assert (scores["images"], scores["split"]) == (5, "train")
    assert "error_split" not in scores


def test_evaluate_data_without_splits_is_scored_whole(trained: RunResult, data: Path) -> None:
    scores = evaluate(trained.folder, data / "val", split="val", device="cpu")
    assert (scores["images"], scores["split"]) == (3, "all")
    assert scores["confusion"] == trained.scores["confusion"]


def test_evaluate_unknown_split_offers_the_nearest(trained: RunResult, data: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'trian'; did you mean 'train'\? It has: train, val"):
        evaluate(trained.folder, data, split="trian", device="cpu")


def test_evaluate_other_classes_are_refused_with_both_named(trained: RunResult, data: Path) -> None:
    with pytest.raises(DataError, match=r"11 classes of label space 'camvid11' \(Sky.*the model the 3 of .*wall, door"):
        evaluate(trained.folder, data, labels="camvid11", device="cpu")


def test_evaluate_same_classes_in_another_order_are_refused(trained: RunResult, data: Path, tmp_path: Path) -> None:
    write_labels(tmp_path, names=["door", "wall", "window"])
    with pytest.raises(DataError, match="only the same classes in the same order can be scored"):
        evaluate(trained.folder, data, labels=str(tmp_path / "labels.yaml"), device="cpu")


def test_evaluate_masks_may_be_stored_with_other_ids(trained: RunResult, data: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "data", stored=[10, 20, 30], ignore=[0])
    stored = np.zeros(256, np.uint8)
    stored[:3] = (10, 20, 30)
    for source in (data / "val" / "images").iterdir():
        image = np.asarray(Image.open(source))
        mask = np.asarray(Image.open(data / "val" / "masks" / source.name))
        write_pair(tmp_path / "data" / "val", source.stem, image, stored[mask])
    scores = evaluate(trained.folder, tmp_path / "data", device="cpu")
    assert scores["confusion"] == trained.scores["confusion"]


def test_evaluate_generated_scenes_need_the_folder(trained: RunResult) -> None:
    with pytest.raises(DataError, match="give RUN/scenes as the data"):
        evaluate(trained.folder, "scenes", device="cpu")


# Saved masks


def test_evaluate_predictions_of_a_run_score_as_the_model(trained: RunResult, data: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for row in json.loads((trained.folder / "predictions" / "images.json").read_text()):
        (predictions / f"{row['name']}.png").write_bytes((trained.folder / row["prediction"]).read_bytes())
    scores = evaluate_predictions(predictions, data / "val" / "masks", str(data / "labels.yaml"))
    for key in ("confusion", "mean_iou", "pixel_accuracy", "per_class", "images", "pixels"):
        assert scores[key] == trained.scores[key]


def test_evaluate_predictions_missing_ones_are_refused_or_wrong(trained: RunResult, data: Path, tmp_path: Path) -> None:
    (tmp_path / "v 2.png").write_bytes((trained.folder / "predictions" / "v 2.png").read_bytes())
    labels = str(data / "labels.yaml")
    with pytest.raises(DataError, match="2 targets have no prediction"):
        evaluate_predictions(tmp_path, data / "val" / "masks", labels)
    scores = evaluate_predictions(tmp_path, data / "val" / "masks", labels, missing="wrong")
    assert scores["pixels"] == trained.scores["pixels"]
    right = sum(scores["confusion"][k][k] for k in range(3))
    assert scores["pixel_accuracy"] == pytest.approx(right / scores["pixels"])


def test_evaluate_predictions_against_others_answers_in_words(trained: RunResult, data: Path, tmp_path: Path) -> None:
    ours, others, targets = tmp_path / "ours", tmp_path / "others", tmp_path / "targets"
    for folder in (ours, others, targets):
        folder.mkdir()
    for index in range(7):
        target = np.kron(np.array([[0, 1], [2, index % 3]], np.uint8), np.ones((8, 8), np.uint8))
        for folder, errors in ((ours, 4), (others, 30 + index), (targets, 0)):
            mask = target.copy()
            mask.reshape(-1)[:errors] = 2
            Image.fromarray(mask).save(folder / f"{index}.png")
    scores = evaluate_predictions(ours, targets, 3, against=others, intervals=True, per_image=True)
    words = scores["comparison"]["tests"][0]["words"]
    assert "points of mean IoU is more than what chance does between these 7 images" in words
    assert scores["comparison"]["mean_iou"] < scores["mean_iou"]
    assert len(scores["per_image"]) == len(scores["comparison"]["images"]) == 7
    low, high = scores["intervals"]["mean_iou"]
    assert low <= scores["mean_iou"] <= high


def test_evaluate_predictions_unknown_labels_offer_the_nearest(trained: RunResult, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'camvid(11|32)'"):
        evaluate_predictions(trained.folder / "predictions", data / "val" / "masks", "camvid")


# Predict


def test_predict_takes_sizes_and_modes_as_they_come(trained: RunResult, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    (inputs / "deep").mkdir(parents=True)
    rgb = Image.fromarray(blocks(0, (33, 70))[0])
    rgb.save(inputs / "rgb.jpg")
    rgb.convert("L").save(inputs / "grey.png")
    rgb.convert("RGBA").save(inputs / "alpha.png")
    rgb.convert("P").save(inputs / "palette.png")
    Image.fromarray(np.full((20, 31), 40_000, np.uint16)).save(inputs / "deep" / "sixteen.png")
    rgb.resize((1, 1)).save(inputs / "one.bmp")
    out = tmp_path / "out"
    report = predict(trained.folder, [inputs], out, device="cpu")
    assert (report.images, report.failures) == (6, ())
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    sizes = {line["mask"]: (line["height"], line["width"]) for line in lines}
    assert sizes == dict.fromkeys(("rgb.png", "grey.png", "alpha.png", "palette.png"), (33, 70)) | {
        "deep/sixteen.png": (20, 31),
        "one.png": (1, 1),
    }
    for name, (height, width) in sizes.items():
        with Image.open(out / name) as mask:
            assert (mask.mode, mask.size) == ("P", (width, height))
            assert np.asarray(mask).max() <= 2
    assert all((out / line["overlay"]).is_file() for line in lines)


def test_predict_equals_load_on_one_file(trained: RunResult, data: Path, tmp_path: Path) -> None:
    photo = data / "val" / "images" / "v 0.png"
    segmenter = load(trained.folder)
    predict(segmenter, [photo], tmp_path / "out", overlays=False)
    with Image.open(tmp_path / "out" / "v 0.png") as mask:
        assert np.array_equal(np.asarray(mask), segmenter(photo).mask)
    with Image.open(trained.folder / "predictions" / "v 0.png") as mask:
        assert np.array_equal(np.asarray(mask), segmenter(photo).mask)
    assert not (tmp_path / "out" / "overlays").exists()


def test_predict_one_bad_file_does_not_stop_the_others(trained: RunResult, data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"1 of 2 images could not be predicted; the other 1 are written") as caught:
        predict(trained.folder, [bad, data / "val" / "images" / "v 1.png"], tmp_path / "out", device="cpu")
    assert str(bad) in str(caught.value)
    assert (tmp_path / "out" / "v 1.png").is_file()


def test_load_unknown_device_is_refused_with_the_known_ones(trained: RunResult) -> None:
    with pytest.raises(InvalidValue, match="no device 'gpu'; known: auto, cpu, cuda"):
        load(trained.folder, device="gpu")


def test_open_scored_reads_train_ids_as_such_whatever_labels_are_asked_for(tmp_path: Path) -> None:
    for part, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
        path = tmp_path / part / "val" / "lindau" / f"lindau_000000_000019_{ending}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 6), 7, np.uint8)).save(path)
    network = create_model("fcn", num_classes=19, backbone="test_resnet")
    dataset, _ = open_scored(
        Segmenter(network, LabelSpace.load("cityscapes")),
        f"cityscapes:{tmp_path}",
        split="val",
        labels="cityscapes",
        mask_encoding=None,
    )
    target = dataset[0].target
    assert target is not None
    assert set(target.unique().tolist()) == {7}  # train id 7, a traffic sign; as a label id it would be road, 0

"""train(): what a run leaves behind, and that it can be repeated, fine-tuned, and told what to do otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import (
    NAMES,
    blocks,
    decisions,
    events,
    same_weights,
    small_config,
    stem,
    weights,
    without_times,
    write_labels,
    write_pair,
)

from perpixel.build import RunResult, evaluate, train
from perpixel.config import RunConfig, apply_overrides, load_config
from perpixel.engine.checkpoints import load_checkpoint
from perpixel.errors import CheckpointError, ConfigError, DataError, InvalidValue, RunError
from perpixel.labels import LabelSpace
from perpixel.weights import load_artifact

SCORES = {
    "pixel_accuracy",
    "mean_accuracy",
    "mean_iou",
    "frequency_weighted_iou",
    "mean_dice",
    "classes_averaged",
    "images",
    "pixels",
    "confusion",
    "per_class",
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# The run folder


def test_train_run_folder_holds_what_the_architecture_page_says(trained: RunResult) -> None:
    run = trained.folder
    assert names(run) == {
        "config.yaml",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "metrics.json",
        "checkpoints",
        "best",
        "last",
        "predictions",
        "report.html",
    }
    assert names(run / "checkpoints") == {"step-3", "step-4"}
    assert names(run / "best") == names(run / "last") == {"model.safetensors", "model.yaml"}
    assert names(run / "predictions") == {"v 0.png", "v 1.png", "v 2.png", "images.json", "counts.npz"}


def test_train_result_says_what_metrics_json_holds(trained: RunResult) -> None:
    stored = json.loads((trained.folder / "metrics.json").read_text())
    assert stored == trained.scores
    assert (trained.steps, trained.interrupted) == (4, False)
    assert trained.seconds > 0


def test_train_metrics_json_has_the_agreed_keys(trained: RunResult) -> None:
    scores = trained.scores
    measures = {"boundary", "region_sizes", "calibration", "intervals"}
    assert set(scores) == SCORES | measures | {"error_split", "seconds", "split", "model"}
    assert (scores["split"], scores["model"], scores["images"]) == ("val", "dfn", 3)
    assert scores["pixels"] == sum(map(sum, scores["confusion"])) == 2 * 39 * 48 + 42 * 48
    assert [list(entry) for entry in scores["per_class"]] == [
        ["name", "iou", "accuracy", "precision", "dice", "pixels"]
    ] * 3
    assert [entry["name"] for entry in scores["per_class"]] == list(NAMES)
    split = scores["error_split"]
    assert split["width_px"] == 5
    wrong = sum(entry["border_wrong"] + entry["interior_wrong"] for entry in split["per_class"])
    valid = sum(entry["border_pixels"] + entry["interior_pixels"] for entry in split["per_class"])
    assert valid == scores["pixels"]
    assert 1 - wrong / valid == pytest.approx(scores["pixel_accuracy"])


def test_train_data_json_describes_both_splits(trained: RunResult) -> None:
    described = json.loads((trained.folder / "data.json").read_text())
    assert LabelSpace.from_dict(described["labels"]).names == NAMES
    assert set(described["splits"]) == {"train", "val"}
    split = described["splits"]["train"]
    assert (split["images"], split["ignored_pixels"], split["sizes"]) == (5, 5 * 48, {"40x48": 5})
    assert sum(split["pixels_per_class"]) == 5 * 39 * 48
    assert described["splits"]["val"]["sizes"] == {"40x48": 2, "43x48": 1}
    assert len(described["fingerprint"]) == 64


def test_train_environment_json_has_start_and_end(trained: RunResult) -> None:
    environment = json.loads((trained.folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["device"] == "cpu"
    assert environment["start"] <= environment["end"]


def test_train_decisions_are_recorded_with_reasons(trained: RunResult) -> None:
    decided = decisions(trained.folder)
    assert decided["device"].startswith("cpu: asked for")
    assert decided["precision"] == "fp32: asked for"
    assert "label space" in decided["labels"]
    assert decided["loading processes"] == "0: asked for"
    assert decided["start"] == "scratch: random weights"
    assert decided["length"] == "4 steps: 1.6 epochs of 5 images"
    assert decided["evaluation"] == "every 2 steps: asked for"


def test_train_metrics_jsonl_holds_the_events_in_order(trained: RunResult) -> None:
    lines = events(trained.folder)
    assert [line["step"] for line in lines if line["event"] == "evaluation"] == [2, 4]
    assert [line["step"] for line in lines if line["event"] == "checkpoint"] == [1, 2, 3, 4]
    train_event = next(line for line in lines if line["event"] == "train")
    assert set(train_event) == {"event", "stage", "step", "lr", "values", "seconds"}
    parts = {name: value for name, value in train_event["values"].items() if name != "total"}
    assert {"main", "deep0", "border0"} <= set(parts)
    assert train_event["values"]["total"] == pytest.approx(sum(parts.values()), rel=1e-5)
    assert set(train_event["seconds"]) == {"data", "step", "evaluation"}
    evaluation = next(line for line in lines if line["event"] == "evaluation")
    assert evaluation["split"] == "val"
    assert len(evaluation["per_class_iou"]) == 3
    assert lines[-1]["event"] == "end"


def test_train_predictions_are_palette_masks_of_the_image_size(trained: RunResult, data: Path) -> None:
    index = json.loads((trained.folder / "predictions" / "images.json").read_text())
    assert [row["name"] for row in index] == ["v 0", "v 1", "v 2"]
    for row in index:
        assert set(row) == {"name", "image", "target", "prediction", "mean_iou", "pixel_accuracy"}
        with Image.open(trained.folder / row["prediction"]) as mask, Image.open(row["image"]) as image:
            assert mask.mode == "P"
            assert mask.size == image.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
            assert mask.getpalette()[:9] == [200, 60, 60, 60, 200, 60, 60, 60, 200]
        assert Path(row["target"]).is_relative_to(data.resolve())


def test_train_report_is_one_file_with_the_score(trained: RunResult) -> None:
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    assert f"{100 * trained.scores['mean_iou']:.1f}" in page
    assert "window" in page
    assert 'src="http' not in page


def test_train_artifact_knows_its_origin(trained: RunResult) -> None:
    artifact = load_artifact(trained.folder / "best")
    described = json.loads((trained.folder / "data.json").read_text())
    assert artifact.labels.names == NAMES
    assert artifact.provenance["run"] == "small"
    assert artifact.provenance["data"] == described["fingerprint"]
    assert artifact.provenance["steps"] in (2, 4)
    assert "mean_iou" in artifact.provenance["scores"]


# Repetition


@pytest.mark.usefixtures("no_report")
def test_train_again_from_config_yaml_gives_the_same_weights(trained: RunResult, data: Path, tmp_path: Path) -> None:
    reloaded = load_config(trained.folder / "config.yaml")
    assert reloaded == small_config(data)
    seen: list[dict[str, Any]] = []
    again = train(reloaded, out=tmp_path / "again", on_event=seen.append)
    assert same_weights(weights(again.folder), weights(trained.folder))
    assert without_times(again.scores) == without_times(trained.scores)
    assert seen == events(again.folder)


@pytest.mark.usefixtures("no_report")
def test_train_other_seed_gives_other_weights(trained: RunResult, data: Path, tmp_path: Path) -> None:
    other = train(small_config(data, seed=4), out=tmp_path / "run")
    assert not same_weights(weights(other.folder), weights(trained.folder))


def test_train_existing_run_is_refused_and_stays(trained: RunResult, data: Path) -> None:
    before = (trained.folder / "metrics.json").read_bytes()
    with pytest.raises(RunError, match=r"small is not empty; .*resume.*overwrite.*another"):
        train(small_config(data), out=trained.folder)
    assert (trained.folder / "metrics.json").read_bytes() == before


@pytest.mark.usefixtures("no_report")
def test_train_overwrite_replaces_a_run_and_leaves_other_files(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    for name in ("config.yaml", "metrics.json", "notes.txt", "stages/old"):
        (run / name).write_text("old")
    result = train(small_config(data, steps=1), out=run, overwrite=True)
    assert load_config(run / "config.yaml").stages[0].steps == 1
    assert json.loads((run / "metrics.json").read_text()) == result.scores
    assert (run / "notes.txt").read_text() == "old"
    assert not (run / "stages").exists()


def test_train_overwrite_refuses_a_folder_that_is_no_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="does not look like a run folder"):
        train(small_config(data), out=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


# What can be chosen


@pytest.mark.usefixtures("no_report")
def test_train_class_weights_are_computed_said_and_used(trained: RunResult, data: Path, tmp_path: Path) -> None:
    result = train(small_config(data, class_weights="median_frequency"), out=tmp_path / "run")
    decided = decisions(result.folder)["class weights"]
    assert all(name in decided for name in NAMES)
    assert "median_frequency over the pixels of the training split" in decided
    assert not same_weights(weights(result.folder), weights(trained.folder))


@pytest.mark.usefixtures("no_report")
def test_train_equal_class_weights_change_nothing(trained: RunResult, data: Path, tmp_path: Path) -> None:
    equal = train(small_config(data, class_weights=(1.0, 1.0, 1.0)), out=tmp_path / "equal")
    for key, value in weights(trained.folder).items():
        torch.testing.assert_close(weights(equal.folder)[key], value, rtol=1e-4, atol=1e-5)


def test_train_class_weights_of_another_length_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_weights holds 2 numbers, the data has 3 classes: wall, door, window"):
        train(small_config(data, class_weights=(1.0, 2.0)), out=tmp_path / "run")


@pytest.mark.usefixtures("no_report")
def test_train_ema_delivers_the_running_mean(data: Path, tmp_path: Path) -> None:
    result = train(small_config(data, ema_decay=0.9), out=tmp_path / "run")
    state = load_checkpoint(result.folder / "checkpoints" / "step-4")
    delivered = weights(result.folder)
    key = stem(delivered)
    assert not torch.equal(state["tensors"][f"network/{key}"], delivered[key])
    assert state["ema"] is not None


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("wanted", "written"), [(False, 0), (1, 1), (2, 2)])
def test_train_save_predictions_limits_the_masks(data: Path, tmp_path: Path, wanted: bool | int, written: int) -> None:
    config = small_config(data, steps=1, evaluation={"save_predictions": wanted})
    folder = train(config, out=tmp_path / "run").folder / "predictions"
    assert len(list(folder.glob("*.png"))) == written
    assert len(json.loads((folder / "images.json").read_text())) == written


@pytest.mark.usefixtures("no_report")
def test_train_scores_and_keeps_the_best_weights_not_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = iter([0.9, 0.1])
    monkeypatch.setattr("perpixel.build.run_job.RunJob.evaluate", lambda *_: {"mean_iou": next(falling)})
    result = train(small_config(data, optimizer={"lr": 0.1}), out=tmp_path / "run")
    assert load_artifact(result.folder / "best").provenance["steps"] == 2
    assert load_artifact(result.folder / "last").provenance["steps"] == 4
    best, last = (evaluate(result.folder / name, data, device="cpu")["confusion"] for name in ("best", "last"))
    assert result.scores["confusion"] == best != last


@pytest.mark.usefixtures("no_report")
def test_train_test_split_is_scored_beside_val(data: Path, tmp_path: Path) -> None:
    config = small_config(data, steps=1, data={"test_split": "train"}, evaluation={"batch_size": 2})
    scores = train(config, out=tmp_path / "run").scores
    assert (scores["images"], scores["test"]["images"], scores["test"]["split"]) == (3, 5, "train")
    assert set(scores["test"]) >= SCORES


@pytest.mark.usefixtures("no_report")
def test_train_without_border_width_has_no_error_split(data: Path, tmp_path: Path) -> None:
    config = small_config(data, steps=1, evaluation={"border_width_px": None})
    assert "error_split" not in train(config, out=tmp_path / "run").scores


@pytest.mark.usefixtures("no_report")
def test_train_own_terms_replace_the_published_ones(data: Path, tmp_path: Path) -> None:
    terms = [{"name": "pixels", "loss": "focal", "options": {"gamma": 1.0}}]
    result = train(small_config(data, steps=1, terms=terms), out=tmp_path / "run")
    assert set(events(result.folder, "train")[-1]["values"]) == {"pixels", "total"}


def test_train_without_data_names_the_ways_to_give_it(tmp_path: Path) -> None:
    config = small_config("x", data={"source": None})
    with pytest.raises(ConfigError, match=r"no data: give --data .* data.source=scenes"):
        train(config, out=tmp_path / "run")


def test_train_stage_with_other_data_is_refused(data: Path, tmp_path: Path) -> None:
    config = apply_overrides(small_config(data), ["stages.0.data={flip: 0.0, limit: 1}"])
    with pytest.raises(ConfigError, match=r"stages\.0\.data\.limit = 1: .* set data\.limit instead"):
        train(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_train_on_a_gpu_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="device 'cuda' was asked for and PyTorch sees no GPU"):
        train(small_config(data, device="cuda"), out=tmp_path / "run")


def test_train_unknown_split_offers_the_nearest(data: Path, tmp_path: Path) -> None:
    config = small_config(data, data={"val_split": "vall"})
    with pytest.raises(DataError, match=r"no split 'vall'; did you mean 'val'\? It has: train, val"):
        train(config, out=tmp_path / "run")


# Undivided folders of {0, 255} masks


def binary_config(folder: Path, **changes: Any) -> RunConfig:
    place = {"source": None, "images": str(folder / "images"), "masks": str(folder / "masks")}
    return small_config(folder, data={**place, **changes.pop("data", {})}, **changes)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six grey images with masks of 0 and 255."""
    folder = tmp_path_factory.mktemp("cells")
    for number in range(6):
        image, mask = blocks(number)
        write_pair(folder, f"c{number}", image[..., 0], np.where(mask == 1, 255, 0).astype(np.uint8))
    return folder


@pytest.mark.usefixtures("no_report")
def test_train_two_folders_makes_two_classes_and_a_stored_split(binary: Path, tmp_path: Path) -> None:
    result = train(binary_config(binary), out=tmp_path / "run")
    decided = decisions(result.folder)
    assert decided["labels"].startswith("2 classes: masks hold only 0 and 255: two classes, background (0)")
    assert decided["split"].startswith("5 train, 1 val: the data has none: made with seed 0")
    split = json.loads((result.folder / "split.json").read_text())
    assert sorted(split["train"] + split["val"]) == [f"c{i}" for i in range(6)]
    assert result.scores["images"] == len(split["val"])
    with Image.open(next((result.folder / "predictions").glob("*.png"))) as mask:
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_train_255_outside_given_labels_is_refused(binary: Path, tmp_path: Path) -> None:
    space = tmp_path / "labels.yaml"
    space.write_text("names: [a, b]\nignore: []\n")
    with pytest.raises(DataError, match=r"masks/c0\.png: ids outside label space 'labels'.*255 on .* pixels"):
        train(binary_config(binary, labels=str(space)), out=tmp_path / "run")


# Fine-tuning


@pytest.mark.usefixtures("no_report")
def test_train_source_takes_classes_by_name_and_adapts_channels(trained: RunResult, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    write_labels(folder, names=["roof", "window", "wall"], colors=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            image, mask = blocks(number)
            write_pair(folder / split, f"{number}", image[..., 0], mask)
    config = small_config(folder, steps=1, model={"backbone": {"in_channels": 1}}, frozen=("backbone",))
    result = train(config, out=tmp_path / "run", source=trained.folder)
    said = " ".join(decisions(result.folder).values())
    assert "mean over 3 image channels, repeated 1 times and scaled" in said
    assert "matched by class name for 2 classes (window, wall)" in said
    assert load_config(result.folder / "config.yaml").stages[0].start == str(trained.folder)
    old, new = weights(trained.folder, "best"), weights(result.folder)
    torch.testing.assert_close(new[stem(old)], old[stem(old)].mean(1, keepdim=True) * 3)
    assert load_artifact(result.folder / "best").labels.names == ("roof", "window", "wall")


@pytest.mark.usefixtures("no_report")
def test_train_source_of_the_same_classes_takes_every_weight(trained: RunResult, data: Path, tmp_path: Path) -> None:
    config = small_config(data, steps=1, optimizer={"lr": 1e-12, "weight_decay": 0.0})
    result = train(config, out=tmp_path / "run", source=trained.folder / "last")
    before, after = weights(trained.folder), weights(result.folder)
    for key, value in before.items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)


def test_train_source_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.0\.start.*no such artifact or weight file"):
        train(small_config(data), out=tmp_path / "run", source=tmp_path / "nowhere")


def test_train_start_from_a_damaged_file_is_refused(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        train(small_config(data, start=str(file)), out=tmp_path / "run")


@pytest.mark.usefixtures("no_report")
def test_train_limit_takes_the_first_images(data: Path, tmp_path: Path) -> None:
    result = train(small_config(data, steps=1, data={"limit": 2}), out=tmp_path / "run")
    described = json.loads((result.folder / "data.json").read_text())["splits"]
    assert {split: values["images"] for split, values in described.items()} == {"train": 2, "val": 2}


# Learning


@pytest.mark.usefixtures("no_report")
def test_train_overfits_two_images(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_labels(data)
    for number in range(2):
        write_pair(data / "train", f"{number}", *blocks(number, (64, 64)))
    config = small_config(
        data,
        steps=60,
        data={"val_split": "train", "crop_size": (64, 64), "flip": 0.0},
        model={"options": {"width": 16}},
        optimizer={"name": "adamw", "lr": 5e-3},
        evaluation={"every": 60},
        checkpoint_every=60,
    )
    result = train(config, out=tmp_path / "run")
    assert result.scores["pixel_accuracy"] > 0.95


def test_train_with_tensorboard_writes_its_curves(data: Path, tmp_path: Path) -> None:
    config = small_config(data).model_copy(update={"tensorboard": True})
    train(config, out=tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))

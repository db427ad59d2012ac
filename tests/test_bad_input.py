"""Bad input, as a user meets it: a clear message that names file, key, value and way out, and nothing is lost.

One section per item of the list of what goes wrong in practice. What can be worked with is worked with, and said.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from perpixel.build import RunResult, predict, train
from perpixel.cli import main
from perpixel.config import (
    BackboneChoice,
    DataChoice,
    EvaluationChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    Stage,
    dump_config,
    load_config,
    variant,
)
from perpixel.engine.checkpoints import load_checkpoint
from perpixel.errors import CheckpointError, DataError, PerpixelError, RunError

Picture = NDArray[Any]
ALONE = {"batch_size": 1, "crop_size": (40, 48)}
LABELS: dict[str, Any] = {"names": ["left", "right"], "colors": [[200, 60, 60], [60, 60, 200]]}


# A data set that is right until a test spoils it


def picture(seed: int, height: int = 40, width: int = 48) -> tuple[Picture, Picture]:
    """A noisy picture (H, W, 3) of two halves and its mask."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    noise = np.random.default_rng(seed).integers(-20, 21, (height, width, 1))
    return (np.array(LABELS["colors"])[mask] + noise).clip(0, 255).astype(np.uint8), mask


def put(file: Path, pixels: Picture, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images to train on and one to validate, of two classes."""
    folder = tmp_path / "data"
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            image, mask = picture(number)
            put(folder / split / "images" / f"{split}{number}.png", image)
            put(folder / split / "masks" / f"{split}{number}.png", mask)
    (folder / "labels.yaml").write_text(yaml.safe_dump(LABELS))
    return folder


def config_of(folder: Path, /, **changes: Any) -> RunConfig:
    base = RunConfig(
        data=DataChoice(source=str(folder), crop_size=(32, 32), batch_size=2, workers=0),
        stages=(
            Stage(
                model=ModelChoice(
                    name="dfn",
                    backbone=BackboneChoice(name="test_resnet"),
                    options={"width": 8, "border_width": 4, "head_expansion": 2},
                ),
                optimizer=OptimizerChoice(name="sgd", lr=0.01),
                steps=4,
            ),
        ),
        evaluation=EvaluationChoice(every=4),
        checkpoint_every=1,
        device="cpu",
        precision="fp32",
        threads=torch.get_num_threads(),
    )
    return variant(base, **changes) if changes else base


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.build.run_job.write_report", lambda run: run)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command line that must be refused as the caller's mistake; returns the message."""
    monkeypatch.chdir(tmp_path)

    def run(*tokens: object) -> str:
        capsys.readouterr()
        code = main([str(token) for token in tokens])
        message = capsys.readouterr().err
        assert code == 2, message
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    return run


@pytest.fixture
def refused_training(refused: Callable[..., str], data: Path, tmp_path: Path) -> Callable[..., str]:
    """Trains on the data set by the command line, which must refuse it; returns the message."""

    def run(*overrides: str, **changes: Any) -> str:
        file = tmp_path / "run.yaml"
        file.write_text(dump_config(config_of(data, **changes)), encoding="utf-8")
        return refused("train", file, "--out", tmp_path / "run", *overrides)

    return run


def assert_holds(message: str, *parts: object) -> None:
    for part in parts:
        assert str(part) in message


def warnings_of(result: RunResult) -> str:
    lines = (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return "\n".join(event["message"] for event in map(json.loads, lines) if event["event"] == "warning")


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


# Missing, unreadable and unfitting masks


def test_missing_mask_names_image_and_folder(data: Path, refused_training: Callable[..., str]) -> None:
    (data / "train" / "masks" / "train1.png").unlink()
    message = refused_training()
    assert_holds(
        message, "1 of 3 images", data / "train" / "images", data / "train" / "masks", "train1.png", "Add the masks"
    )


def test_unreadable_mask_names_the_file(data: Path, refused_training: Callable[..., str]) -> None:
    bad = data / "train" / "masks" / "train1.png"
    bad.write_bytes(b"not a picture")
    assert_holds(refused_training(), bad, "not a JPEG, PNG, WEBP, TIFF or BMP file", "not a pi")


def test_truncated_mask_names_the_file(data: Path, refused_training: Callable[..., str]) -> None:
    bad = data / "train" / "masks" / "train1.png"
    content = put(bad, np.random.default_rng(0).integers(0, 2, (40, 48), dtype=np.uint8)).read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    assert_holds(refused_training(), bad, "damaged or cut short")


def test_mask_of_another_size_names_both_files_and_sizes(data: Path, refused_training: Callable[..., str]) -> None:
    bad = put(data / "val" / "masks" / "val0.png", picture(0, 40, 47)[1])
    message = refused_training()
    assert_holds(message, bad, "40 x 47", data / "val" / "images" / "val0.png", "40 x 48", "nearest neighbour")


def test_jpeg_mask_is_refused_because_it_blurs_ids(data: Path, refused_training: Callable[..., str]) -> None:
    (data / "train" / "masks" / "train1.png").unlink()
    bad = put(data / "train" / "masks" / "train1.jpg", picture(1)[1])
    assert_holds(refused_training(), bad, "a JPEG file cannot be a mask", "PNG")


# Photos that are turned by EXIF


def test_exif_rotated_photo_turns_image_and_mask_alike_and_says_so(data: Path, tmp_path: Path) -> None:
    image, mask = picture(9, 40, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    put(data / "train" / "images" / "turned.jpg", image, exif=exif.tobytes())
    put(data / "train" / "masks" / "turned.png", mask)
    result = train(config_of(data, steps=1), out=tmp_path / "run")
    said = warnings_of(result)
    assert_holds(
        said, "1 images are turned by EXIF orientation: turned", "masks without EXIF were turned like their images"
    )
    sizes = json.loads((tmp_path / "run" / "data.json").read_text())["splits"]["train"]["sizes"]
    assert sizes == {"40x48": 3, "64x40": 1}


# Damaged and hostile images


def test_truncated_jpeg_names_the_file_and_keeps_the_checkpoint(data: Path, tmp_path: Path) -> None:
    bad = data / "train" / "images" / "train1.jpg"
    (data / "train" / "images" / "train1.png").unlink()
    content = put(bad, np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)).read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"train1\.jpg: cannot be read as an image, damaged or cut short"):
        train(config_of(data, data=ALONE), out=tmp_path / "run")
    put(bad, picture(1)[0])
    result = train(load_config(tmp_path / "run" / "config.yaml"), resume=tmp_path / "run")
    assert result.steps == 4
    assert "the content of some files of the data" in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_header_of_30000_by_30000_is_refused_before_decoding(
    data: Path, refused_training: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = data / "train" / "images" / "train1.png"
    bad.write_bytes(png_header(30_000, 30_000))
    decoded: list[Path] = []
    monkeypatch.setattr("perpixel.data.dataset.read_image", lambda path, **_: decoded.append(path))
    message = refused_training()
    assert_holds(message, bad, "30000 x 30000 = 900000000 pixels", "nothing was decoded", "max_pixels")
    assert decoded == []


# Ids and colours that are no classes


def test_unknown_id_names_file_value_pixel_and_count(data: Path, refused_training: Callable[..., str]) -> None:
    mask = picture(1)[1]
    mask[7, 3:8] = 9
    bad = put(data / "train" / "masks" / "train1.png", mask)
    message = refused_training()
    assert_holds(
        message, bad, "9 on 5 pixels (first at row 7, column 3)", "2 classes", "give a label file that maps these"
    )


def test_rgb_masks_list_their_colours_and_offer_a_mapping(data: Path, refused_training: Callable[..., str]) -> None:
    bad = put(data / "train" / "masks" / "train0.png", np.array(LABELS["colors"], np.uint8)[picture(0)[1]])
    message = refused_training()
    assert_holds(
        message, bad, "(60, 60, 200) on 960 pixels", "(200, 60, 60) on 960 pixels", "data.mask_encoding=colors"
    )


def test_rgb_masks_with_the_offered_mapping_train(data: Path, tmp_path: Path) -> None:
    for file in data.glob("*/masks/*.png"):
        put(file, np.array(LABELS["colors"], np.uint8)[np.asarray(Image.open(file))])
    config = config_of(data, steps=1, data={"mask_encoding": "colors"})
    result = train(config, out=tmp_path / "run")
    assert result.scores["pixels"] == 40 * 48


def test_unknown_colour_names_file_and_colour(data: Path, refused_training: Callable[..., str]) -> None:
    for file in data.glob("*/masks/*.png"):
        put(file, np.array([[200, 60, 60], [1, 2, 3]], np.uint8)[np.asarray(Image.open(file))])
    message = refused_training("data.mask_encoding=colors")
    assert_holds(message, data / "train" / "masks", "(1, 2, 3) on 960 pixels", "ignore_color")


def test_16_bit_masks_without_labels_ask_for_a_label_file(data: Path, refused: Callable[..., str]) -> None:
    for file in data.glob("train/masks/*.png"):
        put(file, np.asarray(Image.open(file)).astype(np.uint16) * 1000)
    (data / "labels.yaml").unlink()
    message = refused("train", data / "train" / "images", data / "train" / "masks", "--out", data / "run")
    assert_holds(message, "2 different ids (0, 1000)", "--labels", data / "train" / "masks")


def test_16_bit_masks_with_a_label_file_train_and_are_written_back(data: Path, tmp_path: Path) -> None:
    for file in data.glob("*/masks/*.png"):
        put(file, np.asarray(Image.open(file)).astype(np.uint16) * 1000)
    (data / "labels.yaml").write_text(yaml.safe_dump({**LABELS, "stored": [0, 1000]}))
    result = train(config_of(data, steps=1), out=tmp_path / "run")
    written = np.asarray(Image.open(result.folder / "predictions" / "val0.png"))
    assert set(np.unique(written).tolist()) <= {0, 1000}


# Classes and pixels that are not there


def test_class_without_training_pixels_is_refused_with_the_ways_out(
    data: Path, refused_training: Callable[..., str]
) -> None:
    for file in data.glob("train/masks/*.png"):
        put(file, np.zeros((40, 48), np.uint8))
    message = refused_training()
    assert_holds(
        message, "split 'train' has no pixel of class right", "Add such images", "data.allow_absent_classes=true"
    )


def test_class_without_training_pixels_can_be_allowed_and_is_said(data: Path, tmp_path: Path) -> None:
    for file in data.glob("train/masks/*.png"):
        put(file, np.zeros((40, 48), np.uint8))
    result = train(config_of(data, steps=1, data={"allow_absent_classes": True}), out=tmp_path / "run")
    assert_holds(warnings_of(result), "split 'train' has no pixel of 1 classes: right")


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_pixel_ignored_is_refused(data: Path, refused_training: Callable[..., str], split: str) -> None:
    for file in data.glob(f"{split}/masks/*.png"):
        put(file, np.full((40, 48), 255, np.uint8))
    message = refused_training()
    assert_holds(message, f"split '{split}': every pixel of its", "Stored ids [255] are ignored", "--labels")


def test_one_image_with_every_pixel_ignored_trains_and_is_said(data: Path, tmp_path: Path) -> None:
    put(data / "train" / "masks" / "train1.png", np.full((40, 48), 255, np.uint8))
    result = train(config_of(data, data=ALONE), out=tmp_path / "run")
    assert_holds(warnings_of(result), "split 'train': 1 masks ignore every pixel: train1")
    state = load_checkpoint(result.folder / "checkpoints" / "step-4")
    assert all(bool(torch.isfinite(value).all()) for value in state["tensors"].values())


# Sizes and modes that must work


def test_crop_larger_than_any_image_trains_on_padding(data: Path, tmp_path: Path) -> None:
    result = train(config_of(data, steps=1, data={"crop_size": (96, 128)}), out=tmp_path / "run")
    assert result.scores["pixels"] == 40 * 48


def test_batch_of_one_with_pooled_batch_norm_trains(data: Path, tmp_path: Path) -> None:
    result = train(config_of(data, data=ALONE), out=tmp_path / "run")
    assert result.steps == 4


def test_batch_of_one_with_a_crop_of_one_cell_names_both_keys(
    data: Path, tmp_path: Path, refused_training: Callable[..., str]
) -> None:
    message = refused_training("data.batch_size=1", "data.crop_size=[32, 32]")
    assert_holds(message, "data.batch_size = 1", "data.crop_size = [32, 32]", "freeze_batch_norm")
    assert train(config_of(data, steps=1, data={"batch_size": 1}, freeze_batch_norm=True), out=tmp_path / "b").steps


def test_image_of_one_pixel_trains_and_predicts(data: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        put(data / split / "images" / "dot.png", np.full((1, 1, 3), 200, np.uint8))
        put(data / split / "masks" / "dot.png", np.zeros((1, 1), np.uint8))
    result = train(config_of(data, data={"batch_size": 4}), out=tmp_path / "run")
    assert result.scores["pixels"] == 40 * 48 + 1
    report = predict(result.folder, [data / "val" / "images" / "dot.png"], tmp_path / "out", device="cpu")
    assert report.pixels == 1


@pytest.mark.parametrize("kind", ["grey", "alpha", "palette", "16-bit grey"])
def test_images_of_other_modes_train_and_predict(data: Path, tmp_path: Path, kind: str) -> None:
    for file in data.glob("*/images/*.png"):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        if kind == "16-bit grey":
            put(file, np.asarray(image.convert("L")).astype(np.uint16) * 257)
        else:
            image.convert({"grey": "L", "alpha": "RGBA", "palette": "P"}[kind]).save(file)
    result = train(config_of(data, steps=1), out=tmp_path / "run")
    assert result.scores["images"] == 1
    assert predict(result.folder, [data / "val" / "images"], tmp_path / "out", device="cpu").images == 1


def test_colour_images_for_a_network_of_four_channels_are_refused(
    data: Path, refused_training: Callable[..., str]
) -> None:
    message = refused_training("model.backbone.in_channels=4")
    assert_holds(message, data / "train" / "images", "3 channels", "takes 4", "input channels")


# Names that do not exist


def test_unknown_recipe_offers_the_nearest(refused: Callable[..., str]) -> None:
    assert_holds(refused("train", "--recipe", "dfn_camvit"), "dfn_camvit", "did you mean 'dfn_camvid'?")


def test_unknown_key_in_a_file_names_line_and_nearest(data: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "run.yaml"
    text = dump_config(config_of(data)).replace("crop_size:", "crop_sise:")
    file.write_text(text)
    line = next(n for n, row in enumerate(text.splitlines(), start=1) if "crop_sise" in row)
    assert_holds(refused("train", file), f"run.yaml:{line}", "data.crop_sise", "did you mean 'crop_size'?")


def test_unknown_override_offers_the_nearest(refused_training: Callable[..., str]) -> None:
    assert_holds(refused_training("optimizer.lrr=0.1"), "lrr", "did you mean 'lr'?")


def test_unknown_backbone_and_model_are_reported_together(refused_training: Callable[..., str]) -> None:
    message = refused_training("model.backbone.name=resnet181", "model.options.widht=3")
    assert_holds(
        message, "model.backbone.name", "'resnet181'", "did you mean 'resnet", "model.options.widht", "'width'"
    )


def test_refused_configuration_leaves_no_run_folder(refused_training: Callable[..., str], tmp_path: Path) -> None:
    refused_training("model.name=dnf")
    assert not (tmp_path / "run").exists()


def test_unknown_data_format_offers_the_nearest(tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused("train", "--data", f"camvod:{tmp_path}")
    assert_holds(message, "camvod", "did you mean 'camvid'?")


def test_missing_data_folder_names_it(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert_holds(refused("train", "--data", tmp_path / "nowhere"), tmp_path / "nowhere")


# Checkpoints of another network


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished FCN."""
    folder = tmp_path_factory.mktemp("other")
    for number in range(2):
        image, mask = picture(number)
        put(folder / "data" / "train" / "images" / f"{number}.png", image)
        put(folder / "data" / "train" / "masks" / f"{number}.png", mask)
    (folder / "data" / "labels.yaml").write_text(yaml.safe_dump(LABELS))
    fcn = {"name": "fcn", "backbone": {"name": "resnet10t"}, "options": {"width": 8, "auxiliary_width": 8}}
    config = config_of(folder / "data", steps=1, data={"val_split": "train"})
    config = config.model_copy(
        update={"stages": (config.stages[0].model_copy(update={"model": ModelChoice.model_validate(fcn)}),)}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perpixel.build.run_job.write_report", lambda run: run)
        return train(config, out=folder / "run").folder


def test_fine_tuning_from_another_network_is_refused(
    other_run: Path, data: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(dump_config(config_of(data)))
    message = refused("train", file, "--from", other_run, "--out", tmp_path / "run")
    assert_holds(
        message, "of the parameters come from the source (FCN", "at least 50% must", "Start from an artifact of the"
    )


def test_backbone_file_of_another_network_is_refused(other_run: Path, data: Path, tmp_path: Path) -> None:
    file = other_run / "best" / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        train(config_of(data, model={"backbone": {"weights": str(file)}}), out=tmp_path / "run")


def test_damaged_model_names_the_file(other_run: Path, data: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("model.yaml", "model.safetensors"):
        content = (other_run / "best" / name).read_bytes()
        (broken / name).write_bytes(content if name == "model.yaml" else content[:1000])
    message = refused("predict", broken, data / "val" / "images", "--out", tmp_path / "out")
    assert_holds(message, broken / "model.safetensors", "copy or save it again")


# Disk full, and Ctrl-C at the worst moment


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def finishes_like_an_unbroken_run(run: Path, data: Path, tmp_path: Path) -> None:
    result = train(load_config(run / "config.yaml"), resume=run)
    unbroken = train(config_of(data), out=tmp_path / "unbroken")
    ours = load_checkpoint(run / "checkpoints" / "step-4")["tensors"]
    theirs = load_checkpoint(unbroken.folder / "checkpoints" / "step-4")["tensors"]
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert result.scores["confusion"] == unbroken.scores["confusion"]


class Third:
    """Calls the original twice, then what is given."""

    def __init__(self, original: Callable[..., Any], instead: Callable[..., Any]) -> None:
        self.original, self.instead, self.calls = original, instead, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.instead(*args, **kwargs) if self.calls == 3 else self.original(*args, **kwargs)


def half_written(state: object, file: Any) -> None:
    file.write(b"PK\x03\x04 half a state")
    full_disk()


def test_disk_full_in_a_checkpoint_keeps_the_last_good_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("perpixel.engine.checkpoints.torch.save", Third(torch.save, half_written))
        with pytest.raises(RunError, match=r"step-3.*No space left on device.*step-1, step-2 in .* stays usable"):
            train(config_of(data), out=run)
    assert checkpoints(run) == ["step-1", "step-2"]
    finishes_like_an_unbroken_run(run, data, tmp_path)


def test_ctrl_c_twice_in_a_checkpoint_keeps_the_last_good_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def interrupted(state: object, file: Any) -> None:
        file.write(b"PK\x03\x04 half a state")
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("perpixel.engine.checkpoints.torch.save", Third(torch.save, interrupted))
        with pytest.raises(KeyboardInterrupt):
            train(config_of(data), out=run)
    assert checkpoints(run) == ["step-1", "step-2"]
    finishes_like_an_unbroken_run(run, data, tmp_path)


def test_ctrl_c_once_in_a_checkpoint_completes_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, save = tmp_path / "run", torch.save

    def interrupted(state: object, file: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr("perpixel.engine.checkpoints.torch.save", Third(torch.save, interrupted))
        stopped = train(config_of(data), out=run)
    assert (stopped.interrupted, stopped.steps) == (True, 3)
    assert checkpoints(run) == ["step-2", "step-3"]
    finishes_like_an_unbroken_run(run, data, tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "perpixel.weights.artifact.save_file",
        "perpixel.build.final.write_mask",
        "perpixel.engine.run_folder.write_bytes",
        "pathlib.Path.write_text",
    ],
)
def test_disk_full_elsewhere_is_a_run_error_that_names_the_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, full_disk)
        with pytest.raises(PerpixelError, match="No space left on device") as caught:
            train(config_of(data), out=tmp_path / "run")
    assert_holds(str(caught.value), tmp_path / "run")


# A run folder that is taken


def test_existing_run_folder_is_refused_with_the_ways_out(
    data: Path, tmp_path: Path, refused_training: Callable[..., str]
) -> None:
    train(config_of(data, steps=1), out=tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")}
    assert_holds(refused_training(), tmp_path / "run", "is not empty", "resume", "overwrite", "another")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")} == before


def test_run_folder_of_refused_data_can_be_used_again(
    data: Path, tmp_path: Path, refused_training: Callable[..., str]
) -> None:
    mask = data / "train" / "masks" / "train1.png"
    content = mask.read_bytes()
    mask.unlink()
    refused_training()
    mask.write_bytes(content)
    assert train(config_of(data, steps=1), out=tmp_path / "run").steps == 1


def test_fine_tuning_into_its_own_source_does_not_lose_it(data: Path, tmp_path: Path) -> None:
    run = train(config_of(data, steps=1), out=tmp_path / "run").folder
    with pytest.raises(RunError, match=r"run holds .*best, which this run needs"):
        train(config_of(data), out=run, source=run / "best", overwrite=True)
    assert (run / "best" / "model.safetensors").is_file()


def test_resume_without_a_run_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert_holds(refused("train", "--resume", tmp_path / "none"), tmp_path / "none", "config.yaml")

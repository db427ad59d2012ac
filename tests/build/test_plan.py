"""config_for_data: the plan for somebody's own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import decisions

from perpixel.build import check_names, config_for_data, plan_for_data, train
from perpixel.config import RunConfig, apply_overrides, config_from_dict
from perpixel.errors import DataError

QUICK = [
    "steps=1",
    "model.backbone.name=test_resnet",
    "model.options.width=8",
    "data.batch_size=2",
    "data.crop_size=[32, 32]",
    "data.workers=0",
    "device=cpu",
    "precision=fp32",
]


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is counted in test_memory_estimate; here every batch fits."""
    monkeypatch.setattr("perpixel.build.plan.fitting_batch", lambda config, *_, **__: (config.data.batch_size, "fits"))


def quick(plan: RunConfig) -> RunConfig:
    return apply_overrides(plan, QUICK)


def isbi(folder: Path, count: int = 6, size: tuple[int, int] = (70, 100)) -> tuple[Path, Path]:
    """Grey images as TIFF and masks of {0, 255} as PNG, as the challenge of 2012 has them."""
    images, masks = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    masks.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(images / f"{number:02d}.tif")
        mask = np.where(random.random(size) < 0.8, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(masks / f"{number:02d}.png")
    return images, masks


def camvid(folder: Path, per_split: int = 3) -> Path:
    """SegNet's layout with its lists; masks hold 0 to 10 and 11 for void."""
    ids = np.repeat(np.arange(12, dtype=np.uint8), 4)[None].repeat(36, 0)
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        lines = []
        for kind in (split, f"{split}annot"):
            (folder / kind).mkdir(parents=True)
        for number in range(per_split):
            name = f"{split}{number}.png"
            Image.fromarray(random.integers(0, 256, (36, 48, 3), dtype=np.uint8)).save(folder / split / name)
            Image.fromarray(ids).save(folder / f"{split}annot" / name)
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def test_config_for_data_of_two_folders_is_a_whole_plan(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path / "membranes")
    plan = config_for_data(images=images, masks=masks)
    assert (plan.data.images, plan.data.masks, plan.data.source) == (str(images), str(masks), None)
    assert plan.data.crop_size == (64, 96)
    assert plan.stages[0].steps == 400
    assert plan.data.batch_size == 4
    assert plan.labels is None
    assert config_from_dict(plan.model_dump(mode="json")) == plan
    assert check_names(plan) == []


def test_config_for_data_crop_has_bounds(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path / "wide", count=2, size=(20, 700))
    assert config_for_data(images=images, masks=masks).data.crop_size == (32, 320)


def test_config_for_data_steps_follow_the_number_of_images(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path / "many", count=90, size=(8, 8))
    plan = config_for_data(images=images, masks=masks)
    assert (plan.data.batch_size, plan.stages[0].steps) == (8, 450)


def test_plan_for_data_with_little_memory_takes_smaller_batches_and_more_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = isbi(tmp_path / "many", count=90, size=(8, 8))
    monkeypatch.setattr("perpixel.build.plan.fitting_batch", lambda *_, **__: (2, "2 fit"))
    plan = plan_for_data(images=images, masks=masks)
    assert (plan.config.data.batch_size, plan.config.stages[0].steps) == (2, 1800)
    assert ("batch size", "2 images", "2 fit") in plan.kept(plan.config)


def test_config_for_data_is_named_after_the_folder(tmp_path: Path) -> None:
    plan = config_for_data(data=f"camvid:{camvid(tmp_path / 'my data')}", labels="camvid11")
    assert plan.name == "my-data"
    assert plan.labels == "camvid11"
    assert plan.data.source == f"camvid:{tmp_path / 'my data'}"


def test_config_for_data_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder of masks"):
        config_for_data(images=isbi(tmp_path)[0], masks=tmp_path / "nowhere")


@pytest.mark.usefixtures("no_report")
def test_train_isbi_folders_as_they_are_makes_two_classes(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    result = train(quick(config_for_data(images=images, masks=masks)), out=tmp_path / "run")
    decided = decisions(result.folder)
    assert decided["labels"].startswith("2 classes: masks hold only 0 and 255")
    assert decided["split"].startswith("5 train, 1 val")
    assert "class weights" not in decided  # four fifths to one fifth is no imbalance
    assert [entry["name"] for entry in result.scores["per_class"]] == ["background", "foreground"]


@pytest.mark.usefixtures("no_report")
def test_train_camvid_data_takes_its_own_classes(tmp_path: Path) -> None:
    folder = camvid(tmp_path / "camvid")
    result = train(quick(config_for_data(data=str(folder))), out=tmp_path / "run")
    assert decisions(result.folder)["labels"].startswith("11 classes")
    assert result.scores["images"] == 3


@pytest.mark.usefixtures("no_report")
def test_train_two_camvid_folders_makes_twelve_classes_and_a_hint(tmp_path: Path) -> None:
    folder = camvid(tmp_path / "camvid", per_split=4)
    plan = quick(config_for_data(images=folder / "train", masks=folder / "trainannot"))
    result = train(plan, out=tmp_path / "run")
    assert len(result.scores["per_class"]) == 12
    text = (result.folder / "metrics.jsonl").read_text()
    assert "--labels camvid11" in text
    assert "12 numbered classes" in text


def test_plan_for_data_says_why_and_drops_what_the_user_decides(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    plan = plan_for_data(images=images, masks=masks)
    said = {what: (choice, reason) for what, choice, reason in plan.kept(plan.config)}
    assert list(said) == [
        "data check",
        "network",
        "class weights",
        "crop size",
        "sampler",
        "batch size",
        "schedule",
        "augmentation",
        "scored weights",
    ]
    assert said["class weights"][0] == "none"  # four fifths to one fifth is no imbalance
    assert said["crop size"] == ("64 x 96", "the whole image, down to a multiple of 32 (median 70 x 100)")
    assert "267 epochs of 6 images" in said["schedule"][1]
    own = apply_overrides(plan.config, ["steps=7", "data.crop_size=[32, 32]"])
    assert [row[0] for row in plan.kept(own)] == [
        "data check",
        "network",
        "class weights",
        "sampler",
        "augmentation",
        "scored weights",
    ]


def test_plan_for_data_weighs_rare_classes_and_looks_for_them(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    for path in masks.iterdir():
        mask = np.zeros((70, 100), np.uint8)
        mask[:4, :4] = 255
        Image.fromarray(mask).save(path)
    config = plan_for_data(images=images, masks=masks).config
    assert config.stages[0].class_weights == "sqrt_median_frequency"
    assert config.data.class_crop == 0.5
    assert config.stages[0].terms is None


@pytest.mark.usefixtures("no_report")
def test_train_keeps_the_decisions_of_its_plan(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    plan = plan_for_data(images=images, masks=masks)
    config = quick(plan.config)
    result = train(config, out=tmp_path / "run", decisions=plan.kept(config))
    assert decisions(result.folder)["augmentation"].startswith("scale 0.5 to 2")


def test_plan_for_data_with_faults_is_refused_with_the_way_out(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    (masks / "02.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)a fault that would stop or spoil.*02\.png.*perpixel data check .*--fix"):
        plan_for_data(images=images, masks=masks)


def test_plan_for_data_unchecked_says_so(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    plan = plan_for_data(images=images, masks=masks, check=False)
    assert ("data check", "not made", "left out as asked") in plan.kept(plan.config)


def test_plan_for_data_of_colors_reads_them_as_asked(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    for path in masks.iterdir():
        ids = np.array(Image.open(path)) > 0
        Image.fromarray(np.where(ids[..., None], [200, 0, 10], [0, 90, 0]).astype(np.uint8)).save(path)
    labels = tmp_path / "colors.yaml"
    labels.write_text("names: [grass, roof]\ncolors: [[0, 90, 0], [200, 0, 10]]\n")
    asked = ["data.mask_encoding=colors"]
    plan = plan_for_data(images=images, masks=masks, labels=str(labels), overrides=asked)
    assert next(row[0] for row in plan.kept(apply_overrides(plan.config, asked))) == "data check"
    assert plan.config.data.mask_encoding == "ids"  # the override is the user's, and comes on top


def test_plan_for_data_absent_class_is_refused_unless_allowed(tmp_path: Path) -> None:
    images, masks = isbi(tmp_path)
    labels = tmp_path / "three.yaml"
    labels.write_text("names: [a, b, c]\nstored: [0, 255, 7]\nignore: []\n")
    with pytest.raises(DataError, match=r"no pixel of .*c"):
        plan_for_data(images=images, masks=masks, labels=str(labels))
    allowed = ["data.allow_absent_classes=true"]
    assert plan_for_data(images=images, masks=masks, labels=str(labels), overrides=allowed).decisions

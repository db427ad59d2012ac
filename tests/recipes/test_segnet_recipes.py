"""Recipes of SegNet and DeconvNet hold the numbers of the releases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import perpixel
from perpixel.build import RunResult
from perpixel.build import train as train_run
from perpixel.config import RunConfig, variant
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.recipes import get_recipe
from perpixel.recipes.segnet import CAMVID_CLASS_WEIGHTS


@pytest.mark.parametrize(
    ("name", "rate", "steps"), [("segnet_camvid", 1e-3, 40_000), ("segnet_basic_camvid", 0.1, 10_000)]
)
def test_segnet_recipes_have_the_tutorials_solver(name: str, rate: float, steps: int) -> None:
    config = get_recipe(name)
    stage = config.stages[0]
    assert (config.data.crop_size, config.data.batch_size, config.data.flip) == ((360, 480), 4, 0.0)
    optimizer = stage.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", rate, 0.9, 5e-4)
    assert (stage.schedule.name, stage.steps) == ("constant", steps)
    assert stage.class_weights == CAMVID_CLASS_WEIGHTS
    assert stage.terms is not None and stage.terms[0].options == {"normalise": "pixels"}


def test_camvid_class_weights_are_the_tutorials_in_the_order_of_the_labels() -> None:
    names = LabelSpace.load("camvid11").names
    weights = dict(zip(names, CAMVID_CLASS_WEIGHTS, strict=True))
    assert (weights["Sky"], weights["Road"], weights["SignSymbol"], weights["Bicyclist"]) == (
        0.2595,
        0.1417,
        9.6446,
        7.3614,
    )


def test_deconvnet_recipe_has_the_releases_two_stages() -> None:
    config = get_recipe("deconvnet_voc")
    first, second = config.stages
    assert (first.steps, second.steps, second.start) == (20_000, 40_000, "previous")
    assert (first.schedule.milestones, second.schedule.milestones) == ((9000, 18_000), (10_000, 20_000, 30_000))
    assert all(stage.optimizer.lr == 0.01 and stage.optimizer.weight_decay == 5e-4 for stage in config.stages)
    assert config.data.batch_size * first.accumulate == 64
    assert config.data_of(0).crop_size == (224, 224)
    assert (config.data_of(0).class_crop, config.data_of(1).class_crop) == (1.0, 0.5)


@pytest.mark.parametrize("name", ["segnet_camvid", "segnet_basic_camvid", "deconvnet_voc"])
def test_bias_rule_finds_the_biases_of_convolutions_alone(name: str) -> None:
    config = get_recipe(name)
    with torch.device("meta"):
        network = create_model(config.model_of(0).name, num_classes=2)
    (rule,) = config.stages[0].groups
    found = {n for n, _ in network.named_parameters() if re.search(rule.pattern, n)}
    norms = {n for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    wanted = {n for n, _ in network.named_parameters() if n.endswith(".bias") and n.removesuffix(".bias") not in norms}
    assert found == wanted
    assert (rule.lr_factor, rule.weight_decay) == (2.0, 0.0)


DECONVNET_PAGE = Path(__file__).resolve().parents[2] / "docs" / "deconvnet.md"


def write_voc(folder: Path) -> None:
    """Pictures of two touching boxes of one class and a person that leaves the image, with ignored borders."""
    mask = np.zeros((120, 160), dtype=np.uint8)
    instances = mask.copy()
    for number, (rows, columns, label) in enumerate(
        [((30, 60), (20, 60), 7), ((30, 60), (60, 90), 7), ((80, 120), (100, 160), 15)], start=1
    ):
        mask[slice(*rows), slice(*columns)], instances[slice(*rows), slice(*columns)] = label, number
    mask[30:60, 59], instances[30:60, 59] = 255, 255
    for kind in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / kind).mkdir(parents=True)
    lists = {"train": ["a", "b"], "val": ["c"], "train_aug": ["a", "b"]}
    for split, names in lists.items():
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
    (folder / "SegmentationClassAug").mkdir()
    for seed, name in enumerate(["a", "b", "c"]):
        noise = np.random.default_rng(seed).integers(0, 40, (120, 160, 3))
        Image.fromarray((mask[..., None] * 10 % 200 + noise).astype(np.uint8)).save(folder / f"JPEGImages/{name}.jpg")
        for kind, pixels in (
            ("SegmentationClass", mask),
            ("SegmentationClassAug", mask),
            ("SegmentationObject", instances),
        ):
            Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def test_deconvnet_page_makes_the_papers_examples_and_trains_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(tmp_path / "VOC2012")
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```$", DECONVNET_PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    cutting, training = (block for block in code if "box_scores" not in block)
    exec(compile(cutting, "cutting", "exec"), {})
    assert len(list((tmp_path / "examples/train/images").iterdir())) == 6
    targets = [np.array(Image.open(tmp_path / f"examples/val/masks/c_{number}.png")) for number in range(3)]
    assert [np.unique(target).tolist() for target in targets] == [[0, 7, 255], [0, 7, 255], [0, 15]]
    assert {target.shape for target in targets} == {(250, 250)}

    runs: list[RunConfig] = []
    results: list[RunResult] = []

    def train_small(config: RunConfig, *, out: str) -> None:
        runs.append(config)
        tiny: dict[str, Any] = {"options": {"width": 2, "fc_width": 4}, "backbone": {"weights": "none"}}
        changes: dict[str, Any] = {
            "data": {"batch_size": 2, "workers": 0, "allow_absent_classes": True},
            "evaluation": {"every": 1, "save_predictions": False},
            "schedule": {"name": "constant", "milestones": []},
            "model": tiny,
        }
        results.append(train_run(variant(config, steps=1, accumulate=1, device="cpu", **changes), out=Path(out)))

    monkeypatch.setattr(perpixel, "train", train_small)
    exec(compile(training, "training", "exec"), {})
    drawn = [config.data_of(0) for config in runs]
    assert [(data.crop_size, data.flip, data.class_crop, data.scale_range) for data in drawn] == [
        ((224, 224), 0.5, 0.0, None),
        ((224, 224), 0.5, 0.5, (0.5, 2.0)),
    ]
    assert [config.stages[0].steps for config in runs] == [20_000, 40_000]
    assert [result.scores["pixels"] for result in results] == [
        sum(int((target != 255).sum()) for target in targets),
        120 * 160 - 30,
    ]

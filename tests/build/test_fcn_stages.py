"""The stages of a recipe in small: FCN-32s, then 16s, then 8s, each from the one before."""

from __future__ import annotations

from pathlib import Path

import torch
from small_runs import events, weights, write_blocks

from perpixel.backbones import CAFFE_PREPROCESSING, BackboneConfig
from perpixel.backbones.vgg16 import create_vgg16
from perpixel.build import train
from perpixel.config import OptimizerChoice, RunConfig, variant
from perpixel.layers.bilinear_deconv import BilinearDeconv
from perpixel.models import FCNVGG16Config
from perpixel.recipes import get_recipe
from perpixel.weights import load_artifact

TINY = {"width": 2, "fc_width": 4}


def vgg16_file(folder: Path) -> str:
    """A thin VGG16 under the published names, as the Caffe weights are."""
    trunk = create_vgg16(BackboneConfig(name="vgg16"), FCNVGG16Config(**TINY).layout)
    torch.save(trunk.state_dict(), folder / "vgg16.pth")
    return str(folder / "vgg16.pth")


def small_fcn_voc(source: Path, backbone: str) -> RunConfig:
    """The recipe itself, on other data, thinner, shorter, and at a rate that moves a weight in two steps."""
    base = get_recipe("fcn_voc")
    stages = []
    for stage in base.stages:
        assert stage.model is not None and stage.model.backbone is not None
        weights_file = backbone if stage.start == "scratch" else "none"
        trunk = stage.model.backbone.model_copy(update={"weights": weights_file})
        model = stage.model.model_copy(update={"backbone": trunk, "options": {**stage.model.options, **TINY}})
        optimizer = OptimizerChoice(**{**stage.optimizer.model_dump(), "lr": 1e-9})
        stages.append(stage.model_copy(update={"model": model, "optimizer": optimizer, "steps": 2}))
    return variant(
        base,
        labels=None,
        data={"source": str(source), "train_split": "train", "crop_size": (48, 48), "workers": 0},
        stages=stages,
        evaluation={"every": 2},
        device="cpu",
        threads=torch.get_num_threads(),
    )


def test_train_fcn_voc_in_small_carries_weights_and_preprocessing_through_its_stages(
    tmp_path: Path, no_report: None
) -> None:
    data = write_blocks(tmp_path / "blocks", train=2, val=1)
    result = train(small_fcn_voc(data, vgg16_file(tmp_path)), out=tmp_path / "run")
    network = load_artifact(result.folder / "best").network
    assert (type(network).__name__, network.config.stride) == ("FCNVGG16", 8)
    assert network.preprocessing == CAFFE_PREPROCESSING
    first, _, last = sorted((result.folder / "stages").iterdir())
    begun, trained = weights(first, "best"), weights(last)
    assert torch.allclose(trained["backbone.fc6.weight"], begun["backbone.fc6.weight"], atol=1e-4)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        assert trained[f"{name}.classifier.weight"].any(), name
    assert torch.equal(trained["upscore8.weight"], BilinearDeconv(3, 8).weight)  # fixed, and not decayed
    reasons = [event["reason"] for event in events(last, "decision") if event["what"] == "start"]
    assert "35 tensors copied, 99.8% of the parameters" in reasons[0]

"""Stages that begin with what is left of the stage before them: ICNet's prune-and-tune, in small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import events, write_blocks

from perpixel.build import check_names, train
from perpixel.build.starts import load_start, resume_start
from perpixel.config import RunConfig, variant
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.models.network import Network
from perpixel.recipes import get_recipe
from perpixel.types import Preprocessing
from perpixel.weights import load_artifact, prune, save_artifact

LABELS = LabelSpace.numbered(3)
OTHER = Preprocessing(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255.0)


def icnet(width: int) -> Network:
    torch.manual_seed(width)
    return create_model("icnet", {"width": width}, num_classes=3)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    network = icnet(4)
    network.preprocessing = OTHER
    return save_artifact(tmp_path / "full", network, LABELS, {})


def test_pruned_start_fills_with_the_weightiest_kernels_and_says_so(full: Path) -> None:
    network = icnet(2)
    said = dict(load_start("pruned", network, LABELS, full))
    wanted = prune(load_artifact(full).network)[0].state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    assert network.preprocessing == OTHER
    assert "parameters became" in said[f"{full}, pruned"]
    assert str(full) in said["preprocessing"]


def test_pruned_start_when_resumed_takes_the_preprocessing_alone(full: Path) -> None:
    network = icnet(2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    resume_start("pruned", network, full)
    assert network.preprocessing == OTHER
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_pruned_start_of_an_equal_width_is_refused(full: Path) -> None:
    with pytest.raises(InvalidValue, match="pruning makes a network narrower, and this one is not"):
        list(load_start("pruned", icnet(4), LABELS, full))


def test_pruned_start_without_a_stage_before_it_is_refused() -> None:
    with pytest.raises(CheckpointError, match="start 'pruned' needs a stage before it"):
        list(load_start("pruned", icnet(2), LABELS, None))


def test_check_names_finds_stages_that_cannot_be_pruned_before_anything_is_trained() -> None:
    config = get_recipe("icnet_pruned_cityscapes")
    assert check_names(config) == []
    full, middle, half = config.stages
    assert half.model is not None
    wide = half.model.model_copy(update={"options": {**half.model.options, "width": 64}})
    wrong = config.model_copy(update={"stages": (full, middle, half.model_copy(update={"model": wide}))})
    ((where, value, message),) = check_names(wrong)
    assert (where, value) == ("stages.2.start", "pruned")
    assert "pruning makes a network narrower, and this one is not" in message


def small_recipe(source: Path) -> RunConfig:
    """The recipe itself on other data, sixteen times narrower, two steps a stage, without timm's weights."""
    base = get_recipe("icnet_pruned_cityscapes")
    stages = []
    for stage in base.stages:
        assert stage.model is not None and stage.model.backbone is not None
        trunk = stage.model.backbone.model_copy(update={"weights": "none"})
        options = {**stage.model.options, "width": stage.model.options["width"] // 16}  # type: ignore[operator]
        model = stage.model.model_copy(update={"backbone": trunk, "options": options})
        stages.append(stage.model_copy(update={"model": model, "steps": 2}))
    return variant(
        base,
        labels=None,
        data={"source": str(source), "crop_size": (65, 65), "batch_size": 2, "workers": 0},
        stages=stages,
        evaluation={"every": 2},
        device="cpu",
        precision="fp32",
        threads=torch.get_num_threads(),
    )


def test_train_icnet_pruned_in_small_narrows_from_stage_to_stage(tmp_path: Path, no_report: None) -> None:
    data = write_blocks(tmp_path / "blocks", train=2, val=1)
    result = train(small_recipe(data), out=tmp_path / "run")
    assert load_artifact(result.folder / "best").network.config.width == 2
    stages = sorted((result.folder / "stages").iterdir())
    widths = [load_artifact(stage / "best").network.config.width for stage in stages]
    assert widths == [4, 3, 2]
    starts = [next(e["reason"] for e in events(stage, "decision") if e["what"] == "start") for stage in stages]
    assert starts[0] == "random weights"
    assert all("channels kept in" in reason for reason in starts[1:])

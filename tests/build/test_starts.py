"""What a stage takes from the weights that it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perpixel.backbones import CAFFE_PREPROCESSING, BackboneConfig
from perpixel.build.starts import load_start, resume_start
from perpixel.errors import CheckpointError
from perpixel.labels import LabelSpace
from perpixel.models import FCNConfig, create_model
from perpixel.models.network import Network
from perpixel.types import Preprocessing
from perpixel.weights import save_artifact

LABELS = LabelSpace.numbered(3)


def fcn(in_channels: int = 3) -> Network:
    backbone = BackboneConfig(name="test_resnet", in_channels=in_channels)
    return create_model("fcn", FCNConfig.small(), num_classes=3, backbone=backbone)


@pytest.fixture
def caffe(tmp_path: Path) -> Path:
    network = fcn()
    network.preprocessing = CAFFE_PREPROCESSING
    return save_artifact(tmp_path / "caffe", network, LABELS, {})


@pytest.mark.parametrize("start", ["previous", "path"])
def test_start_takes_the_preprocessing_that_its_weights_were_trained_with(caffe: Path, start: str) -> None:
    network = fcn()
    said = dict(load_start(start if start == "previous" else str(caffe), network, LABELS, caffe))
    assert network.preprocessing == CAFFE_PREPROCESSING
    assert str(caffe) in said["preprocessing"]


def test_resumed_start_takes_the_preprocessing_and_leaves_the_weights(caffe: Path) -> None:
    network = fcn()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    resume_start("previous", network, caffe)
    assert network.preprocessing == CAFFE_PREPROCESSING
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_start_with_other_channels_or_from_scratch_keeps_its_own_preprocessing(caffe: Path) -> None:
    four = fcn(in_channels=4)
    own = four.preprocessing
    assert "preprocessing" not in dict(load_start("previous", four, LABELS, caffe))
    assert four.preprocessing == own
    plain = fcn()
    assert dict(load_start("scratch", plain, LABELS, None)) == {"scratch": "random weights"}
    resume_start("scratch", plain, None)
    assert plain.preprocessing == Preprocessing()


def test_start_from_a_stage_before_the_first_is_refused() -> None:
    with pytest.raises(CheckpointError, match="start 'previous' needs a stage before it"):
        list(load_start("previous", fcn(), LABELS, None))

"""predict with an amount of memory: the plan is told, and choices that do not go with it are refused."""

from __future__ import annotations

import numpy as np
import pytest

from perpixel.build import predict
from perpixel.errors import InvalidValue
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.models.unet import UNetConfig
from perpixel.weights import save_artifact


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    network = create_model("unet", UNetConfig.small(), num_classes=3)
    save_artifact(folder / "best", network, LabelSpace.numbered(3), {})
    return folder / "best"


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return path


def test_predict_array_tells_its_plan_and_counts_tiles(model, array, tmp_path):
    plans, progress = [], []
    report = predict(model, [array], tmp_path / "out", device="cpu", on_plan=plans.append, on_progress=progress.append)
    assert len(plans) == 1
    assert plans[0].startswith(f"{array}: 40 x 60 pixels in one piece")
    assert [(p.phase, p.done, p.total) for p in progress] == [("tiles of x.npy", 1, 1), ("predict", 1, 1)]
    assert report.images == 1
    assert np.load(tmp_path / "out" / "x.npy").shape == (40, 60)


def test_predict_memory_that_is_none_is_refused(model, array, tmp_path):
    with pytest.raises(InvalidValue, match="an amount such as 4GB"):
        predict(model, [array], tmp_path / "out", device="cpu", memory="much")


def test_predict_memory_does_not_go_with_choices_that_need_whole_images(model, array, tmp_path):
    with pytest.raises(InvalidValue, match="memory and max_pixels do not go with submit"):
        predict(model, [array], tmp_path / "out", device="cpu", memory="1GB", submit="voc")
    with pytest.raises(InvalidValue, match="an amount of memory was given, but"):
        predict(model, [array], tmp_path / "out", device="cpu", memory="1GB", scales=(0.5, 1.0))

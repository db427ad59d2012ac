"""Images in memory, tile by tile: the whole image's classes where the plan is exact, and a plan for each size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.evaluation import Measures, evaluate_network
from perpixel.inference import Segmenter
from perpixel.inference.procedures import WholeImage
from perpixel.inference.tile_cost import TileCost
from perpixel.inference.tile_plan import TilePlan
from perpixel.inference.tiled_classes import TiledClasses
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.models.unet import UNetConfig


@pytest.fixture
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    network = create_model("unet", UNetConfig.small(), num_classes=3)
    return Segmenter(network.double(), LabelSpace.numbered(3))


@pytest.fixture(autouse=True)
def known_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = TileCost(fixed_bytes=0, bytes_per_pixel=1000, period=8)
    monkeypatch.setattr("perpixel.inference.tiled_classes.tile_cost", lambda *_, **__: cost)


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1)).byte()


def test_tiled_classes_of_tiles_that_cover_the_receptive_field_equal_the_whole_image(segmenter: Segmenter) -> None:
    plans: list[TilePlan] = []
    tiled = TiledClasses(segmenter, memory_bytes=40_000_000, on_plan=plans.append)
    pixels = image(120, 900)
    assert np.array_equal(tiled(pixels), segmenter.classes(pixels[None])[0].numpy())
    assert [(plan.tiles, plan.exact) for plan in plans] == [(5, True)]


def test_tiled_classes_tell_the_plan_of_each_size_once_and_none_of_images_that_fit(segmenter: Segmenter) -> None:
    plans: list[TilePlan] = []
    tiled = TiledClasses(segmenter, memory_bytes=40_000_000, on_plan=plans.append)
    for size in ((120, 900), (32, 48), (120, 900), (130, 900)):
        assert tiled(image(*size)).shape == size
    assert [plan.image_size for plan in plans] == [(120, 900), (130, 900)]


def test_tiled_classes_with_a_procedure_are_refused(segmenter: Segmenter) -> None:
    segmenter.procedure = WholeImage()
    with pytest.raises(InvalidValue, match="an amount of memory was given, but the procedure WholeImage"):
        TiledClasses(segmenter, memory_bytes=1)


def test_evaluate_network_calibration_of_tiled_classes_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(InvalidValue, match="calibration needs the probabilities of whole images"):
        evaluate_network(
            segmenter,
            [],  # type: ignore[arg-type]
            measures=Measures(calibration=True),
            classes_of=lambda pixels: np.zeros(pixels.shape[1:], dtype=np.uint8),
        )

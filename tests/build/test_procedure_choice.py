"""Which procedure the words of a command line stand for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel.build import RunResult, evaluate, load, predict
from perpixel.build.procedure_choice import choose_procedure
from perpixel.errors import InvalidValue
from perpixel.inference import MultiScale, OverlapTile, SlidingWindow, Windows, named_protocol
from perpixel.labels import LabelSpace

PADDED: Any = SimpleNamespace(margin=0)
VALID: Any = SimpleNamespace(margin=92)
THREE = LabelSpace.numbered(3)


@pytest.mark.parametrize(
    ("network", "asked", "expected"),
    [
        (PADDED, {}, None),
        (PADDED, {"flip": False}, None),
        (PADDED, {"flip": True}, MultiScale(scales=(1.0,), flip=True)),
        (PADDED, {"scales": [0.5, 1]}, MultiScale(scales=(0.5, 1.0), flip=False)),
        (
            PADDED,
            {"scales": [0.5, 1], "flip": True, "tile": 64},
            MultiScale(scales=(0.5, 1.0), windows=Windows(size=64)),
        ),
        (PADDED, {"tile": (64, 32)}, SlidingWindow(windows=Windows(size=(64, 32)))),
        (PADDED, {"tile": 64, "flip": True}, SlidingWindow(windows=Windows(size=64), flip=True)),
        (VALID, {"tile": 64}, OverlapTile(tile=64)),
        (VALID, {"tile": 64, "flip": True}, SlidingWindow(windows=Windows(size=64), flip=True)),
        (PADDED, {"protocol": "torchseg"}, named_protocol("torchseg")),
        (PADDED, {"protocol": "torchseg:cityscapes"}, named_protocol("torchseg", data="cityscapes")),
        (
            PADDED,
            {"protocol": "semseg", "scales": [1], "flip": False, "tile": 321},
            named_protocol("semseg", scales=[1], flip=False, window=321),
        ),
    ],
)
def test_choose_procedure_of_what_was_asked(network: Any, asked: dict[str, Any], expected: Any) -> None:
    assert choose_procedure(network, THREE, **asked) == expected


def test_choose_procedure_takes_the_settings_of_the_models_data_set() -> None:
    cityscapes = LabelSpace.load("cityscapes")
    chosen = choose_procedure(PADDED, cityscapes, protocol="deeplab")
    assert chosen == named_protocol("deeplab", data="cityscapes")
    assert chosen != named_protocol("deeplab")
    assert choose_procedure(PADDED, cityscapes, protocol="deeplab:voc") == named_protocol("deeplab")
    assert choose_procedure(PADDED, cityscapes, protocol="encoding") == named_protocol("encoding")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "semsegg"}, "no protocol 'semsegg'; did you mean 'semseg'"),
        ({"protocol": "semseg:"}, "no published settings for ''"),
        ({"protocol": "semseg:voc2012"}, "no published settings for 'voc2012'; did you mean 'voc'"),
        ({"scales": []}, "there are no scales"),
        ({"tile": 0}, "the tile is one number of pixels >= 1 or \\(height, width\\), got 0"),
        ({"protocol": "cityscapes-whole", "tile": 512}, "a tile of 512 does not go with it"),
    ],
)
def test_choose_procedure_that_does_not_exist_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        choose_procedure(PADDED, THREE, **asked)


def test_evaluate_with_scales_scores_other_masks_and_predict_writes_them(
    trained: RunResult, data: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"scales": (0.5, 1.5), "flip": True}
    scores = evaluate(trained.folder, data, device="cpu", border_width_px=None, **asked)
    assert scores["confusion"] != trained.scores["confusion"]
    images = sorted((data / "val" / "images").iterdir())
    predict(trained.folder, images, tmp_path / "p", overlays=False, device="cpu", precision="fp32", **asked)
    segmenter = load(trained.folder, **asked)
    stored = np.asarray(Image.open(tmp_path / "p" / f"{images[0].stem}.png"))
    assert segmenter.procedure == MultiScale(scales=(0.5, 1.5))
    assert np.array_equal(stored, segmenter(images[0]).mask)
    assert load(trained.folder).procedure is None


def test_evaluate_and_predict_do_not_change_the_procedure_of_a_loaded_model(
    trained: RunResult, data: Path, tmp_path: Path
) -> None:
    segmenter = load(trained.folder)
    with pytest.raises(InvalidValue, match="protocol, tile cannot change a model that is loaded already; give them to"):
        evaluate(segmenter, data, protocol="semseg", tile=32)
    with pytest.raises(InvalidValue, match="flip cannot change a model that is loaded already"):
        predict(segmenter, [data], tmp_path / "p", flip=False)

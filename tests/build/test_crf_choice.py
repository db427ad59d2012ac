"""Which dense CRF a network gets."""

from __future__ import annotations

from typing import Any

import pytest

from perpixel.build.crf_choice import choose_crf, published_crf
from perpixel.errors import InvalidValue
from perpixel.inference.dense_crf import DENSE_CRFS, DenseCRF
from perpixel.models import MODELS, create_model


@pytest.mark.parametrize(
    ("name", "options", "backbone", "published"),
    [
        ("deeplab_v1", {}, None, "deeplab_largefov"),
        ("deeplab_v1", {"fc6_kernel": 4}, None, "deeplab_v1"),
        ("deeplab_v1", {"msc": True}, None, "deeplab_v1_msc"),
        ("deeplab_v2", {}, "vgg16", "deeplab_v2_vgg16"),
        ("deeplab_v2", {}, "caffe_resnet50", "deeplab_v2_resnet101"),
        ("deconvnet", {}, None, "deconvnet"),
        ("unet", {}, None, "deeplab_v2_resnet101"),
    ],
)
def test_published_crf_is_the_networks_own(
    name: str, options: dict[str, Any], backbone: str | None, published: str
) -> None:
    small = MODELS[name].config.small()
    config = type(small)(**{**{f: getattr(small, f) for f in small.__dataclass_fields__}, **options})
    network = create_model(name, config, num_classes=2, backbone=backbone)
    assert published_crf(network) == published
    assert choose_crf(network, True) is DENSE_CRFS[published]


def test_choose_crf_behind_a_network_that_holds_one_is_refused_unless_named() -> None:
    network = create_model("crf_rnn", MODELS["crf_rnn"].config.small(), num_classes=2)
    with pytest.raises(InvalidValue, match="crf_rnn holds its own CRF; leave --crf away"):
        choose_crf(network, True)
    assert choose_crf(network, "crf_rnn").normalization == "after"


def test_choose_crf_takes_none_a_name_or_numbers() -> None:
    network = create_model("unet", MODELS["unet"].config.small(), num_classes=2)
    own = DenseCRF(iterations=3)
    assert choose_crf(network, False) is None
    assert choose_crf(network, "crf_rnn") is DENSE_CRFS["crf_rnn"]
    assert choose_crf(network, own) is own

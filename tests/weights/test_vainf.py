from __future__ import annotations

import aspp_layout as al
import pytest
import torch

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 49, 67, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
RATES = {8: (12, 24, 36), 16: (6, 12, 18)}


@pytest.mark.parametrize(("output_stride", "separable"), [(16, False), (8, True)])
def test_deeplab_v3_on_a_resnet_computes_what_that_code_computes(output_stride, separable):
    head = al.v3_head_shapes("classifier.classifier.", 512, classes=4, width=8, separable=separable)
    state = al.filled(al.resnet_shapes("backbone.") | head)
    imported = import_checkpoint(state, output_stride=output_stride)
    assert imported.report.family == "vainf/deeplabv3"
    with torch.no_grad():
        *_, c5 = al.resnet_maps(state, "backbone.", IMAGES, output_stride=output_stride)
        wanted = al.v3_scores(state, "classifier.classifier.", c5, RATES[output_stride])
        torch.testing.assert_close(imported.network(IMAGES).logits, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("output_stride", "separable"), [(16, True), (8, False)])
def test_deeplab_v3plus_on_a_resnet_computes_what_that_code_computes(output_stride, separable):
    trunk = al.resnet_shapes("backbone.")
    state = al.filled(al.vainf_v3plus_shapes(trunk, 64, 512, separable=separable))
    imported = import_checkpoint({"model_state": state}, output_stride=output_stride)
    assert imported.report.family == "vainf/deeplabv3plus"
    network = imported.network
    with torch.no_grad():
        low, *_, high = al.resnet_maps(state, "backbone.", IMAGES, output_stride=output_stride)
        wanted = al.vainf_v3plus_scores(state, low, high, RATES[output_stride])
        torch.testing.assert_close(network(IMAGES).logits, wanted, rtol=0, atol=1e-9)
    assert (network.num_classes, network.config.low_width, network.config.decoder_width) == (4, 5, 6)


@pytest.mark.parametrize(("factor", "output_stride"), [(0.25, 16), (0.5, 8)])
def test_deeplab_v3plus_on_mobilenet_computes_what_that_code_computes(factor, output_stride):
    low, high = int(24 * factor), int(320 * factor)
    state = al.filled(al.vainf_v3plus_shapes(al.mobilenet_shapes(factor, in_channels=4), low, high))
    imported = import_checkpoint(state, output_stride=output_stride)
    images = torch.cat([IMAGES, IMAGES[:, :1]], 1)
    with torch.no_grad():
        maps = al.mobilenet_maps(state, images, output_stride=output_stride)
        wanted = al.vainf_v3plus_scores(state, *maps, RATES[output_stride])
        torch.testing.assert_close(imported.network(images).logits, wanted, rtol=0, atol=1e-9)
    assert imported.network.backbone.config.name == f"vainf_mobilenetv2_{round(100 * factor):03}"


def test_deeplab_v3_on_mobilenet_computes_what_that_code_computes():
    head = al.v3_head_shapes("classifier.classifier.", 80, classes=4, width=8)
    state = al.filled(al.mobilenet_shapes(0.25) | head)
    network = import_checkpoint(state, atrous_rates=[1, 2, 3]).network
    with torch.no_grad():
        _, high = al.mobilenet_maps(state, IMAGES, output_stride=16)
        wanted = al.v3_scores(state, "classifier.classifier.", high, (1, 2, 3))
        torch.testing.assert_close(network(IMAGES).logits, wanted, rtol=0, atol=1e-9)


def test_trunk_that_cannot_be_read_is_refused():
    head = al.v3_head_shapes("classifier.classifier.", 720, classes=2, width=4)
    state = al.filled(head | {"backbone.stage2.0.weight": (4, 3, 3, 3)})
    with pytest.raises(CheckpointError, match=r"is no ResNet or MobileNet-v2, .* it holds backbone.stage2.0.weight"):
        import_checkpoint(state)


def test_rates_of_another_kind_are_refused():
    state = al.filled(al.mobilenet_shapes(0.25) | al.v3_head_shapes("classifier.classifier.", 80, classes=2, width=4))
    for value in ([], [0, 1, 2], "6,12,18", [True, 1, 2], 2.5):
        with pytest.raises(InvalidValue, match="atrous_rates is a list of whole numbers >= 1, one per dilated branch"):
            import_checkpoint(state, "vainf/deeplabv3", atrous_rates=value)
    assert import_checkpoint(state, atrous_rates="auto").network.config.atrous_rates == (6, 12, 18)


def test_left_over_keys_are_an_error():
    state = al.filled(al.vainf_v3plus_shapes(al.mobilenet_shapes(0.25), 6, 80))
    state["classifier.classifier.7.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"left over .*classifier\.classifier\.7\.weight"):
        import_checkpoint(state)

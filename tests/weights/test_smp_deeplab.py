from __future__ import annotations

import aspp_layout as al
import pytest
import torch

from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "separable", "full", "rates"),
    [
        ({}, True, True, (12, 24, 36)),
        ({"output_stride": 8, "dilation": "half", "atrous_rates": [1, 2, 3]}, False, False, (1, 2, 3)),
    ],
)
def test_deeplab_v3plus_computes_what_that_library_computes(options, separable, full, rates):
    state = al.filled(al.smp_v3plus_shapes(separable=separable))
    imported = import_checkpoint(state, **options)
    assert imported.report.family == "smp/deeplabv3plus"
    network = imported.network
    with torch.no_grad():
        low, *_, high = al.resnet_maps(
            state, "encoder.", IMAGES, output_stride=options.get("output_stride", 16), full=full
        )
        wanted = al.smp_v3plus_scores(state, low, high, rates)
        torch.testing.assert_close(network(IMAGES).logits, wanted, rtol=0, atol=1e-9)
    assert f"dilation={'full' if full else 'half'}" in imported.report.summary()
    assert network.align_corners
    assert (network.num_classes, network.config.low_width, network.config.width) == (4, 5, 8)
    assert network.valid_size(50, 64) == ((64, 64) if not options else (56, 64))


def test_encoder_of_timm_is_named_and_scores_of_the_image_are_left_aside():
    state = {key.replace("encoder.", "encoder.model."): t for key, t in al.filled(al.smp_v3plus_shapes()).items()}
    state["classification_head.3.weight"] = torch.zeros(2, 512)
    imported = import_checkpoint(state, encoder="tu-resnet18")
    assert imported.network.backbone.config.name == "resnet18"
    assert imported.network.backbone.config.dilation == "half"
    assert [key for key, _ in imported.report.ignored] == ["classification_head.3.weight"]


@pytest.mark.slow
def test_deeplab_v3plus_on_bottlenecks_computes_what_that_library_computes():
    state = al.filled(al.smp_v3plus_shapes(depth="resnet50"))
    with torch.no_grad():
        low, *_, high = al.resnet_maps(state, "encoder.", IMAGES, output_stride=16, full=True)
        wanted = al.smp_v3plus_scores(state, low, high, (12, 24, 36))
        torch.testing.assert_close(import_checkpoint(state).network(IMAGES).logits, wanted, rtol=0, atol=1e-9)

from __future__ import annotations

import aspp_layout as al
import pytest
import torch

from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 49, 67, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("options", "grid"), [({}, ()), ({"multi_grid": True}, (1, 2))])
def test_deeplab_v3_computes_what_that_code_computes(options, grid, monkeypatch):
    monkeypatch.setattr("perpixel.weights.importers.encoding_deeplabv3._MULTI_GRID", (1, 2))  # ResNet-18 has two blocks
    state = al.filled(al.encoding_v3_shapes(classes=5))
    imported = import_checkpoint(state, **options)
    assert imported.report.family == "encoding/deeplabv3"
    network = imported.network
    network.supervise = True
    theirs = al.as_torchvision(state)
    with torch.no_grad():
        output = network(IMAGES)
        *_, c4, c5 = al.resnet_maps(theirs, "backbone.", IMAGES, output_stride=8, grid=grid)
        wanted = al.v3_scores(theirs, "classifier.", c5, (12, 24, 36))
        torch.testing.assert_close(output.logits, wanted, rtol=0, atol=1e-9)
        torch.testing.assert_close(output.deep[0], al.auxiliary_scores(theirs, c4), rtol=0, atol=1e-9)
    assert network.align_corners
    assert network.num_classes == 5


def test_unused_classifier_of_the_trunk_is_reported():
    state = al.filled(al.encoding_v3_shapes(auxiliary=None))
    state["pretrained.fc.weight"] = torch.zeros(10, 512)
    imported = import_checkpoint(state, align_corners=False)
    assert [key for key, _ in imported.report.ignored] == ["pretrained.fc.weight"]
    assert not imported.network.align_corners
    assert imported.network.auxiliary_head is None

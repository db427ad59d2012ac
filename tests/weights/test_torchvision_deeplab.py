from __future__ import annotations

import aspp_layout as al
import pytest
import torch
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, deeplabv3_resnet101, lraspp_mobilenet_v3_large

from perpixel.errors import CheckpointError
from perpixel.ops import resize
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 49, 67, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def shapes_of(network: torch.nn.Module) -> al.Shapes:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("options", "output_stride", "full", "rates"),
    [
        ({}, 8, False, (12, 24, 36)),
        ({"output_stride": 16, "dilation": "full", "atrous_rates": [2, 4, 6]}, 16, True, (2, 4, 6)),
    ],
)
def test_deeplab_v3_on_a_resnet_computes_what_torchvision_computes(options, output_stride, full, rates):
    state = al.filled(al.torchvision_v3_shapes())
    imported = import_checkpoint(state, **options)
    assert imported.report.family == "torchvision/deeplabv3"
    network = imported.network
    network.supervise = True
    with torch.no_grad():
        output = network(IMAGES)
        *_, c4, c5 = al.resnet_maps(state, "backbone.", IMAGES, output_stride=output_stride, full=full)
        torch.testing.assert_close(output.logits, al.v3_scores(state, "classifier.", c5, rates), rtol=0, atol=1e-9)
        torch.testing.assert_close(output.deep[0], al.auxiliary_scores(state, c4), rtol=0, atol=1e-9)
    assert (network.num_classes, network.config.width, network.config.auxiliary_width) == (4, 8, 6)
    assert not network.align_corners
    assert network.valid_size(49, 67) == (49, 67)
    chosen, other = ("full", "half") if full else ("half", "full")
    assert f"output stride {output_stride} was taken, and dilation={chosen}" in imported.report.summary()
    assert f"give dilation={other}" in imported.report.summary()


def test_checkpoint_without_auxiliary_head_has_none():
    network = import_checkpoint(al.filled(al.torchvision_v3_shapes(auxiliary=None))).network
    assert network.auxiliary_head is None
    assert network.backbone.config.num_stages == 1
    assert [term.name for term in network.default_terms()] == ["main"]


def test_deeplab_v3_on_mobilenet_computes_what_torchvision_computes():
    theirs = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3, aux_loss=True).double()
    state = al.filled(shapes_of(theirs))
    theirs.load_state_dict(state)
    imported = import_checkpoint(state)
    assert imported.report.family == "torchvision/deeplabv3"
    assert "output stride: 16 was taken" in imported.report.summary()
    network = imported.network
    network.supervise = True
    with torch.no_grad():
        output, expected = network(IMAGES), theirs.eval()(IMAGES)
    for ours, name in ((output.logits, "out"), (output.deep[0], "aux")):
        ours = resize(ours, (49, 67), align_corners=False)
        torch.testing.assert_close(ours, expected[name], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_deeplab_v3_on_resnet101_computes_what_torchvision_computes():
    theirs = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=3).double()
    state = al.filled(shapes_of(theirs))
    theirs.load_state_dict(state)
    network = import_checkpoint(state).network
    assert network.backbone.config.name == "resnet101"
    with torch.no_grad():
        wanted = theirs.eval()(IMAGES)["out"]
        torch.testing.assert_close(
            resize(network(IMAGES).logits, (49, 67), align_corners=False), wanted, rtol=0, atol=1e-9
        )


def test_lraspp_computes_what_torchvision_computes():
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=6).double()
    state = al.filled(shapes_of(theirs))
    theirs.load_state_dict(state)
    imported = import_checkpoint(state)
    assert imported.report.family == "torchvision/lraspp"
    with torch.no_grad():
        ours = resize(imported.network(IMAGES).logits, (49, 67), align_corners=False)
        torch.testing.assert_close(ours, theirs.eval()(IMAGES)["out"], rtol=0, atol=1e-9)


def test_mobilenet_of_one_convention_refuses_the_other():
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    with pytest.raises(CheckpointError, match="is dilated by the convention 'full' alone, got dilation='half'"):
        import_checkpoint(theirs.state_dict(), dilation="half")


def test_other_number_of_rates_than_branches_is_refused():
    with pytest.raises(CheckpointError, match=r"has 3 dilated branches, atrous_rates = \[6, 12\] names 2"):
        import_checkpoint(al.filled(al.torchvision_v3_shapes()), atrous_rates=[6, 12])


def test_checkpoint_of_an_aspp_without_dilated_branches_is_refused():
    state = {k: v for k, v in al.filled(al.torchvision_v3_shapes()).items() if ".convs." not in k or ".convs.0." in k}
    with pytest.raises(CheckpointError, match=r"'classifier.0.convs' holds 1 branches; an ASPP has"):
        import_checkpoint(state, "torchvision/deeplabv3")


def test_trunk_of_unknown_width_is_refused():
    state = dict(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2).state_dict())
    state["backbone.16.0.weight"] = torch.zeros(950, 160, 1, 1)
    with pytest.raises(
        CheckpointError, match=r"is none of torchvision_mobilenetv3_large_100, .*it holds net\.0\.0\.weight"
    ):
        import_checkpoint(state)
    del state["backbone.0.0.weight"]
    with pytest.raises(CheckpointError, match=r"has no first convolution \('net\.0\.0\.weight'\)"):
        import_checkpoint(state)

from __future__ import annotations

import gcn_layout as gl
import pytest
import smp_unet_layout as sl
import torch
import torchseg_layout as ts

from perpixel.errors import CheckpointError
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("encoder", "options", "interpolation"),
    [
        ("resnet18", {"norm": False, "widths": (18, 16, 12, 8, 6), "in_channels": 1}, "nearest"),
        ("resnet18", {"attention": True, "widths": (40, 32, 24, 20, 16)}, "nearest"),
        ("resnet18", {"center": True, "widths": (16, 12, 8, 6)}, "bilinear"),
        ("mobilenet_v2", {"classes": 1}, "nearest"),
    ],
    ids=["no-norm", "scse", "depth-4-center-bilinear", "mobilenet"],
)
def test_unet_of_any_size_computes_what_that_library_computes(encoder, options, interpolation):
    state = ts.filled(sl.shapes(encoder, **options))
    imported = import_checkpoint(state, **({} if interpolation == "nearest" else {"interpolation": interpolation}))
    assert imported.report.family == "smp/unet"
    network = imported.network
    assert network.num_classes == options.get("classes", 3)
    assert network.config.widths == options.get("widths", (24, 20, 16, 12, 8))
    assert network.config.norm == options.get("norm", True)
    assert (network.config.attention == "scse") == options.get("attention", False)
    assert network.config.center == options.get("center", False)
    assert network.config.closing_width == (1280 if encoder == "mobilenet_v2" else 0)
    x = IMAGES[:, : options.get("in_channels", 3)]
    with torch.no_grad():
        wanted = sl.forward(state, encoder, x, mode=interpolation)
        torch.testing.assert_close(network(x).logits, wanted, rtol=0, atol=1e-9)


def test_unused_stages_and_attention_are_reported():
    state = gl.blank(sl.shapes(widths=(32, 16, 16), attention=True))
    state["classification_head.3.weight"] = torch.zeros(2, 512)
    report = import_checkpoint(state).report
    why = dict(report.ignored)
    coarse = [key for key in state if key.startswith(("encoder.layer3.", "encoder.layer4."))]
    assert all("decoder of 3 blocks does not use" in why.pop(key) for key in coarse)
    never = [key for key in state if key.startswith("decoder.blocks.2.attention1.")]
    assert all("never used" in why.pop(key) for key in never)
    assert list(why) == ["classification_head.3.weight"]
    assert len(report.matched) == len(state) - len(coarse) - len(never) - 1
    assert ("decoder.blocks.0.attention2.attention.sSE.0.bias", "blocks.0.excite_out.pixel.bias") in report.renamed


def test_decoder_with_another_norm_is_refused():
    state = gl.blank(sl.shapes(widths=(8, 8)))
    state = {k: v for k, v in state.items() if not (k.startswith("decoder.") and "running" in k)}
    with pytest.raises(CheckpointError, match="has no running mean: decoders with batch norm or without any norm"):
        import_checkpoint(state)


def test_decoder_with_a_hole_is_refused():
    state = {k: v for k, v in gl.blank(sl.shapes(widths=(8, 8, 8))).items() if ".blocks.1." not in k}
    with pytest.raises(CheckpointError, match=r"'decoder.blocks' holds the blocks 0, 2; that library numbers up to 5"):
        import_checkpoint(state)


def test_left_over_keys_are_an_error():
    state = gl.blank(sl.shapes(widths=(8, 8)))
    state["decoder.blocks.0.conv1.3.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"left over .*decoder.blocks.0.conv1.3.weight"):
        import_checkpoint(state)

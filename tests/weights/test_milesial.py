from __future__ import annotations

import pytest
import torch
import unet_layout as layout

from perpixel.errors import CheckpointError
from perpixel.weights import import_checkpoint


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("form", [{}, {"width": 6, "channels": 1, "classes": 5}, {"depth": 2, "bias": True}])
@pytest.mark.parametrize("size", [(32, 48), (37, 53)])
def test_unet_of_any_form_computes_what_milesial_computes(bilinear, form, size):
    state = layout.filled(layout.milesial_shapes(bilinear=bilinear, **form))
    imported = import_checkpoint(state)
    network = imported.network
    assert imported.report.family == "milesial/unet"
    assert network.config.upsampling == ("bilinear" if bilinear else "deconvolution")
    widths = tuple(form.get("width", 4) * 2**level for level in range(form.get("depth", 4) + 1))
    assert (network.config.widths, network.num_classes) == (widths, form.get("classes", 2))
    assert (network.config.in_channels, network.config.biased) == (form.get("channels", 3), form.get("bias", False))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, form.get("channels", 3), *size, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = network(images).logits, layout.milesial_forward(state, images)
    assert ours.shape == theirs.shape == (2, network.num_classes, *size)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("values", [[0, 1], torch.tensor([0, 255])])
def test_mask_values_of_a_released_file_are_left_aside_and_named(tmp_path, values):
    state = layout.filled(layout.milesial_shapes(), torch.float32)
    torch.save({**state, "mask_values": values}, tmp_path / "unet_carvana.pth")
    imported = import_checkpoint(tmp_path / "unet_carvana.pth")
    assert "mask_values" in imported.report.summary()
    assert len(imported.report.matched) == len(state)


def test_images_are_only_divided_by_their_full_scale():
    preprocessing = import_checkpoint(layout.filled(layout.milesial_shapes())).network.preprocessing
    assert (preprocessing.mean, preprocessing.std, preprocessing.value_range) == ((0.0,) * 3, (1.0,) * 3, 1.0)


def test_missing_key_and_odd_shape_are_an_error():
    shapes = layout.milesial_shapes()
    state = layout.filled(shapes)
    del state["up2.conv.double_conv.3.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing .*up\.2\.fuse\.second\.conv\.weight"):
        import_checkpoint(state)
    with pytest.raises(CheckpointError, match=r"lacks 'down1\.maxpool_conv\.1\.double_conv\.3\.weight'"):
        import_checkpoint({k: v for k, v in layout.filled(shapes).items() if "down1" not in k}, "milesial/unet")
    with pytest.raises(CheckpointError, match=r"lacks 'outc\.conv\.weight'"):
        import_checkpoint({k: v for k, v in layout.filled(shapes).items() if k != "outc.conv.weight"})
    with pytest.raises(CheckpointError, match=r"'outc\.conv\.weight' has shape \(2, 4\), 4 dimensions expected"):
        import_checkpoint({**layout.filled(shapes), "outc.conv.weight": torch.zeros(2, 4)})


def test_another_unet_is_not_taken_for_milesials():
    state = layout.filled(layout.original_shapes())
    with pytest.raises(CheckpointError, match=r"not of family milesial/unet .*looks like unet/original"):
        import_checkpoint(state, "milesial/unet")


def test_one_score_per_pixel_is_imported_and_its_reading_is_said():
    report = import_checkpoint(layout.filled(layout.milesial_shapes(classes=1))).report
    assert any("Segmenter.logits, is above 0" in note for note in report.notes)
    two = import_checkpoint(layout.filled(layout.milesial_shapes())).report
    assert [("scale" in note, "above 0" in note) for note in two.notes] == [(True, False)]

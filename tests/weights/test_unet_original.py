from __future__ import annotations

import pytest
import torch
import unet_layout as layout

from perpixel.errors import CheckpointError
from perpixel.weights import import_checkpoint


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("form", [{}, {"width": 3, "channels": 3, "classes": 4}])
def test_original_of_either_form_computes_what_the_caffe_layers_compute(released, form):
    state = layout.filled(layout.original_shapes(released=released, **form))
    imported = import_checkpoint(state)
    network = imported.network
    assert imported.report.family == "unet/original"
    assert network.config.form == ("released" if released else "paper")
    assert (network.config.width, network.num_classes) == (form.get("width", 4), form.get("classes", 2))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, form.get("channels", 1), 188, 220, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = network(images).logits, layout.original_forward(state, images, released=released)
    assert ours.shape == theirs.shape == (1, network.num_classes, 4, 36)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_arrays_under_caffes_own_layer_names_are_the_same_network():
    state = layout.filled(layout.original_shapes())
    caffe = {}
    for key, tensor in state.items():
        name = key if key.startswith("upconv") else key.replace("a_b.", "a-b.").replace("b_c.", "b-c.")
        caffe[name.replace("c_d.", "c-d.").replace("d_score", "d-score")] = tensor.numpy()
    assert "conv_d0a-b.weight" in caffe
    assert "conv_u0d-score.bias" in caffe
    ours = import_checkpoint(caffe).network.state_dict()
    for key, tensor in import_checkpoint(state).network.state_dict().items():
        assert torch.equal(ours[key], tensor), key


def test_shapes_that_fit_neither_form_are_an_error():
    state = layout.filled(layout.original_shapes())
    state["upconv_u1d_u0a.weight"] = torch.zeros(8, 5, 2, 2)
    with pytest.raises(CheckpointError, match=r"5 channels at base width 4: neither .* form \(4\) nor .* \(8\)"):
        import_checkpoint(state)
    with pytest.raises(CheckpointError, match=r"lacks 'conv_u0d_score\.weight'"):
        import_checkpoint({k: v for k, v in layout.filled(layout.original_shapes()).items() if "score" not in k})
    with pytest.raises(CheckpointError, match=r"'conv_d0a_b\.weight' has shape \(4,\), 4 dimensions expected"):
        import_checkpoint({**state, "conv_d0a_b.weight": torch.zeros(4)})


def test_missing_layer_is_an_error_that_names_it():
    state = layout.filled(layout.original_shapes())
    del state["conv_u2c_d.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing .*up\.2\.fuse\.second\.bias"):
        import_checkpoint(state)

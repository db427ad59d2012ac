from __future__ import annotations

import gcn_layout as gl
import pytest
import torch
import torchseg_layout as ts

from perpixel.errors import CheckpointError
from perpixel.weights import import_checkpoint


def images(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)


def test_zijundengs_gcn_of_any_size_computes_what_that_code_computes():
    kernels = (3, 5, 7, 9)
    state = ts.filled(gl.zijundeng_shapes(classes=5, kernels=kernels, in_channels=4))
    imported = import_checkpoint(state)
    assert imported.report.family == "zijundeng/gcn"
    network = imported.network
    assert (network.num_classes, network.config.kernel_sizes) == (5, kernels)
    x = images(33, 70, channels=4)
    with torch.no_grad():
        torch.testing.assert_close(network(x).logits, gl.zijundeng_forward(state, "resnet18", x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kernel", "deconvolution", "size"), [(5, None, (33, 70)), (3, 4, (48, 80))])
def test_yassoualis_gcn_of_any_kernel_computes_what_that_code_computes(kernel, deconvolution, size):
    state = ts.filled(gl.yassouali_shapes(kernel=kernel, deconvolution=deconvolution))
    imported = import_checkpoint(state)
    assert imported.report.family == "yassouali/gcn"
    config = imported.network.config
    assert config.kernel_sizes == (kernel,)
    assert (config.upsampling == "deconvolution") == config.half_scale == (deconvolution is not None)
    x = images(*size)
    with torch.no_grad():
        torch.testing.assert_close(
            imported.network(x).logits, gl.yassouali_forward(state, "resnet18", x), rtol=0, atol=1e-9
        )


def test_batch_norms_that_yassouali_never_calls_are_reported():
    state = gl.blank(gl.yassouali_shapes(classes=2, kernel=3))
    report = import_checkpoint(state).report
    assert [key for key, reason in report.ignored if "never used" in reason] == [
        key for key in state if key.startswith("br") and ".bn" in key
    ]
    assert len(report.matched) == len(state) - 9 * 2 * 5
    assert ("gcn4.conv11.weight", "stages.0.0.vertical_first.0.weight") in report.renamed


def test_corners_that_a_fork_does_not_align_can_be_told():
    state = gl.blank(gl.zijundeng_shapes(classes=2))
    network = import_checkpoint(state, align_corners=False).network
    assert not network.config.align_corners and network.config.kernel_sizes == (3,)


def test_yassoualis_resnet_gcn_is_refused():
    state = gl.blank(gl.yassouali_shapes(classes=1, kernel=1))
    state["backbone.layer3.0.gcn.conv11.weight"] = torch.zeros(85, 512, 5, 1)
    with pytest.raises(CheckpointError, match="that code's ResNet-GCN, whose stages do not fit together"):
        import_checkpoint(state)


def test_even_kernel_is_refused():
    state = gl.blank(gl.zijundeng_shapes(classes=1))
    state["gcm2.conv_l1.weight"] = torch.zeros(1, 256, 4, 1)
    with pytest.raises(CheckpointError, match=r"have kernels \[3, 4, 3, 3\]: those of GCN are odd"):
        import_checkpoint(state)


def test_left_over_keys_are_an_error():
    state = gl.blank(gl.zijundeng_shapes(classes=1))
    state["brm9.extra.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"left over .*brm9.extra.weight"):
        import_checkpoint(state)

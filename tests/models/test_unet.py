"""Both U-Nets: published sizes, what they see, which sizes they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.inference import Segmenter
from perpixel.labels import LabelSpace
from perpixel.losses import SegmentationLoss
from perpixel.models import Network, create_model
from perpixel.models.unet import UNetConfig
from perpixel.models.unet_original import OriginalUNet, OriginalUNetConfig

TINY: dict[str, Any] = {"widths": (4, 6, 8)}


def network(name: str, **options: Any) -> Network:
    torch.manual_seed(0)
    return create_model(name, options, num_classes=3)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unet", {}, 31_037_698),
        ("unet", {"upsampling": "bilinear"}, 17_263_042),
        ("unet_original", {}, 31_030_658),
        ("unet_original", {"form": "released"}, 31_100_354),
    ],
)
def test_unet_published_form_has_the_published_parameter_count(name: str, options: Any, parameters: int) -> None:
    with torch.device("meta"):
        built = create_model(name, options, num_classes=2)
    assert sum(p.numel() for p in built.parameters()) == parameters


@pytest.mark.parametrize("upsampling", ["deconvolution", "bilinear"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_unet_logits_have_the_images_size_at_any_size_and_channels(upsampling: str, channels: int) -> None:
    built = network("unet", **TINY, upsampling=upsampling, in_channels=channels).eval()
    for size in ((8, 8), (9, 15), (33, 20)):
        assert built(torch.randn(1, channels, *size)).logits.shape == (1, 3, *size)
    assert (built.preprocessing.num_channels, built.minimum_size, built.logit_stride) == (channels, 8, 1)


def seen(built: Network, size: int, output: tuple[int, int]) -> tuple[int, int]:
    """First and last image row that a logit depends on: positive weights and mean pooling hide nothing."""
    for parameter in built.parameters():
        nn.init.constant_(parameter, 0.1)
    built.pool = nn.AvgPool2d(2)
    image = torch.ones(1, built.preprocessing.num_channels, size, size, dtype=torch.float64, requires_grad=True)
    logits = built.double().eval()(image).logits
    (gradient,) = torch.autograd.grad(logits[0, 0, output[0], output[1]], image)
    rows = gradient[0, 0].abs().sum(dim=1).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1])


def test_unet_receptive_field_is_the_widest_that_a_logit_has() -> None:
    built = network("unet", widths=(1, 2, 2))
    widest = 0
    for position in range(40, 44):
        first, last = seen(built, 88, (position, 44))
        widest = max(widest, last - first + 1)
    assert widest == built.receptive_field == 44


def test_unet_bilinear_sees_no_more_than_it_states() -> None:
    built = network("unet", widths=(2, 2, 4), upsampling="bilinear")
    assert built.receptive_field is not None
    for position in range(40, 44):
        first, last = seen(built, 96, (position, 44))
        assert last - first + 1 <= built.receptive_field


def test_original_receptive_field_and_margin_are_what_gradients_say() -> None:
    built = network("unet_original", width=1)
    widths = []
    for position in (0, 3, 4, 15, 16):
        first, last = seen(built, 204, (position, 4))
        centre = position + built.margin  # the image pixel that this logit stands for
        assert first < centre < last
        widths.append(last - first + 1)
    assert widths == [188, 188, 204, 204, 188]
    assert max(widths) == built.receptive_field


def test_original_network_of_the_paper_gives_388_of_572() -> None:
    built = network("unet_original", width=1).eval()
    assert built(torch.randn(1, 1, 572, 188)).logits.shape == (1, 3, 388, 4)


@pytest.mark.parametrize(
    ("size", "fitting"), [((1, 188), (188, 188)), ((189, 204), (204, 204)), ((572, 573), (572, 588))]
)
def test_original_valid_size_is_the_next_16k_plus_60(size: tuple[int, int], fitting: tuple[int, int]) -> None:
    assert network("unet_original", width=1).valid_size(*size) == fitting


def test_original_other_sizes_are_refused_with_the_nearest() -> None:
    built = network("unet_original", width=1)
    with pytest.raises(InvalidValue, match="and got 573; the nearest it takes: 572 and 588"):
        built(torch.zeros(1, 1, 188, 573))
    with pytest.raises(InvalidValue, match="and got 172; the nearest it takes: 188"):
        built(torch.zeros(1, 1, 172, 188))


def test_original_mirrored_kernels_mirror_scores_so_that_crops_are_centred() -> None:
    built = network("unet_original", width=2).double().eval()
    for parameter in built.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data + parameter.data.flip(3)
    image = torch.randn(1, 1, 188, 204, dtype=torch.float64)
    logits = built(image).logits
    assert torch.allclose(built(image.flip(3)).logits.flip(3), logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_original_starts_from_the_papers_initialisation(form: str) -> None:
    built = network("unet_original", width=16, form=form)
    assert isinstance(built, OriginalUNet)
    layers = [m for m in built.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23
    assert all(layer.bias is not None and not layer.bias.any() for layer in layers)
    deepest = built.down[4].get_submodule("second")
    upsampling = built.up[3].get_submodule("upsample")
    assert isinstance(deepest, nn.Conv2d) and isinstance(upsampling, nn.ConvTranspose2d)
    assert deepest.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert upsampling.weight.std().item() == pytest.approx((2 / (4 * 128)) ** 0.5, rel=0.02)


def test_original_dropout_reaches_the_skipped_map_of_the_last_but_one_level() -> None:
    built = network("unet_original", width=1).train()
    given: list[Tensor] = []
    built.up[3].register_forward_hook(lambda _module, inputs, _output: given.append(inputs[1]))
    full = network("unet_original", width=1, dropout=0.0).train()
    full.up[3].register_forward_hook(lambda _module, inputs, _output: given.append(inputs[1]))
    image = torch.randn(1, 1, 188, 188)
    built(image)
    full(image)
    dropped, kept = given
    assert (dropped == 0).sum() > (kept == 0).sum()
    present = dropped != 0
    assert torch.allclose(dropped[present], 2 * kept[present])


@pytest.mark.parametrize("name", ["unet", "unet_original"])
def test_unet_default_terms_make_a_loss_that_can_be_followed(name: str) -> None:
    built = network(name, **(TINY if name == "unet" else {"width": 2})).train()
    side = built.minimum_size + 16
    image = torch.randn(1, built.preprocessing.num_channels, side, side)
    target = torch.randint(0, 3, (1, side, side), dtype=torch.uint8)
    criterion = SegmentationLoss(built.default_terms(), num_classes=3, align_corners=False, margin=built.margin)
    value = criterion(built(image), target)
    value.total.backward()
    assert set(value.parts) == ({"main", "dice"} if name == "unet" else {"main"})
    assert torch.isfinite(value.total)
    assert all(p.grad is not None for p in built.parameters())


@pytest.mark.parametrize("name", ["unet", "unet_original"])
def test_unet_exports_with_the_same_logits(name: str) -> None:
    built = network(name, **(TINY if name == "unet" else {"width": 2})).eval()
    size = (33, 46) if name == "unet" else (188, 204)
    image = torch.randn(1, built.preprocessing.num_channels, *size)
    exported = torch.export.export(built, (image,)).module()
    assert torch.allclose(exported(image).logits, built(image).logits, rtol=0, atol=1e-6)


def test_original_in_the_segmenter_gives_each_image_its_own_size_and_mirrors_beyond_it() -> None:
    built = network("unet_original", width=2)
    segmenter = Segmenter(built, LabelSpace.numbered(3))
    image = torch.randint(0, 256, (1, 1, 70, 110), dtype=torch.uint8)
    logits = segmenter.logits(image)
    assert logits.shape == (1, 3, 70, 110)
    beyond = ((0, 0), (0, 0), (92, 268 - 92 - 70), (92, 300 - 92 - 110))  # 16k + 60 pixels hold 70 + 184 and 110 + 184
    mirrored = torch.from_numpy(np.pad(image.numpy(), beyond, mode="reflect")).float() / 255
    with torch.no_grad():
        whole = built.eval()(mirrored).logits
    assert torch.allclose(whole[..., :70, :110], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (UNetConfig, {"in_channels": 0}, "UNet in_channels must be >= 1, got 0"),
        (UNetConfig, {"widths": (8,)}, r"two or more positive numbers, finest level first; got \(8,\)"),
        (UNetConfig, {"widths": (8, 0)}, r"got \(8, 0\)"),
        (UNetConfig, {"widths": (8, 12, 15)}, "must be even, got 15"),
        (UNetConfig, {"upsampling": "nearest"}, "'deconvolution' or 'bilinear', got 'nearest'"),
        (OriginalUNetConfig, {"width": 0}, "OriginalUNet width must be >= 1, got 0"),
        (OriginalUNetConfig, {"in_channels": -1}, "OriginalUNet in_channels must be >= 1, got -1"),
        (OriginalUNetConfig, {"form": "caffe"}, "'paper' or 'released', got 'caffe'"),
        (OriginalUNetConfig, {"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_unet_config_wrong_value_is_refused(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        config(**options)


def test_unet_image_too_small_for_its_poolings_is_refused() -> None:
    network = create_model("unet", UNetConfig.small(), num_classes=2).eval()
    least = 2 ** UNetConfig.small().depth
    assert network(torch.zeros(1, 3, least, least)).logits.shape == (1, 2, least, least)
    with pytest.raises(InvalidValue, match=rf"at least {least} x {least} pixels, got {least - 1} x 40; the Segmenter"):
        network(torch.zeros(1, 3, least - 1, 40))

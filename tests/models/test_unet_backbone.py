"""U-Net on a classification network: the decoder's blocks by hand, sizes, published counts, export for all sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import UNetBackbone, UNetBackboneConfig, create_model
from perpixel.models.unet_backbone import DecoderBlock, SpatialChannelExcitation
from perpixel.types import Preprocessing


class StridedTrunk(nn.Module):
    """Maps of 3, 4, 5… channels, finest first, the first at ``stride``, each half as fine as the one before."""

    def __init__(self, stride: int = 2, count: int = 3) -> None:
        super().__init__()
        self.config = BackboneConfig()
        self.strides = tuple(stride * 2**i for i in range(count))
        self.channels = tuple(range(3, 3 + count))
        self.preprocessing = Preprocessing()
        self.convs = nn.ModuleList(
            nn.Conv2d(out - 1 if i else 3, out, 3, stride=2 if i else stride, padding=1)
            for i, out in enumerate(self.channels)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = []
        for conv in self.convs:
            x = conv(x)
            maps.append(x)
        return tuple(maps)


PLAIN = UNetBackboneConfig(widths=(8, 6, 4))


def unet(config: UNetBackboneConfig = PLAIN, *, stride: int = 2, count: int = 3) -> UNetBackbone:
    torch.manual_seed(0)
    return UNetBackbone(StridedTrunk(stride, count), 2, config).eval()  # type: ignore[arg-type]


def test_unet_backbone_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = create_model("unet_backbone", num_classes=21)
    assert network.backbone is not None and network.backbone.strides == (2, 4, 8, 16, 32)
    assert sum(p.numel() for p in network.parameters()) == 24_439_269


def test_unet_backbone_named_trunk_gives_five_maps() -> None:
    with torch.device("meta"):
        named = create_model("unet_backbone", num_classes=2, backbone="resnet18")
        shallow = create_model("unet_backbone", num_classes=2, backbone=BackboneConfig(name="resnet18"))
    assert named.backbone is not None and shallow.backbone is not None
    assert (named.backbone.strides[0], shallow.backbone.strides[0]) == (2, 4)


def test_decoder_block_doubles_by_nearest_neighbour_and_reads_enlarged_before_skipped() -> None:
    block = DecoderBlock(1, 1, 1, UNetBackboneConfig(widths=(1,), norm=False))
    for conv, weights in ((block.first[0], (1.0, 10.0)), (block.second[0], (1.0,))):
        nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        for channel, weight in enumerate(weights):
            conv.weight.data[0, channel, 1, 1] = weight  # type: ignore[index]
    x = torch.tensor([[[[1.0, 2.0]]]])
    skipped = torch.tensor([[[[1.0, 0.0, 0.0, -1.0], [0.0, 0.0, 1.0, 0.0]]]])
    wanted = torch.tensor([[11.0, 1.0, 2.0, 0.0], [1.0, 1.0, 12.0, 2.0]])
    assert torch.equal(block(x, skipped, skipped.shape[-2:])[0, 0], wanted)


@pytest.mark.parametrize("norm", [True, False])
def test_decoder_block_in_two_parts_is_the_convolution_of_the_concatenation(norm: bool) -> None:
    torch.manual_seed(1)
    block = DecoderBlock(3, 4, 5, UNetBackboneConfig(widths=(5,), norm=norm)).double().eval()
    x, skipped = (torch.randn(2, c, 6, 7, dtype=torch.float64) for c in (3, 4))
    whole = block.second(block.first(torch.cat((x, skipped), dim=1)))
    assert torch.allclose(block(x, skipped, skipped.shape[-2:]), whole, rtol=0, atol=1e-12)


def test_excitation_multiplies_by_channel_and_by_pixel_and_adds() -> None:
    excitation = SpatialChannelExcitation(2, 2).double()
    for parameter in excitation.parameters():
        nn.init.zeros_(parameter)
    # Channel 0 gets the weight sigmoid(2 * relu(mean of channel 1)), the pixel the weight sigmoid(channel 0).
    excitation.channel[0].weight.data[0, 1] = 1.0  # type: ignore[index,union-attr]
    excitation.channel[2].weight.data[0, 0] = 2.0  # type: ignore[index,union-attr]
    excitation.pixel.weight.data[0, 0] = 1.0
    x = torch.tensor([[[[1.0, -1.0]], [[0.0, 2.0]]]], dtype=torch.float64)
    s = torch.sigmoid(torch.tensor([2.0, 0.0, 1.0, -1.0], dtype=torch.float64))
    wanted = torch.stack((x[0, 0, 0] * (s[0] + s[2:]), x[0, 1, 0] * (s[1] + s[2:])))
    assert torch.allclose(excitation(x)[0, :, 0], wanted, atol=1e-15)


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, interpolation="bilinear"), replace(PLAIN, norm=False)])
@pytest.mark.parametrize("size", [(16, 24), (17, 30)])
def test_unet_backbone_logits_have_the_images_size(config: UNetBackboneConfig, size: tuple[int, int]) -> None:
    assert unet(config)(torch.randn(1, 3, *size)).logits.shape == (1, 2, *size)


@pytest.mark.parametrize(("stride", "count", "widths"), [(4, 2, (8, 4, 4)), (1, 3, (8, 4)), (4, 1, (3, 2))])
def test_unet_backbone_doubles_without_skips_below_the_finest_map(stride: int, count: int, widths: Any) -> None:
    network = unet(UNetBackboneConfig(widths=widths), stride=stride, count=count)
    assert network(torch.randn(1, 3, 17, 30)).logits.shape[-2:] == (17, 30)


def test_unet_backbone_center_and_closing_stand_on_the_coarsest_map() -> None:
    network = unet(replace(PLAIN, center=True, closing_width=7))
    assert network.closing is not None and network.center is not None
    closed = network.closing(100 * torch.ones(1, 5, 1, 1))
    assert closed.shape[1] == 7 and closed.max() <= 6
    assert network.center[1][0].weight.shape == (7, 7, 3, 3)  # type: ignore[index]
    assert network.blocks[0].first[0].in_channels == 7 + 4  # type: ignore[index,union-attr]
    assert network(torch.randn(1, 3, 8, 8)).logits.shape[-2:] == (8, 8)


def test_unet_backbone_attention_stands_only_where_it_is_called() -> None:
    network = unet(replace(PLAIN, attention="scse", attention_reduction=2))
    assert [block.excite_in is None for block in network.blocks] == [False, False, True]
    assert all(block.excite_out is not None for block in network.blocks)
    assert network(torch.randn(1, 3, 8, 8)).logits.shape[-2:] == (8, 8)


def test_unet_backbone_valid_sizes_are_multiples_of_the_coarsest_stride() -> None:
    assert unet().valid_size(17, 3) == (24, 16)
    assert [t.name for t in unet().default_terms()] == ["main"]


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, attention="scse", attention_reduction=2)])
def test_unet_backbone_exports_for_all_multiples_of_its_stride(config: UNetBackboneConfig) -> None:
    network = unet(config)
    rows, columns = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("columns", min=2, max=64)
    sizes = {2: 8 * rows, 3: 8 * columns}
    exported = torch.export.export(network, (torch.randn(1, 3, 32, 24),), dynamic_shapes=(sizes,)).module()
    x = torch.randn(1, 3, 16, 64)
    assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, r"widths are one positive number per block, coarsest first, got \[\]"),
        ({"widths": (4, 0)}, r"one positive number per block, coarsest first, got \[4, 0\]"),
        ({"attention": "se"}, "attention is 'none' or 'scse', got 'se'"),
        ({"interpolation": "cubic"}, "interpolation is 'nearest' or 'bilinear', got 'cubic'"),
        ({"attention_reduction": 0}, "attention_reduction must be >= 1 and closing_width >= 0, got 0 and 0"),
        ({"closing_width": -1}, "closing_width >= 0, got 16 and -1"),
    ],
)
def test_unet_backbone_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        UNetBackboneConfig(**options)


def test_unet_backbone_other_number_of_widths_than_steps_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"needs 3 widths for the backbone's strides \[2, 4, 8\], .* got \[8, 6\]"):
        unet(UNetBackboneConfig(widths=(8, 6)))


def test_excitation_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InvalidValue, match="attention_reduction=16 leaves nothing of 8 channels"):
        SpatialChannelExcitation(8, 16)

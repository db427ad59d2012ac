from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.segnet_basic import DECODERS, SegNetBasic, SegNetBasicConfig
from perpixel.types import Preprocessing

# Decoder -> (derived by hand without biases, in millions in the paper's table 1).
COUNTS = {
    "bilinear": (611_520 + 512 + 704, 0.625),
    "unpool": (611_520 + 512 + 802_816 + 512 + 704, 1.425),
    "unpool_add_encoder": (611_520 + 512 + 802_816 + 512 + 704, 1.425),
    "unpool_single_channel": (611_520 + 512 + 12_544 + 512 + 704, 0.625),
    "fcn": (611_520 + 512 + 30_976 + 2_816, 0.65),
    "fcn_no_addition": (611_520 + 512 + 30_976 + 704, 0.65),
    "fcn_no_reduction": (611_520 + 512 + 1_048_576 + 704, 1.625),
    "fcn_no_addition_no_reduction": (611_520 + 512 + 1_048_576 + 704, 1.625),
}
TINY: dict[str, Any] = {"width": 4, "kernel": 3}


def basic(**options: Any) -> SegNetBasic:
    torch.manual_seed(0)
    network = create_model("segnet_basic", {**TINY, **options}, num_classes=3)
    assert isinstance(network, SegNetBasic)
    return network


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoder_has_the_derived_parameter_count_close_to_the_papers(decoder: str) -> None:
    derived, published = COUNTS[decoder]
    with torch.device("meta"):
        network = create_model("segnet_basic", {"decoder": decoder, "bias": False}, num_classes=11)
    assert parameters(network) == derived
    assert derived == pytest.approx(published * 1e6, rel=0.025)


def test_released_segnet_basic_has_the_released_parameter_count() -> None:
    with torch.device("meta"):
        network = create_model("segnet_basic", num_classes=11)
    assert parameters(network) == 1_416_587


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(9, 9), (45, 30), (32, 64)])
def test_decoder_any_size_gives_logits_of_that_size(decoder: str, size: tuple[int, int]) -> None:
    assert basic(decoder=decoder).eval()(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoder_batch_of_one_at_the_minimum_size_trains_every_parameter(decoder: str) -> None:
    network = basic(decoder=decoder, in_channels=2).train()
    side = network.minimum_size
    network(torch.randn(1, 2, side, side)).logits.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoder_exports_with_the_same_logits(decoder: str) -> None:
    network = basic(decoder=decoder).eval()
    x = torch.randn(1, 3, 45, 70)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x).logits, network(x).logits)


def test_unpooling_decoders_export_with_free_sizes() -> None:
    network = basic().eval()
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(network, (torch.randn(1, 3, 64, 70),), dynamic_shapes=(sides,))
    x = torch.randn(1, 3, 45, 96)
    torch.testing.assert_close(program.module()(x).logits, network(x).logits)


def test_encoder_addition_adds_each_levels_map_before_pooling() -> None:
    network = basic(decoder="unpool_add_encoder").eval()
    plain = basic(decoder="unpool").eval()
    plain.load_state_dict(network.state_dict())
    for module in (network, plain):
        for name, parameter in module.named_parameters():
            if name.startswith("decoder."):  # decoders that give zero leave the encoder's map of the first level
                nn.init.zeros_(parameter)
    x = torch.randn(1, 3, 21, 18)
    first = torch.relu(network.encoder["level1"](network_input(network, x)))
    torch.testing.assert_close(network(x).logits, network.classifier(first))
    assert plain(x).logits.flatten(2).std(2).max() < 1e-6


def network_input(network: SegNetBasic, x: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = network.encoder["level1"].register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    network(x)
    handle.remove()
    return seen[0]


def test_single_channel_decoder_keeps_maps_apart() -> None:
    network = basic(decoder="unpool_single_channel").eval()
    level = network.decoder.get_submodule("level2")
    x = torch.randn(1, 4, 6, 6)
    moved = x.clone()
    moved[:, 1] += 1
    changed = (level(moved) != level(x)).flatten(2).any(2)[0]
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize("decoder", ["fcn", "fcn_no_addition", "fcn_no_reduction"])
def test_deconvolutions_begin_as_bilinear_doublings(decoder: str) -> None:
    network = basic(decoder=decoder)
    deconv = network.decoder.get_submodule("deconv3")
    assert isinstance(deconv, nn.ConvTranspose2d)
    assert tuple(deconv.weight.shape[2:]) == (8, 8)
    x = torch.randn(1, deconv.in_channels, 5, 6)
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(deconv(x)[..., 1:-1, 1:-1], doubled[..., 1:-1, 1:-1])


def test_fcn_decoder_adds_the_reduced_pooled_map_of_each_size_but_the_images() -> None:
    network = basic(decoder="fcn", bias=False, input_normalisation="none").eval()
    x = torch.randn(1, 3, 32, 32)
    pooled = []
    maps = x
    for level in network.encoder.values():
        maps = F.max_pool2d(torch.relu(level(maps)), 2)
        pooled.append(maps)
    scores = network.decoder.get_submodule("reduce4")(pooled[3])
    for i in (3, 2, 1):
        scores = network.decoder.get_submodule(f"deconv{i + 1}")(scores)
        scores = scores + network.decoder.get_submodule(f"reduce{i}")(pooled[i - 1])
    torch.testing.assert_close(network(x).logits, network.decoder.get_submodule("deconv1")(scores))


def test_bilinear_decoder_keeps_cells_in_place_where_poolings_round_up() -> None:
    network = basic(decoder="bilinear").eval()
    cells = torch.zeros(1, 3, 3, 2)
    cells[..., 2, 1] = 1.0
    scores = network.decoder(cells, torch.Size((40, 20)))
    assert scores.shape == (1, 3, 40, 20)
    assert scores[0, 0, 39, 19] == pytest.approx((1 - 0.5 / 16) * (1 - 4.5 / 16), abs=0.02)
    assert scores[0, 0, 16, 4] == 0


def test_bayesian_basic_drops_behind_two_poolings_and_two_decoders() -> None:
    network = basic(bayesian=True).train()
    calls: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _m, _i, out: calls.append(tuple(out.shape[2:])))
    network(torch.randn(2, 3, 32, 32))
    assert calls == [(4, 4), (2, 2), (4, 4), (8, 8)]


def test_basic_takes_raw_pixels_blue_first_unless_it_normalises_nothing_itself() -> None:
    assert basic().preprocessing == Preprocessing(
        mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="bgr", value_range=255.0
    )
    assert basic(input_normalisation="none").preprocessing == Preprocessing()
    assert basic(in_channels=2).preprocessing.channel_order == "rgb"
    assert basic(in_channels=2, input_normalisation="none").preprocessing.mean == (0.5, 0.5)


def test_decoders_bear_the_names_of_table_1() -> None:
    assert len({form.published for form in DECODERS.values()}) == 8
    assert DECODERS["unpool"].published == "SegNet-Basic"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "unpol"}, "unknown decoder 'unpol'; did you mean 'unpool'"),
        ({"input_normalisation": "local"}, "one of none, lrn, contrast, got 'local'"),
        ({"width": 0}, "in_channels and width must be >= 1, got 3 and 0"),
        ({"kernel": 4}, "kernel must be odd, so that sizes are kept, got 4"),
        ({"dropout": 0.0}, r"dropout must lie in \(0, 1\), got 0.0"),
        ({"norm_eps": -1.0}, "norm_eps must be positive, got -1.0"),
    ],
)
def test_basic_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        SegNetBasicConfig(**options)


def test_basic_takes_no_backbone() -> None:
    with pytest.raises(InvalidValue, match="segnet_basic is a network of one piece and takes no backbone"):
        create_model("segnet_basic", num_classes=2, backbone="vgg16")

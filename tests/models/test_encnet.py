"""EncNet: its blocks by hand, its parts, its published size, and its loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from perpixel.backbones import BackboneConfig, create_backbone
from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import EncNet, EncNetConfig, create_model
from perpixel.models.encnet import ContextEncoding, ContextEncodingModule

SMALL = {"width": 8, "num_codewords": 4, "auxiliary_width": 4}
DILATED = BackboneConfig(name="test_resnet", output_stride=8)


def small(backbone: BackboneConfig = DILATED, **options: Any) -> EncNet:
    torch.manual_seed(0)
    network = create_model("encnet", {**SMALL, **options}, num_classes=3, backbone=backbone)
    assert isinstance(network, EncNet)
    return network


def published(name: str, num_classes: int, **options: Any) -> EncNet:
    trunk = BackboneConfig(name=name, stem="deep64", output_stride=8)
    with torch.device("meta"):
        network = create_model("encnet", options, num_classes=num_classes, backbone=trunk)
    assert isinstance(network, EncNet)
    return network


def one_channel_module(**options: Any) -> ContextEncodingModule:
    """One channel, one codeword at 0: semantics are the sum of the positive values."""
    module = ContextEncodingModule(1, num_codewords=1, num_classes=1, **options).eval()
    with torch.no_grad():
        module.semantics.project.conv.weight.fill_(1)
        module.semantics.encoding.codewords.fill_(0)
        module.attention.weight.fill_(0)
        module.attention.bias.fill_(math.log(3))  # sigmoid: 3/4
        assert module.presence is not None
        module.presence.weight.fill_(0.5)
        module.presence.bias.fill_(1)
    module.semantics.project.norm.eps = module.semantics.norm.eps = 0.0
    return module


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "parameters", "gigamacs"),
    [
        ("resnet50", 150, {}, 36_164_578, 137.6),
        ("resnet101", 59, {"lateral": True}, 62_907_345, 233.9),
    ],
)
def test_encnet_has_the_published_size(
    name: str, num_classes: int, options: dict[str, Any], parameters: int, gigamacs: float
) -> None:
    network = published(name, num_classes, **options).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    network.supervise = True
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(1, 3, 480, 480, device="meta"))
    codewords = 2 * 60 * 60 * 32 * 512  # the two products of the Encoding layer, which the count leaves out
    assert counter.get_total_flops() / 2e9 - codewords / 1e9 == pytest.approx(gigamacs, abs=0.06)


def test_context_encoding_module_one_channel_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0, -2.0]]]])
    module = one_channel_module()
    features, semantics = module(x)
    assert module.presence is not None
    assert semantics.item() == pytest.approx(4)  # the block's ReLU cuts -2 off
    torch.testing.assert_close(features, torch.tensor([[[[1.75, 5.25, 0.0]]]]))  # x + 3/4 x
    assert module.presence(semantics).item() == pytest.approx(3)
    plain, _ = one_channel_module(attention="plain")(x)
    torch.testing.assert_close(plain, torch.tensor([[[[0.75, 2.25, 0.0]]]]))


def test_context_encoding_joins_codewords_by_mean_or_sum() -> None:
    torch.manual_seed(0)
    mean = ContextEncoding(3, 6, num_codewords=5).eval()
    total = ContextEncoding(3, 6, num_codewords=5, join="sum").eval()
    total.load_state_dict(mean.state_dict())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(total(x), 5 * mean(x))


def test_batch_of_one_normalises_each_codeword_over_its_channels_as_published() -> None:
    torch.manual_seed(0)
    context = ContextEncoding(3, 6, num_codewords=4).train()
    codes: list[torch.Tensor] = []
    context.encoding.register_forward_hook(lambda _m, _i, out: codes.append(out.detach()))
    semantics = context(torch.randn(1, 3, 5, 5))
    (code,) = codes  # (1, 4, 6)
    variance, mean = torch.var_mean(code[0], dim=1, correction=0, keepdim=True)
    expected = ((code[0] - mean) / (variance + context.norm.eps).sqrt()).relu().mean(dim=0)
    torch.testing.assert_close(semantics[0], expected)
    assert context.norm.running_mean is not None
    torch.testing.assert_close(context.norm.running_mean, 0.1 * mean[:, 0])


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({}, {"main": 1.0, "auxiliary": 0.2, "presence": 0.2}),
        ({"lateral": True, "presence_weight": 0.4}, {"main": 1.0, "auxiliary": 0.2, "presence": 0.4}),
        ({"auxiliary": False, "presence": False}, {"main": 1.0}),
        (
            {"auxiliary": False, "second_module": True},
            {"main": 1.0, "presence": 0.2, "presence_stage3": 0.2},
        ),
        ({"presence": False, "second_module": True}, {"main": 1.0, "auxiliary": 0.2, "presence_stage3": 0.2}),
    ],
)
def test_parts_give_their_outputs_and_terms_and_all_learn(options: dict[str, Any], terms: dict[str, float]) -> None:
    network = small(**options).train()
    output = network(torch.randn(1, 3, 24, 32))
    assert output.logits.shape == (1, 3, 3, 4)
    assert [x.shape for x in output.deep] == [(1, 3, 3, 4)] * ("auxiliary" in terms)
    assert [x.shape for x in output.presence] == [(1, 3)] * sum(name.startswith("presence") for name in terms)
    assert {term.name: term.weight for term in network.default_terms()} == terms
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=True)
    criterion(output, torch.randint(0, 3, (1, 24, 32))).total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_second_module_reads_stage_three_alone() -> None:
    network = small(second_module=True).eval()
    network.supervise = True
    assert network.second_module is not None
    features = network.backbone(torch.randn(1, 3, 24, 32))
    seen: list[torch.Tensor] = []
    network.second_module.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    network.backbone.forward = lambda _images: features  # type: ignore[method-assign]
    output = network(torch.zeros(1, 3, 24, 32))
    assert seen[0] is features[-2]
    assert torch.equal(output.presence[1], network.second_module(features[-2]))


def test_lateral_connections_equal_the_convolution_of_the_concatenation() -> None:
    network = small(lateral=True).eval()
    assert network.lateral is not None and network.fusion is not None
    features = network.backbone(torch.randn(1, 3, 24, 32))
    stage2, stage3 = (connect(x) for connect, x in zip(network.lateral, features[-3:-1], strict=True))
    expected = network.fusion(torch.cat([network.project(features[-1]), stage2, stage3], dim=1))
    torch.testing.assert_close(network._joined(features), expected)


def test_loss_is_cross_entropies_and_presence_as_the_code_has_them() -> None:
    network = small().train()
    output = network(torch.randn(2, 3, 24, 32))
    target = torch.randint(0, 2, (2, 24, 32))  # class 2 is in no image
    target[0, :3] = 255
    target[1] = torch.where(target[1] == 1, 0, target[1])
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=True)
    value = criterion(output, target)
    enlarged = [F.interpolate(x, (24, 32), mode="bilinear", align_corners=True) for x in (output[0], output.deep[0])]
    main, auxiliary = (F.cross_entropy(x, target, ignore_index=255) for x in enlarged)
    counts = torch.stack([torch.histc(t.float(), bins=3, min=0, max=2) for t in target])  # 255 falls outside
    assert (counts > 0).tolist() == [[True, True, False], [True, False, False]]
    presence = F.binary_cross_entropy(torch.sigmoid(output.presence[0]), (counts > 0).float())
    torch.testing.assert_close(value.parts["presence"], 0.2 * presence)
    torch.testing.assert_close(value.total, main + 0.2 * auxiliary + 0.2 * presence)


def test_encnet_exports_any_height_and_width() -> None:
    network = small(lateral=True).eval()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.randn(1, 3, 40, 56),), dynamic_shapes=(sides,))
    x = torch.randn(1, 3, 37, 75)
    torch.testing.assert_close(program.module()(x).logits, network(x).logits)


def test_encnet_trains_under_autocast() -> None:
    network = small(lateral=True, second_module=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(torch.randn(1, 3, 24, 32))
    sum(part.float().square().sum() for part in (output.logits, *output.deep, *output.presence)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_lateral_connections_on_maps_of_several_strides_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"are of 8, 16, 32; give it output_stride=8, or lateral=False"):
        small(BackboneConfig(name="test_resnet"), lateral=True)


def test_backbone_with_too_few_maps_is_refused() -> None:
    backbone = create_backbone(BackboneConfig(name="test_resnet", num_stages=1))
    with pytest.raises(InvalidValue, match="the 2 coarsest maps of its backbone, which gives 1"):
        EncNet(backbone, 3, EncNetConfig(**SMALL))
    alone = EncNet(backbone, 3, EncNetConfig(**SMALL, auxiliary=False))
    assert alone.auxiliary_head is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codewords": 0}, "num_codewords and auxiliary_width must be >= 1, got 0 and 256"),
        ({"auxiliary_width": 0}, "num_codewords and auxiliary_width must be >= 1, got 32 and 0"),
        ({"width": 1}, "EncNet width must be >= 2, got 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"auxiliary_weight": 0.0}, "auxiliary_weight must be positive, got 0.0; auxiliary=False leaves the part out"),
        ({"presence_weight": -1.0}, "presence_weight must be positive, got -1.0; presence=False leaves the part out"),
        ({"attention": "none"}, "attention is one of residual, plain, got 'none'"),
        ({"join": "max"}, "join is one of mean, sum, got 'max'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        EncNetConfig(**options)

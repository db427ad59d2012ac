from __future__ import annotations

import pytest
import torch

from perpixel.backbones import BackboneConfig, VGG16Layout, create_vgg16
from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.parsenet import GlobalContextHead, ParseNet, ParseNetConfig

SMALL = {"width": 2, "fc_width": 4, "rate": 2}


def build(**options: object) -> ParseNet:
    torch.manual_seed(0)
    network = create_model("parsenet", {**SMALL, **options}, num_classes=3)
    assert isinstance(network, ParseNet)
    return network.eval()


@pytest.mark.parametrize(("fusion", "parameters"), [("early", 20_528_981), ("late", 20_529_002)])
def test_parsenet_parameter_counts_are_those_derived_by_hand(fusion: str, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model("parsenet", {"fusion": fusion}, num_classes=21)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes["backbone.fc6.weight"] == (1024, 512, 3, 3)
    assert shapes["backbone.fc7.weight"] == (1024, 1024, 1, 1)
    assert shapes["head.context_norm.weight"] == (1024,)
    assert shapes["head.classifier.weight"] == (21, 2048 if fusion == "early" else 1024, 1, 1)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_global_context_head_by_hand() -> None:
    """Two cells (3, 4) and (0, 0), mean (1.5, 2), both (0.6, 0.8) of unit length; scale 10, classifier of ones."""
    local = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    for fusion in ("early", "late"):
        head = GlobalContextHead(2, 2, 1, ParseNetConfig(fusion=fusion))  # type: ignore[arg-type]
        for name, parameter in head.named_parameters():
            if name.endswith("classifier.weight"):
                torch.nn.init.ones_(parameter)
        expected = torch.tensor([[[[6.0 + 8.0 + 6.0 + 8.0, 6.0 + 8.0]]]])
        torch.testing.assert_close(head(local, local), expected)


def test_early_and_late_fusion_are_the_same_function_with_split_weights() -> None:
    early = GlobalContextHead(4, 6, 3, ParseNetConfig(fusion="early"))
    late = GlobalContextHead(4, 6, 3, ParseNetConfig(fusion="late"))
    weight, bias = early.classifier.weight, torch.randn(3)
    with torch.no_grad():
        early.classifier.bias.copy_(bias)  # type: ignore[union-attr]
    late.load_state_dict(
        {
            **{key: value for key, value in early.state_dict().items() if "norm" in key},
            "classifier.weight": weight[:, :4],
            "classifier.bias": bias - 1,
            "late.classifier.weight": weight[:, 4:],
            "late.classifier.bias": torch.ones(3),
        }
    )
    local, source = torch.randn(2, 4, 5, 3), torch.randn(2, 6, 7, 7)
    torch.testing.assert_close(early(local, source), late(local, source), rtol=1e-4, atol=1e-5)


def test_without_normalisation_a_louder_context_counts_more_and_with_it_not() -> None:
    local, source = torch.randn(1, 4, 2, 2), torch.rand(1, 4, 2, 2)
    for normalize in (True, False):
        head = GlobalContextHead(4, 4, 3, ParseNetConfig(normalize=normalize))
        same = torch.allclose(head(local, source), head(local, 100 * source), atol=1e-5)
        assert same == normalize


@pytest.mark.parametrize(("source", "channels"), [("pool3", 8), ("pool4", 16), ("pool5", 16), ("fc6", 4), ("fc7", 4)])
def test_context_is_pooled_from_the_layer_that_is_named(source: str, channels: int) -> None:
    network = build(context_from=source)
    assert network.head.classifier.in_channels == 4 + channels
    with torch.no_grad():
        assert network(torch.randn(1, 3, 33, 41)).logits.shape == (1, 3, 5, 6)


def test_context_reaches_every_cell() -> None:
    network = build().double()
    images = torch.rand(1, 3, 321, 321, dtype=torch.float64)
    changed = images.clone()
    changed[..., 300:, 300:] = 0
    with torch.no_grad():
        corner = network(changed).logits[..., 0, 0] - network(images).logits[..., 0, 0]
    assert corner.abs().max() > 0
    with torch.no_grad():
        network.head.classifier.weight[:, 4:] = 0
        corner = network(changed).logits[..., 0, 0] - network(images).logits[..., 0, 0]
    assert corner.abs().max() == 0


@pytest.mark.parametrize("size", [(1, 1), (8, 9), (64, 65)])
def test_parsenet_takes_any_size_and_trains_with_one_image(size: tuple[int, int]) -> None:
    network = build(fusion="late").train()
    logits = network(torch.randn(1, 3, *size)).logits
    logits.square().sum().backward()
    # A pool of 3 with padding 1 gives n // 2 + 1 cells.
    expected = [((side // 2 + 1) // 2 + 1) // 2 + 1 for side in size]
    assert list(logits.shape[-2:]) == expected
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_parsenet_exports(fusion: str) -> None:
    network = build(fusion=fusion)
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        exported = torch.export.export(network, (images,)).module()
        torch.testing.assert_close(exported(images).logits, network(images).logits)


def test_average_pooling_is_an_option() -> None:
    with_it, without = build(), build(average_pooling=False)
    without.load_state_dict(with_it.state_dict())
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        assert not torch.allclose(with_it(images).logits, without(images).logits)


def test_valid_size_is_the_next_that_begins_and_ends_on_a_cell() -> None:
    network = build()
    assert network.valid_size(1, 64) == (1, 65)
    assert network.valid_size(321, 322) == (321, 329)
    with torch.no_grad():
        assert network(torch.randn(1, 3, 65, 73)).logits.shape[-2:] == (9, 10)


def test_parsenet_loss_is_at_stride_eight() -> None:
    assert [(term.name, term.at, term.loss) for term in build().default_terms()] == [
        ("main", "logits", "cross_entropy")
    ]


def test_parsenet_wrong_options_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"fusion of ParseNet is one of \('early', 'late'\), got 'middle'"):
        ParseNetConfig(fusion="middle")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"context_from of ParseNet is one of .*got 'fc8'"):
        ParseNetConfig(context_from="fc8")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="ParseNet rate must be >= 1, got 0"):
        ParseNetConfig(rate=0)
    with pytest.raises(InvalidValue, match="ParseNet scale must be over 0, got 0"):
        ParseNetConfig(scale=0)
    with pytest.raises(InvalidValue, match=r"dropout must lie in \[0, 1\), got -1"):
        ParseNetConfig(dropout=-1)
    with pytest.raises(InvalidValue, match="has none: build it with the config's layout"):
        ParseNet(create_vgg16(BackboneConfig(name="vgg16"), VGG16Layout(width=2)), 2)

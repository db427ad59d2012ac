import math

import pytest
import torch

from perpixel.backbones import CAFFE_PREPROCESSING
from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.dpn import DPN, DPNConfig, LabelContexts, TriplePenalty
from perpixel.ops import resize
from perpixel.types import Preprocessing


def small(**options: object) -> DPN:
    torch.manual_seed(0)
    chosen = {"width": 4, "fc_width": 8, "window": 5, "context_size": 3, "contexts": 2, "stride": 4, "dropout": 0.0}
    network = create_model("dpn", {**chosen, **options}, num_classes=3)
    assert isinstance(network, DPN)
    return network


def test_dpn_parameter_counts_are_those_derived_by_hand() -> None:
    with torch.device("meta"):
        network = create_model("dpn", num_classes=21)
    assert isinstance(network, DPN) and network.contexts is not None and network.triple is not None
    assert sum(p.numel() for p in network.classifier.parameters()) == 86_037
    assert sum(p.numel() for p in network.triple.parameters()) == 2
    assert sum(p.numel() for p in network.contexts.parameters()) == 178_710
    assert sum(p.numel() for p in network.parameters()) == 134_525_293


def test_dpn_trunk_keeps_stride_8_with_the_papers_effective_filters() -> None:
    layout = DPNConfig().layout
    assert layout.strides == (2, 4, 8, 8, 8)
    assert layout.fully_connected is not None
    assert 1 + 2 * layout.dilations[4] == 5  # b8
    assert 1 + (layout.fully_connected.kernel - 1) * layout.fully_connected.dilation == 25  # b9


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("part", ["unary", "triple", "contexts"])
def test_dpn_scores_lie_on_the_grid(part: str, stride: int) -> None:
    network = small(part=part, stride=stride).train()
    output = network(torch.randn(1, 3, 33, 46))
    assert network.logit_stride == stride
    assert output.logits.shape == (1, 3, -(-33 // stride), -(-46 // stride))
    assert len(output.deep) == (0 if part == "unary" else 1)


def test_dpn_parts_build_on_each_other() -> None:
    unary, triple, whole = (small(part=part) for part in ("unary", "triple", "contexts"))
    names = [{name for name, _ in network.named_parameters()} for network in (unary, triple, whole)]
    assert names[1] - names[0] == {"triple.log_precisions"}
    assert names[2] - names[1] == {"contexts.conv.weight", "contexts.conv.bias"}


def test_dpn_without_penalty_is_the_logarithm_of_the_unary() -> None:
    whole, unary = small().eval(), small(part="unary").eval()
    unary.load_state_dict(whole.state_dict(), strict=False)
    assert whole.contexts is not None
    torch.nn.init.zeros_(whole.contexts.conv.weight)
    image = torch.randn(1, 3, 32, 32)
    assert torch.allclose(whole(image).logits.softmax(1), unary(image).logits.softmax(1), atol=1e-6)


def test_dpn_step_of_mean_field_by_hand() -> None:
    """Unary 0.8, 0.2 everywhere; one context per class: its penalty is the other class's probability."""
    network = create_model(
        "dpn",
        {"width": 2, "fc_width": 2, "window": 3, "context_size": 1, "contexts": 1, "stride": 8, "dropout": 0.0},
        num_classes=2,
    ).eval()
    assert isinstance(network, DPN) and network.contexts is not None
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([0.8, 0.2]).log())  # type: ignore[union-attr]
        network.contexts.conv.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 2, 1, 1))
        probabilities = network(torch.randn(1, 3, 32, 32)).logits.softmax(dim=1)
    first, second = 0.8 * math.exp(-0.2), 0.2 * math.exp(-0.8)
    assert torch.allclose(probabilities[:, 0], torch.tensor(first / (first + second)))


def test_label_contexts_keep_the_least_penalty_of_a_class() -> None:
    block = LabelContexts(2, DPNConfig(context_size=1, contexts=2))
    with torch.no_grad():
        block.conv.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]]).view(4, 2, 1, 1))
    x = torch.tensor([5.0, 1.0]).view(1, 2, 1, 1)
    assert block(x).flatten().tolist() == [1.0, 3.0]


def test_triple_penalty_starts_at_the_stated_deviations() -> None:
    block = TriplePenalty(DPNConfig(window=20, color_deviation=0.5, place_deviation=0.1))
    assert torch.allclose(block.log_precisions.exp(), torch.tensor([1 / (2 * 0.25), 1 / (2 * 4.0)]))


def test_triple_penalty_smooths_inside_a_colour_and_not_across() -> None:
    block = TriplePenalty(DPNConfig(window=9, color_deviation=0.05))
    torch.manual_seed(0)
    left = torch.arange(10) < 5
    noisy = torch.where(left, 0.8, 0.2).expand(1, 1, 10, 10) + 0.1 * torch.randn(1, 1, 10, 10)
    colors = torch.where(left, 0.0, 1.0).expand(1, 3, 10, 10)
    smooth = block(noisy, colors)
    assert smooth[..., :5].std() < noisy[..., :5].std() / 2
    assert smooth[..., :5].mean() > 0.7 and smooth[..., 5:].mean() < 0.3


@pytest.mark.parametrize("probabilities", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weights", ["similarity", "distance"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("part", ["triple", "contexts"])
def test_dpn_every_reading_trains(probabilities: str, weights: str, own: bool, part: str) -> None:
    options = {"probabilities": probabilities, "weights": weights, "own_probability": own, "part": part}
    network = small(**options).train()
    network(torch.randn(1, 3, 16, 16)).logits.square().sum().backward()
    assert network.triple is not None and network.triple.log_precisions.grad is not None
    assert torch.isfinite(network.triple.log_precisions.grad).all()
    assert network.triple.log_precisions.grad.abs().sum() > 0


def test_dpn_colours_do_not_depend_on_the_preprocessing() -> None:
    network = small(stride=1)
    raw = torch.rand(1, 3, 8, 8)
    found = []
    for stated in (Preprocessing(), CAFFE_PREPROCESSING):
        network.preprocessing = stated
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (stated.mean, stated.std))
        given = raw.flip(1) if stated.channel_order == "bgr" else raw
        colors = network._colors((given * stated.value_range - mean) / std, (8, 8))
        found.append((colors[..., 1:] - colors[..., :-1]).square().sum(dim=1))
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_dpn_unary_is_the_trunks_scores_brought_to_the_grid() -> None:
    network = small(part="unary").eval()
    image = torch.randn(1, 3, 32, 40)
    x = torch.relu(network.backbone.fc7(torch.relu(network.backbone.fc6(network.backbone(image)[-1]))))
    assert torch.allclose(network(image).logits, resize(network.classifier(x), (8, 10), align_corners=False))


def test_dpn_exports() -> None:
    network = small().eval()
    image = torch.randn(1, 3, 40, 33)
    exported = torch.export.export(network, (image,)).module()
    assert torch.allclose(exported(image).logits, network(image).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": "all"}, "DPN part is one of unary, triple, contexts, got 'all'"),
        ({"probabilities": "relu"}, "DPN probabilities is one of softmax, sigmoid, got 'relu'"),
        ({"weights": "learned"}, "DPN weights is one of similarity, distance, got 'learned'"),
        ({"contexts": 0}, "DPN contexts must be >= 1, got 0"),
        ({"context_size": 4}, "context_size must be odd, got 4"),
        ({"color_deviation": 0.0}, "deviations must be positive, got color 0.0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_dpn_wrong_options_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        DPNConfig(**change)  # type: ignore[arg-type]

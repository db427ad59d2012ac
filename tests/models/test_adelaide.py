import itertools

import pytest
import torch

from perpixel.backbones import BackboneConfig, create_vgg16
from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import create_model
from perpixel.models.adelaide import Adelaide, AdelaideConfig, Edges, PairwiseNet, mean_field, sliding_pyramid
from perpixel.ops.node_pairs import node_neighbours, node_offsets


def small(**options: object) -> Adelaide:
    torch.manual_seed(0)
    chosen: dict[str, object] = {"scales": (1.0, 0.5), "windows": (3,), "width": 4, "fc_width": 8}
    chosen |= {"context_width": 6, "potential_width": 6}
    network = create_model("adelaide", {**chosen, **options}, num_classes=3)
    assert isinstance(network, Adelaide)
    return network


def test_adelaide_parameter_counts_are_those_derived_by_hand() -> None:
    with torch.device("meta"):
        network = create_model("adelaide", num_classes=21)
    assert isinstance(network, Adelaide)
    assert network.features.channels == 4608
    assert sum(p.numel() for p in network.features.blocks.parameters()) == 371_997_696
    assert sum(p.numel() for p in network.unary.parameters()) == 2_370_581
    assert sum(p.numel() for p in network.pairwise.parameters()) == 9_890_674
    assert sum(p.numel() for p in network.parameters()) == 398_973_639


def test_adelaide_outputs_lie_on_nodes_and_edges() -> None:
    network = small().train()
    output = network(torch.randn(2, 3, 64, 81))
    assert output.logits.shape == (2, 3, 4, 6)
    edges = [len(node_offsets((4, 6), relation=name)) for name in ("surrounding", "above_below")]
    assert [tuple(x.shape) for x in output.deep] == [(2, 3, 4, 6), *((2, 9, count, 24) for count in edges)]


def test_adelaide_nodes_are_the_cells_of_the_largest_scale() -> None:
    network = small(scales=(0.5, 2.0)).eval()
    assert network.logit_stride == 8
    assert network(torch.randn(1, 3, 64, 64)).logits.shape[2:] == (8, 8)
    with torch.device("meta"):
        assert create_model("adelaide", num_classes=2).logit_stride == 13  # 16 / 1.2


def test_adelaide_sixth_blocks_start_from_the_trunks_fc6() -> None:
    config = AdelaideConfig.small()
    trunk = create_vgg16(BackboneConfig(name="vgg16"), config.layout)
    fc6 = trunk.fc6.weight.detach().clone()
    network = Adelaide(trunk, 2, config)
    for block in network.features.blocks:
        assert torch.equal(block[0].weight, fc6)  # type: ignore[index]
    assert not any("fc6" in name or "fc7" in name for name, _ in network.named_parameters())


def test_sliding_pyramid_by_hand() -> None:
    x = torch.tensor([[[[1.0, 5.0, 2.0, 0.0]]]])
    stacked = sliding_pyramid(x, (3, 7))
    assert stacked[0, :, 0].tolist() == [[1.0, 5.0, 2.0, 0.0], [5.0, 5.0, 5.0, 2.0], [5.0, 5.0, 5.0, 5.0]]


def test_pairwise_net_equals_layers_on_both_features_in_a_row() -> None:
    torch.manual_seed(0)
    block = PairwiseNet(5, 4, 3).double()
    features = torch.randn(1, 5, 2, 3, dtype=torch.float64)
    neighbours, valid = node_neighbours((2, 3), ((0, 1), (1, 0)))
    scores = block(features, neighbours)
    assert scores.shape == (1, 9, 2, 6)
    weight = torch.cat([block.first.weight, block.second.weight], dim=1)[:, :, 0, 0]
    flat = features[0].flatten(1).T
    for edge, node in itertools.product(range(2), range(6)):
        if valid[edge, node]:
            both = torch.cat([flat[node], flat[neighbours[edge, node]]])
            hidden = torch.relu(weight @ both + block.first.bias)
            expected = block.joint.weight[:, :, 0, 0] @ hidden + block.joint.bias
            assert torch.allclose(scores[0, :, edge, node], expected)


def test_messages_equal_a_loop_over_edges() -> None:
    torch.manual_seed(0)
    neighbours, valid = node_neighbours((2, 2), ((0, 1), (-1, 0), (-1, 1)))
    scores = torch.randn(1, 4, 3, 4) * valid
    beliefs = torch.randn(1, 2, 4).softmax(dim=1)
    expected = torch.zeros(2, 4)
    for edge, p in itertools.product(range(3), range(4)):
        if valid[edge, p]:
            q = int(neighbours[edge, p])
            table = scores[0, :, edge, p].view(2, 2)
            expected[:, p] += table @ beliefs[0, :, q]
            expected[:, q] += table.T @ beliefs[0, :, p]
    assert torch.allclose(Edges(scores, neighbours, valid).messages(beliefs)[0], expected, atol=1e-6)


def test_mean_field_two_nodes_that_want_to_agree() -> None:
    """One edge that rewards equal labels by 1: after one step the undecided node leans to the decided one's class."""
    neighbours, valid = node_neighbours((1, 2), ((0, 1),))
    scores = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 4, 1, 1) * valid
    unary = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])  # node 0 prefers class 0
    decided = torch.tensor(2.0).sigmoid()
    result = mean_field(unary, [Edges(scores, neighbours, valid)], 1)
    assert torch.allclose(result[0, :, 1], torch.stack([decided, 1 - decided]))
    assert torch.allclose(result[0, :, 0], torch.tensor([2.5, 0.5]))
    assert torch.equal(mean_field(unary, [], 3), unary)


def test_mean_field_gradcheck() -> None:
    torch.manual_seed(0)
    neighbours, valid = node_neighbours((2, 2), ((0, 1), (-1, 0)))
    unary = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(1, 4, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda u, s: mean_field(u, [Edges(s * valid, neighbours, valid)], 2), [unary, scores]
    )


def test_adelaide_without_relations_scores_nodes_alone() -> None:
    network = small(relations=()).train()
    output = network(torch.randn(1, 3, 64, 64))
    assert len(output.deep) == 1 and torch.equal(output.logits, output.deep[0])
    assert [term.name for term in network.default_terms()] == ["unary"]


def test_adelaide_stages_share_their_names() -> None:
    first, second = small(relations=()), small()
    assert set(first.state_dict()) < set(second.state_dict())
    assert all("pairwise" in name for name in set(second.state_dict()) - set(first.state_dict()))


def test_adelaide_piecewise_loss_reaches_every_parameter() -> None:
    network = small(edge_grid=3).train()
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=False)
    value = criterion(network(torch.randn(1, 3, 64, 64)), torch.randint(0, 3, (1, 64, 64)))
    assert set(value.parts) == {"unary", "surrounding", "above_below"}
    value.total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_adelaide_exports_for_the_size_it_was_traced_at() -> None:
    network = small().eval()
    image = torch.randn(1, 3, 64, 80)
    exported = torch.export.export(network, (image,)).module()
    assert torch.allclose(exported(image).logits, network(image).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relations": ("left",)}, r"surrounding, above_below, each once; got \('left',\)"),
        ({"relations": ("surrounding", "surrounding")}, "each once"),
        ({"scales": ()}, "scales must be positive, at least one"),
        ({"scales": (1.0, -1.0)}, "scales must be positive"),
        ({"windows": (4,)}, r"windows must be odd and positive, got \(4,\)"),
        ({"range_fraction": 0.0}, r"range_fraction must lie in \(0, 1\]"),
        ({"iterations": 0}, "Adelaide iterations must be >= 1, got 0"),
    ],
)
def test_adelaide_wrong_options_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        AdelaideConfig(**change)  # type: ignore[arg-type]

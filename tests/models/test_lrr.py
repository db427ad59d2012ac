import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import create_model
from perpixel.models.lrr import LRR, ClassBasis, LRRConfig, boundary_mask, double_bilinearly


def small(**options: object) -> LRR:
    torch.manual_seed(0)
    chosen = {"width": 4, "fc_width": 8, "dropout": 0.0, "boundary_radius": 4, **options}
    network = create_model("lrr", chosen, num_classes=3)
    assert isinstance(network, LRR)
    return network


def test_lrr_parameter_counts_are_those_derived_by_hand() -> None:
    with torch.device("meta"):
        whole = create_model("lrr", num_classes=21)
        plain = create_model("lrr", LRRConfig(boundary_losses=False), num_classes=21)
    level_32x = 25 * 4096 * 210 + 210
    counts = [sum(p.numel() for p in level.parameters()) for level in whole.levels]  # type: ignore[union-attr]
    assert counts == [level_32x, 25 * 512 * 210 + 210, 25 * 512 * 210 + 210, 25 * 256 * 210 + 210]
    assert sum(p.numel() for p in whole.parameters()) == 205_493_804
    assert sum(p.numel() for p in plain.parameters()) == 205_493_804 - 2 * level_32x == 162_485_384
    assert whole.basis.filters.shape == (21, 10, 8, 8)  # type: ignore[union-attr]


def test_lrr_levels_have_the_strides_8_4_2_1() -> None:
    output = small().train()(torch.randn(1, 3, 70, 97))
    assert output.logits.shape == (1, 3, 70, 97)
    assert [x.shape[2:] for x in output.deep] == [(9, 13), (18, 25), (35, 49), (9, 13), (9, 13)]


@pytest.mark.parametrize(("levels", "stride"), [(1, 8), (2, 4), (3, 2), (4, 1)])
def test_lrr_fewer_levels_end_at_a_coarser_stride_and_name_their_terms(levels: int, stride: int) -> None:
    network = small(levels=levels).train()
    output = network(torch.randn(1, 3, 64, 64))
    assert network.logit_stride == stride
    assert output.logits.shape[2:] == (64 // stride, 64 // stride)
    assert len(output.deep) == levels - 1 + 2
    names = [term.name for term in network.default_terms()]
    assert names == [*["32x", "16x", "8x", "4x"][:levels], "dilation", "erosion"]
    losses = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=False)
    assert set(losses(output, torch.randint(0, 3, (1, 64, 64))).parts) == set(names)


def test_lrr_pools_pad_below_and_to_the_right() -> None:
    """MatConvNet's [0 1 0 1]: even sizes are halved, odd ones are rounded up, and the first window starts at 0."""
    network = small()
    x = torch.arange(5.0).expand(1, 1, 4, 5)
    assert network.backbone.pool(1, x)[0, 0].tolist() == [[1.0, 3.0, 4.0]] * 2


def test_class_basis_draws_a_filter_in_its_place() -> None:
    """A coefficient of 2 at cell (1, 1): the 8x8 filter fills rows and columns 4·1 - 2 to 4·1 + 5 of the scores."""
    block = ClassBasis(1, 2, 8)
    block.filters.copy_(torch.randn(1, 2, 8, 8))
    coefficients = torch.zeros(1, 2, 3, 3)
    coefficients[0, 1, 1, 1] = 2.0
    scores = block(coefficients)
    assert scores.shape == (1, 1, 12, 12)
    assert torch.allclose(scores[0, 0, 2:10, 2:10], 2 * block.filters[0, 1], atol=1e-6)
    assert torch.allclose(scores.abs().sum(), 2 * block.filters[0, 1].abs().sum(), rtol=1e-5)


def test_class_basis_of_a_class_uses_its_own_filters_alone() -> None:
    block = ClassBasis(2, 2, 8)
    block.filters[0], block.filters[1] = 0.0, 1.0
    scores = block(torch.ones(1, 4, 3, 3))
    assert scores[0, 0].abs().sum() == 0 and scores[0, 1].min() > 0


def test_boundary_mask_by_hand() -> None:
    probabilities = torch.tensor([[[[0.0, 0.0, 0.0, 0.25, 1.0]]]])
    assert boundary_mask(probabilities, 3).flatten().tolist() == [0.0, 0.0, 0.25, 1.0, 0.75]


def test_double_bilinearly_by_hand_ends_in_zero() -> None:
    doubled = double_bilinearly(torch.full((1, 2, 2, 2), 16.0))
    line = torch.tensor([0.75, 1.0, 1.0, 0.75])
    assert torch.allclose(doubled, 16 * torch.outer(line, line).expand(1, 2, 4, 4))


def test_lrr_finer_levels_change_nothing_where_coarse_scores_are_flat() -> None:
    network = small().eval()
    with torch.no_grad():
        for level in network.levels[1:]:
            level.bias.fill_(1.0)  # type: ignore[operator, union-attr]
        image = torch.randn(1, 3, 64, 64)
        assert network(image).logits.abs().sum() == 0
        everywhere = small(boundary_mask=False).eval()
        everywhere.load_state_dict(network.state_dict())
        assert everywhere(image).logits.abs().sum() > 0


def test_lrr_size_beyond_the_image_does_not_change_the_scores_inside() -> None:
    """Cells that reach past the image are cut off at every level, so that deep and logits agree about where it ends."""
    network = small().double().eval()
    network.supervise = True
    with torch.no_grad():
        for parameter in network.levels.parameters():
            parameter.normal_(std=0.1)
        odd = network(torch.randn(1, 3, 61, 64, dtype=torch.float64))
    assert odd.logits.shape[2] == 61 and torch.isfinite(odd.logits).all()
    assert [x.shape[2] for x in odd.deep[:3]] == [8, 16, 31]


def test_lrr_basis_is_kept_with_the_weights_and_other_shapes_are_refused() -> None:
    network = small()
    given = torch.randn(3, 10, 8, 8)
    network.set_basis(given)
    twin = small()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin.basis.filters, given)
    with pytest.raises(InvalidValue, match=r"the basis has shape \(3, 10, 8, 8\), got \(3, 9, 8, 8\)"):
        network.set_basis(given[:, :9])


def test_lrr_exports() -> None:
    network = small().eval()
    with torch.no_grad():
        for parameter in network.levels.parameters():
            parameter.normal_(std=0.1)
    image = torch.randn(1, 3, 65, 64)
    exported = torch.export.export(network, (image,)).module()
    assert torch.allclose(exported(image).logits, network(image).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 5}, "1 to 4 levels, got 5"),
        ({"num_basis": 65}, r"num_basis must lie in \[1, 64\], got 65"),
        ({"mask_window": 4}, "mask_window must be odd and positive, got 4"),
        ({"boundary_radius": -1}, "boundary_radius must be >= 0 pixels, got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"fc_width": 0}, "LRR widths must be >= 1, got 64 and 0"),
    ],
)
def test_lrr_wrong_options_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        LRRConfig(**change)  # type: ignore[arg-type]

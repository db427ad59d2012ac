import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.dfn import DFN, ChannelAttentionBlock, DFNConfig, RefinementResidualBlock
from perpixel.ops import resize

UNUSED_IN_TORCHSEG = 8421  # border_aft_rrbs.0: built there, never called


def test_dfn_published_form_has_torchsegs_parameter_count() -> None:
    with torch.device("meta"):
        network = create_model("dfn", num_classes=21)
        cityscapes = create_model("dfn", num_classes=19)
    assert sum(p.numel() for p in network.parameters()) == 90_724_344 - UNUSED_IN_TORCHSEG
    assert sum(p.numel() for p in cityscapes.parameters()) == 90_217_888 - UNUSED_IN_TORCHSEG


@pytest.mark.parametrize(
    ("switch", "deep", "border"),
    [
        ("refinement_blocks", 3, 4),
        ("global_pooling", 3, 4),
        ("channel_attention", 3, 4),
        ("deep_supervision", 0, 4),
        ("border_network", 3, 0),
    ],
)
def test_dfn_each_switch_takes_its_part_away(switch: str, deep: int, border: int) -> None:
    whole = create_model("dfn", DFNConfig.small(), num_classes=4, backbone="resnet10t")
    options = {"width": 16, "border_width": 4, "head_expansion": 2, switch: False}
    network = create_model("dfn", options, num_classes=4, backbone="resnet10t").train()
    output = network(torch.randn(2, 3, 64, 64))
    assert (len(output.deep), len(output.border)) == (deep, border)
    assert len(network.default_terms()) == 1 + deep + border
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in whole.parameters())


def test_rrb_by_hand() -> None:
    block = RefinementResidualBlock(1, 1).eval()
    with torch.no_grad():
        block.project.weight.fill_(2.0)
        block.residual.conv.weight.zero_()
        block.residual.conv.weight[0, 0, 1, 1] = 1.0
        block.residual.norm.weight.fill_(3.0)
        block.refine.weight.zero_()
        block.refine.weight[0, 0, 1, 1] = -1.0
    x = torch.tensor([[[[1.0, -1.0]]]])
    scale = 3.0 / (1 + 1e-5) ** 0.5  # 2x - relu(3 * 2x), then relu
    expected = torch.relu(2 * x - torch.relu(scale * 2 * x))
    assert torch.allclose(block(x), expected)


def test_cab_keeps_the_share_of_each_channel_that_attention_gives() -> None:
    block = ChannelAttentionBlock(2, DFNConfig(width=2)).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    low, high = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    assert torch.allclose(block(low, high), 0.5 * low + high)


def test_cab_orders_are_the_same_function_with_swapped_weights() -> None:
    first = ChannelAttentionBlock(3, DFNConfig(width=3))
    second = ChannelAttentionBlock(3, DFNConfig(width=3, attention_order="high_low"))
    state = first.state_dict()
    state["weights.0.weight"] = state["weights.0.weight"].roll(3, dims=1)
    second.load_state_dict(state)
    low, high = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    assert torch.allclose(first(low, high), second(low, high), atol=1e-6)


def test_dfn_multiples_of_32_equal_the_fixed_doubling_of_the_public_code() -> None:
    """TorchSeg doubles each stage; ours resizes to the next stage's size: the same numbers where both are defined."""
    x = torch.randn(1, 2, 4, 6)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.equal(resize(x, (8, 12), align_corners=True), doubled)


def test_dfn_wrong_options_are_refused() -> None:
    with pytest.raises(InvalidValue, match="width must be >= 1, got 0"):
        DFNConfig(width=0)
    with pytest.raises(InvalidValue, match="leaves nothing of width=4"):
        DFNConfig(width=4, attention_reduction=8)
    with pytest.raises(InvalidValue, match="'low_high' or 'high_low', got 'up'"):
        DFNConfig(attention_order="up")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="border_network=False trains without"):
        DFNConfig(border_loss_weight=0)
    with pytest.raises(InvalidValue, match="num_classes must be a whole number >= 1, got 0"):
        create_model("dfn", num_classes=0, backbone="resnet10t")


def test_dfn_biased_form_has_biases_and_relu_behind_the_heads() -> None:
    network = create_model("dfn", {"width": 8, "biased": True}, num_classes=3, backbone="resnet10t")
    assert isinstance(network, DFN)
    head = network.smooth[0].head
    assert head.refine.project.bias is not None  # type: ignore[union-attr]
    assert head.refine.relu  # type: ignore[union-attr]


def test_dfn_without_aligned_corners_pads_to_sizes_that_double_exactly() -> None:
    options = {"width": 16, "border_width": 4, "align_corners": False}
    network = create_model("dfn", options, num_classes=3, backbone="resnet10t")
    assert network.valid_size(360, 480) == (384, 480)
    assert network.valid_size(1, 65) == (64, 96)
    published = create_model("dfn", DFNConfig.small(), num_classes=3, backbone="resnet10t")
    assert published.valid_size(360, 480) == (360, 480)


def test_dfn_without_aligned_corners_gives_a_shifted_image_shifted_scores() -> None:
    """One cell of the coarsest stage to the right is one cell to the right everywhere, away from the edges' reach."""
    options = {"width": 8, "border_width": 4, "align_corners": False, "global_pooling": False}
    options |= {"channel_attention": False}
    network = create_model("dfn", options, num_classes=3, backbone="test_resnet").double().eval()
    image = torch.zeros(1, 3, 640, 640, dtype=torch.float64)
    image[:, :, 304:336, 304:336] = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    logits = network(image).logits[..., 40:112, 40:112]
    moved = network(image.roll(32, dims=3)).logits[..., 40:112, 48:120]
    assert torch.allclose(logits, moved, atol=1e-9)

from __future__ import annotations

import pytest
import torch

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import FCNConfig, ICNet, ICNetConfig, create_model
from perpixel.types import Preprocessing
from perpixel.weights import prune, prune_into


def icnet(width: int = 4, seed: int = 0, **options: object) -> ICNet:
    torch.manual_seed(seed)
    network = create_model("icnet", {"width": width, **options}, num_classes=3)
    assert isinstance(network, ICNet)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean)
    return network.double().eval()


def silence(network: ICNet, kept: list[int]) -> None:
    """Zeroes every kernel, norm and reading weight of the channels of each group that are not kept (of each four)."""
    state = network.state_dict()
    for group in network.channel_groups():
        count = state[f"{group.scored_by[0]}.weight"].shape[0]
        gone = [i for i in range(count) if i % 4 not in kept]
        for name in group.made_by:
            for key, value in state.items():
                if key.startswith(f"{name}.") and value.ndim and not key.endswith("running_var"):
                    value[gone] = 0


@pytest.mark.parametrize("guidance", ["enlarged", "dilated"])
@pytest.mark.parametrize("projection", [True, False])
def test_prune_of_silent_channels_changes_nothing(guidance: str, projection: bool) -> None:
    """Channels that are zero everywhere have the least norms: the half-width network is the same function."""
    network = icnet(guidance=guidance, context_projection=projection)
    silence(network, kept=[1, 2])
    pruned, report = prune(network, 0.5)
    assert pruned.config.width == 2
    network.supervise = pruned.supervise = True
    x = torch.randn(1, 3, 97, 129, dtype=torch.float64)
    with torch.no_grad():
        wanted, ours = network(x), pruned(x)
    for a, b in zip((ours.logits, *ours.deep), (wanted.logits, *wanted.deep), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert wanted.logits.std() > 1e-3
    assert min(group.norm_kept for group in report.groups) == pytest.approx(1.0)


def test_prune_keeps_the_largest_l1_norms_in_their_order_by_hand() -> None:
    network = icnet()
    weight = network.detail.conv1.conv.weight
    for kernel, norm in enumerate((3.0, 1.0, 2.0, 4.0)):
        weight.data[kernel] = -norm / 27
    pruned, report = prune(network)
    assert torch.equal(pruned.detail.conv1.conv.weight, weight[[0, 3]])
    assert torch.equal(pruned.detail.conv1.norm.running_mean, network.detail.conv1.norm.running_mean[[0, 3]])
    reading = network.detail.conv2.conv.weight[:, [0, 3]]
    kept = reading.shape[0] // 2
    scores = network.detail.conv2.conv.weight.abs().sum(dim=(1, 2, 3))  # of whole kernels: norms before pruning
    assert torch.equal(pruned.detail.conv2.conv.weight, reading[scores.topk(kept).indices.sort().values])
    (group,) = (g for g in report.groups if g.layer == "detail.conv1.conv")
    assert (group.channels, group.kept) == (4, 2)
    assert group.norm_kept == pytest.approx(0.7)


def test_prune_residual_sums_go_by_the_shortcut() -> None:
    network = icnet()
    stage = network.backbone.get_submodule("conv2")
    stage[0].shortcut.conv.weight.data[:] = 0.1  # type: ignore[index, union-attr]
    stage[0].shortcut.conv.weight.data[4:12] = 1.0  # type: ignore[index, union-attr]
    for block in stage:  # type: ignore[union-attr]
        block.increase.conv.weight.data[12:] = 100.0  # larger, and not asked
    pruned = prune(network)[0]
    ours = pruned.backbone.get_submodule("conv2")[1].increase.norm.running_mean  # type: ignore[index, union-attr]
    assert torch.equal(ours, stage[1].increase.norm.running_mean[4:12])  # type: ignore[index, union-attr]


def test_prune_in_rounds_goes_from_width_to_width() -> None:
    network = icnet(8)
    three_quarters, first = prune(network, 0.75)
    half, second = prune(three_quarters, 2 / 3)
    assert [n.config.width for n in (three_quarters, half)] == [6, 4]
    assert first.parameters_after == second.parameters_before == sum(p.numel() for p in three_quarters.parameters())


def test_prune_keeps_mode_type_preprocessing_and_the_network_itself() -> None:
    network = icnet().float().train()
    network.preprocessing = Preprocessing(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), value_range=255.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pruned, _ = prune(network)
    assert pruned.training
    assert {p.dtype for p in pruned.parameters()} == {torch.float32}
    assert pruned.preprocessing == network.preprocessing
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_prune_report_says_what_was_removed() -> None:
    report = prune(icnet())[1]
    assert f"{report.parameters_before:,} parameters became {report.parameters_after:,}" in report.summary()
    assert "least of the L1 norm kept: " in report.summary()
    plain = report.to_dict()
    assert len(plain["groups"]) == len(report.groups)
    assert set(plain["groups"][0]) == {"layer", "channels", "kept", "norm_kept"}


def test_prune_of_a_network_without_groups_is_refused() -> None:
    network = create_model("fcn", FCNConfig.small(), num_classes=2, backbone="test_resnet")
    with pytest.raises(InvalidValue, match=r"FCN cannot be pruned: .*; icnet can"):
        prune(network)


def test_prune_by_an_impossible_share_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"keep=0.3 of width 4 leaves 1.2 channels"):
        prune(icnet(), 0.3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 4}, "this one is not: all shapes are equal; give it a smaller width"),
        ({"width": 8}, r"this one is not: backbone.conv1_1.conv.weight, .* and \d+ more; give"),
        ({"width": 2, "merged_norms": True}, "has the layers of the one"),
    ],
)
def test_prune_into_what_is_no_narrower_form_is_refused(other: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        prune_into(icnet(**other), icnet())  # type: ignore[arg-type]


def test_prune_into_other_classes_or_channels_is_refused() -> None:
    smaller = ICNetConfig(width=2)
    backbone = BackboneConfig(name="icnet_resnet50", in_channels=4)
    with pytest.raises(InvalidValue, match="has the num_classes, backbone of the one"):
        prune_into(create_model("icnet", smaller, num_classes=5, backbone=backbone), icnet())

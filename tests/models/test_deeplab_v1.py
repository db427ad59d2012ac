from __future__ import annotations

from typing import Literal

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss, cross_entropy
from perpixel.models import create_model
from perpixel.models.deeplab_v1 import DeepLabV1, DeepLabV1Config

SMALL_MSC = DeepLabV1Config(width=4, fc_width=6, fc6_dilation=2, msc=True, msc_width=3, dropout=0.0)


PLAIN = DeepLabV1Config(width=2, fc_width=4, fc6_kernel=4, fc6_dilation=4, pool5a=False, pool_kernel=2)
FORMS = [(False, 3), (True, 3), (False, 2)]
"""Side branches, and the kernel of the poolings."""


def parameters(**options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model("deeplab_v1", options, num_classes=21).parameters())


def small(config: DeepLabV1Config = SMALL_MSC, classes: int = 4) -> DeepLabV1:
    torch.manual_seed(0)
    network = create_model("deeplab_v1", config, num_classes=classes)
    assert isinstance(network, DeepLabV1)
    for branch in network.branches or ():
        for layer in (branch.conv, branch.fc):  # type: ignore[union-attr]
            torch.nn.init.normal_(layer.weight, std=0.3)  # type: ignore[arg-type]
    return network.double()


def test_deeplab_v1_published_forms_have_their_parameter_counts() -> None:
    assert parameters() == 20_505_429
    assert parameters(msc=True) == 21_711_550
    plain = {"fc_width": 4096, "pool5a": False, "fc6_dilation": 4}
    assert parameters(fc6_kernel=7, **plain) == 134_346_581
    assert parameters(fc6_kernel=4, **plain) == 65_140_565


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 12), (7, 4), (4, 4), (4, 8)])
def test_deeplab_v1_every_fc6_keeps_the_cells_on_every_eighth_pixel(kernel: int, dilation: int) -> None:
    config = DeepLabV1Config(width=1, fc_width=2, fc6_kernel=kernel, fc6_dilation=dilation, pool5a=False)
    network = create_model("deeplab_v1", config, num_classes=3).eval()
    assert network(torch.zeros(1, 3, 65, 97)).logits.shape == (1, 3, 9, 13)


def test_deeplab_v1_receptive_fields_add_what_fc6_reaches() -> None:
    def field(**options: object) -> int | None:
        with torch.device("meta"):
            return create_model("deeplab_v1", options, num_classes=2).receptive_field

    # Steps of 1, 2, 4 and 8 pixels: convolutions 2·2·1, 2·2·2, 3·2·4, 3·2·8, 3·4·8, poolings 2·(1 + 2 + 4 + 8 + 8)
    assert field(pool5a=False, fc6_kernel=1) == 1 + 4 + 8 + 24 + 48 + 96 + 46
    assert field() == 227 + 16 + 8 * 24
    assert field(fc6_kernel=7, fc6_dilation=4, pool5a=False) == 227 + 8 * 24
    # 2x2: poolings 1 + 2 + 4 + 8, and 2·8 of pool5
    assert field(pool5a=False, fc6_kernel=1, pool_kernel=2) == 1 + 4 + 8 + 24 + 48 + 96 + 31


@pytest.mark.parametrize("k", [1, 3, 19])
def test_deeplab_v1_plain_form_has_the_sizes_of_the_release(k: int) -> None:
    network = create_model("deeplab_v1", PLAIN, num_classes=3).eval()
    side = 16 * k + 2
    x = torch.zeros(1, 3, side, side)
    scores = []
    network.classifier.register_forward_hook(lambda _module, _given, made: scores.append(made))
    assert network(x).logits.shape == (1, 3, side, side)
    # As counted in config/DeepLab/test.prototxt: 306 pixels give 41 cells, enlarged to 321
    assert scores[0].shape[-1] == 2 * k + 3
    assert 8 * scores[0].shape[-1] - 7 == side + 15
    assert network.valid_size(side, side - 15) == (side, side - 8)


def test_deeplab_v1_plain_form_places_its_cells_on_every_eighth_pixel_from_the_second() -> None:
    network = small(PLAIN)
    scores: list[torch.Tensor] = []
    network.classifier.register_forward_hook(lambda _module, _given, made: scores.append(made))
    for training in (True, False):
        for height, width in ((18, 34), (26, 10), (41, 57), (23, 1)):
            network.train(training).dropout.eval()
            logits = network(torch.randn(1, 3, height, width, dtype=torch.float64)).logits
            assert logits.shape[-2:] == (height, width)
            cells = scores.pop()[..., 1:, 1:]  # the first cell lies on pixel -7
            rows, columns = logits[..., 1::8, 1::8].shape[-2:]
            assert torch.allclose(logits[..., 1::8, 1::8], cells[..., :rows, :columns], atol=1e-12)


def test_deeplab_v1_plain_form_pools_pairs_where_the_release_does() -> None:
    pools = PLAIN.layout.pools
    assert [(pool.kernel, pool.stride, pool.padding) for pool in pools if pool is not None] == [
        (2, 2, 1),
        (2, 2, 1),
        (2, 2, 1),
        (2, 1, 1),
        (3, 1, 1),
    ]
    assert {pool.kernel for pool in DeepLabV1Config().layout.pools if pool is not None} == {3}


def test_msc_at_test_time_is_its_training_form_on_every_eighth_pixel() -> None:
    network = small()
    image = torch.randn(1, 3, 41, 57, dtype=torch.float64)
    coarse, fine = network.train()(image).logits, network.eval()(image).logits
    assert coarse.shape == (1, 4, 6, 8) and fine.shape == (1, 4, 41, 57)
    assert torch.allclose(fine[..., ::8, ::8], coarse, atol=1e-12)
    assert network.logit_stride == 1


def test_msc_side_scores_count() -> None:
    network = small()
    image = torch.randn(1, 3, 17, 17, dtype=torch.float64)
    whole = network.eval()(image).logits
    for branch in network.branches:  # type: ignore[union-attr]
        kept = branch.classifier.bias.clone()  # type: ignore[union-attr,operator]
        with torch.no_grad():
            branch.classifier.bias += 1.0  # type: ignore[union-attr,operator]
        assert torch.allclose(network(image).logits, whole + 1.0)
        with torch.no_grad():
            branch.classifier.bias.copy_(kept)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("size", [(1, 1), (8, 30), (33, 64), (47, 21)])
@pytest.mark.parametrize(("msc", "pool_kernel"), FORMS)
def test_deeplab_v1_any_size_trains_alone_and_scores(
    size: tuple[int, int], msc: bool, pool_kernel: Literal[3, 2]
) -> None:
    network = small(DeepLabV1Config(width=2, fc_width=4, msc=msc, msc_width=2, pool_kernel=pool_kernel)).float()
    images = torch.randn(1, 3, *size)
    target = torch.zeros(1, *size, dtype=torch.uint8)
    criterion = SegmentationLoss(network.default_terms(), num_classes=4, align_corners=network.align_corners)
    criterion(network.train()(images), target).total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    scores = network.eval()(images).logits
    assert scores.isfinite().all()
    if network.logit_stride == 1:
        assert scores.shape[-2:] == size


def test_deeplab_v1_valid_sizes_are_eights_and_one_more() -> None:
    network = create_model("deeplab_v1", DeepLabV1Config.small(), num_classes=2)
    assert network.valid_size(321, 500) == (321, 505)
    assert network.valid_size(1, 2) == (1, 9)
    assert network.valid_size(513, 512) == (513, 513)


def test_deeplab_v1_loss_reads_every_eighth_label() -> None:
    network = small().train()
    target = torch.randint(0, 4, (1, 41, 57))
    target[0, 8, 8] = 255
    output = network(torch.randn(1, 3, 41, 57, dtype=torch.float64))
    criterion = SegmentationLoss(network.default_terms(), num_classes=4, align_corners=network.align_corners)
    assert torch.equal(criterion(output, target).total, cross_entropy(output.logits, target[:, ::8, ::8]))


def test_deeplab_v1_new_layers_begin_as_published() -> None:
    torch.manual_seed(0)
    config = DeepLabV1Config(width=2, fc_width=256, msc=True)
    network = create_model("deeplab_v1", config, num_classes=64)
    wanted = {"classifier.weight": 0.01}
    for index in range(5):
        wanted |= {f"branches.{index}.conv.weight": 0.001, f"branches.{index}.classifier.weight": 0.01}
        wanted[f"branches.{index}.fc.weight"] = 0.005 if index == 4 else 0.001
    state = network.state_dict()
    for name, deviation in wanted.items():
        assert state[name].std().item() == pytest.approx(deviation, rel=0.15), name
    assert all(
        not state[name].any() for name in state if name.startswith(("branches", "classifier")) and "bias" in name
    )


@pytest.mark.parametrize(("msc", "pool_kernel"), FORMS)
def test_deeplab_v1_exports_its_evaluation(msc: bool, pool_kernel: Literal[3, 2]) -> None:
    config = DeepLabV1Config(width=2, fc_width=4, msc=msc, msc_width=2, pool_kernel=pool_kernel)
    network = small(config).float().eval()
    images = torch.randn(1, 3, 41, 57)
    exported = torch.export.export(network, (images,)).module()
    assert torch.allclose(exported(images).logits, network(images).logits, atol=1e-6)


def test_deeplab_v1_plain_form_exports_for_any_size() -> None:
    network = small(PLAIN).float().eval()
    axes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(network, (torch.randn(1, 3, 34, 50),), dynamic_shapes=(axes,)).module()
    images = torch.randn(1, 3, 57, 23)
    assert torch.allclose(exported(images).logits, network(images).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fc_width": 0}, "DeepLab v1 fc_width must be >= 1, got 0"),
        ({"fc6_kernel": 4, "fc6_dilation": 3}, "fc6 of kernel 4 and dilation 3 spans an even number"),
        ({"pool_kernel": 4}, "pool_kernel of DeepLab v1 is one of 3, 2, got 4"),
        ({"pool_kernel": 2, "msc": True}, "MSc aligns its side branches by 3x3 poolings, got pool_kernel=2"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_deeplab_v1_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_model("deeplab_v1", options, num_classes=2)


def test_deeplab_v1_on_another_trunk_is_refused() -> None:
    with pytest.raises(InvalidValue, match="built on vgg16, got backbone 'resnet50'"):
        create_model("deeplab_v1", num_classes=2, backbone="resnet50")

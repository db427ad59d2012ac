from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perpixel.backbones import BackboneConfig, VGG16Layout, create_vgg16
from perpixel.errors import InvalidValue
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.models.fcn_vgg16 import FCNVGG16, FCNVGG16Config
from perpixel.types import Preprocessing
from perpixel.weights import transfer
from perpixel.weights.artifact import Artifact

TINY = FCNVGG16Config(width=2, fc_width=4)
FORMS = [(stride, padding) for stride in (32, 16, 8) for padding in ("pad100", "same")]


def fcn(config: FCNVGG16Config = TINY, *, num_classes: int = 3, seed: int = 0) -> FCNVGG16:
    torch.manual_seed(seed)
    network = create_model("fcn_vgg16", config, num_classes=num_classes)
    assert isinstance(network, FCNVGG16)
    return network


def with_scores(network: FCNVGG16) -> FCNVGG16:
    """Score layers as after training: anything but zero."""
    for name, parameter in network.named_parameters():
        if name.startswith("score"):
            nn.init.normal_(parameter)
    return network.eval()


@pytest.mark.parametrize(("stride", "parameters"), [(32, 136_152_917), (16, 134_815_994), (8, 134_489_759)])
def test_fcn_published_form_has_the_published_parameter_count(stride: int, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model("fcn_vgg16", {"stride": stride}, num_classes=21)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(("stride", "padding"), FORMS)
def test_fcn_logits_have_the_images_size_whatever_it_is(stride: Any, padding: Any) -> None:
    network = with_scores(fcn(replace(TINY, stride=stride, padding=padding)))
    for size in ((1, 1), (33, 32), (47, 90)):
        assert network(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)
    assert (network.logit_stride, network.minimum_size) == (1, 1)


@pytest.mark.parametrize(("stride", "padding"), FORMS)
def test_fcn_of_mirrored_kernels_mirrors_scores_so_maps_lie_where_they_should(stride: Any, padding: Any) -> None:
    """58 + 198 and 64 pixels are multiples of 32, so that pooling is symmetric: only wrong crops can break it."""
    network = with_scores(fcn(replace(TINY, stride=stride, padding=padding))).double()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data + parameter.data.flip(3)
    side = 58 if padding == "pad100" else 64
    image = torch.randn(1, 3, side, side, dtype=torch.float64)
    logits = network(image).logits
    mirrored = network(image.flip(3)).logits.flip(3)
    assert logits.std() > 1e-3
    assert torch.allclose(mirrored, logits, rtol=0, atol=1e-9 * logits.abs().max().item())
    assert not torch.allclose(mirrored[..., 1:], logits[..., :-1], rtol=0, atol=1e-3 * logits.abs().max().item())


@pytest.mark.parametrize("padding", ["pad100", "same"])
def test_fcn_scores_are_zero_before_training_and_reach_every_score_layer(padding: Any) -> None:
    network = fcn(replace(TINY, padding=padding)).train()
    logits = network(torch.randn(1, 3, 40, 40)).logits
    assert not logits.any()
    (logits * torch.randn_like(logits)).sum().backward()
    for layer in (network.score_fr, network.score_pool4, network.score_pool3):
        assert layer.classifier.weight.grad is not None
        assert layer.classifier.weight.grad.abs().max() > 0


def test_fcn_at_once_equals_the_plain_network_with_scaled_score_weights() -> None:
    plain = with_scores(fcn())
    at_once = fcn(replace(TINY, at_once=True)).eval()
    at_once.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.score_pool4.classifier.weight.mul_(0.01)
        plain.score_pool3.classifier.weight.mul_(0.0001)
    x = torch.randn(1, 3, 40, 40)
    assert torch.allclose(at_once(x).logits, plain(x).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("learn", "trained"),
    [("none", set()), ("inner", {"upscore2", "upscore_pool4"}), ("all", {"upscore2", "upscore_pool4", "upscore8"})],
)
def test_fcn_trains_the_deconvolutions_that_it_is_told_to(learn: Any, trained: set[str]) -> None:
    network = fcn(replace(TINY, learn_upsampling=learn, upscore_bias=True))
    assert network.upscore2.bias is not None
    found = {n.split(".")[0] for n, p in network.named_parameters() if n.startswith("upscore") and p.requires_grad}
    assert found == trained
    assert all(p.requires_grad for n, p in network.named_parameters() if not n.startswith("upscore"))


def test_fcn_stages_carry_all_weights_over_and_new_scores_begin_with_zero() -> None:
    labels = LabelSpace.numbered(3)
    before: FCNVGG16 | None = None
    for stride, new in ((32, ()), (16, ("score_pool4", "upscore2", "upscore16")), (8, None)):
        network = fcn(replace(TINY, stride=stride), seed=stride)  # type: ignore[arg-type]
        if before is not None:
            report = transfer(
                network,
                labels,
                Artifact(network=before, labels=labels, provenance={}, preprocessing=before.preprocessing),
            )
            anew = {key.split(".")[0] for key, _ in report.reinitialised}
            assert anew == set(new or ("score_pool3", "upscore_pool4", "upscore8"))
            assert report.share > 0.9
            assert torch.equal(network.score_fr.classifier.weight, before.score_fr.classifier.weight)
            assert not (network.score_pool4 if stride == 16 else network.score_pool3).classifier.weight.any()
        before = with_scores(network)


def test_fcn_other_classes_take_their_scores_along_by_name() -> None:
    source = with_scores(fcn())
    animals = replace(LabelSpace.numbered(3), names=("cat", "dog", "cow"))
    fewer = replace(LabelSpace.numbered(2), names=("cow", "cat"))
    target = fcn(num_classes=2, seed=1).eval()
    transfer(target, fewer, Artifact(network=source, labels=animals, provenance={}, preprocessing=source.preprocessing))
    x = torch.randn(1, 3, 33, 40)
    assert torch.allclose(target(x).logits, source(x).logits[:, [2, 0]], atol=1e-5)


def test_fcn_drops_single_values_behind_fc6_and_fc7() -> None:
    network = fcn(FCNVGG16Config(width=2, fc_width=64, dropout=0.5))
    dropped: list[Tensor] = []
    network.drop6.register_forward_hook(lambda _module, args, out: dropped.extend((args[0], out)))
    network.train()(torch.randn(1, 3, 90, 90))
    before, after = dropped
    kept = (after != 0) & (before > 0)
    assert torch.allclose(after[kept], 2 * before[kept])
    lost = (after == 0) & (before > 0)
    channels = [(kept[0, c].any() and lost[0, c].any()).item() for c in range(64)]
    assert any(channels)  # a channel is not dropped as a whole


def test_fcn_sees_no_further_than_its_receptive_field() -> None:
    network = with_scores(fcn(FCNVGG16Config(stride=8, padding="same", width=1, fc_width=1), num_classes=1)).double()
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 1e-3
    image = torch.rand(1, 3, 640, 640, dtype=torch.float64, requires_grad=True)
    network(image).logits[0, 0, 320, 320].backward()
    assert image.grad is not None and network.receptive_field is not None
    columns = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    span = (columns[-1] - columns[0] + 1).item()
    assert network.receptive_field - 64 < span <= network.receptive_field


def test_fcn_published_loss_is_summed_and_preprocessing_is_the_trunks() -> None:
    network = fcn()
    (term,) = network.default_terms()
    assert (term.loss, term.reduction, term.at) == ("cross_entropy", "sum", "target")
    trunk = create_vgg16(BackboneConfig(name="vgg16"), TINY.layout)
    trunk.preprocessing = Preprocessing(mean=(1.0, 2.0, 3.0))
    assert FCNVGG16(trunk, 2, TINY).preprocessing.mean == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(("stride", "padding"), FORMS)
def test_fcn_exports(stride: Any, padding: Any) -> None:
    network = with_scores(fcn(replace(TINY, stride=stride, padding=padding)))
    x = torch.randn(1, 3, 40, 57)
    exported = torch.export.export(network, (x,)).module()
    assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-5)


@pytest.mark.parametrize(("padding", "rest"), [("pad100", -6), ("same", 0)])
def test_fcn_exports_for_all_sizes_whose_pooling_needs_no_rounding(padding: Any, rest: int) -> None:
    network = with_scores(fcn(replace(TINY, padding=padding)))
    rows, columns = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("columns", min=2, max=64)
    sizes = {2: 32 * rows + rest, 3: 32 * columns + rest}
    exported = torch.export.export(
        network, (torch.randn(1, 3, 64 + rest, 96 + rest),), dynamic_shapes=(sizes,)
    ).module()
    x = torch.randn(1, 3, 128 + rest, 64 + rest)
    assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 4}, r"stride of FCN is one of \(32, 16, 8\), got 4"),
        ({"padding": "valid"}, "padding of FCN is one of .* got 'valid'"),
        ({"learn_upsampling": "some"}, "learn_upsampling of FCN is one of .* got 'some'"),
        ({"stride": 16, "at_once": True}, "at_once is of the FCN of stride 8, got stride 16"),
        ({"stride": 32, "upscore_bias": True}, "there is no upscore2"),
        ({"width": 0}, "widths must be >= 1, got 0 and 4096"),
        ({"fc_width": 0}, "widths must be >= 1, got 64 and 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_fcn_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        FCNVGG16Config(**options)


def test_fcn_trunk_of_another_layout_is_refused() -> None:
    for layout in (VGG16Layout(width=2), replace(TINY, padding="same").layout):
        trunk = create_vgg16(BackboneConfig(name="vgg16"), layout)
        with pytest.raises(InvalidValue, match="FCN's vgg16 needs the configuration's layout"):
            FCNVGG16(trunk, 3, TINY)

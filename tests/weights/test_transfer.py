from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from perpixel.backbones import BackboneConfig
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.labels import LabelSpace
from perpixel.models import DFNConfig, FCNConfig, create_model
from perpixel.weights import transfer
from perpixel.weights.artifact import Artifact


def space(*names: str) -> LabelSpace:
    return replace(LabelSpace.numbered(len(names)), names=names)


def fcn(num_classes: int, in_channels: int = 3, seed: int = 0):
    torch.manual_seed(seed)
    backbone = BackboneConfig(name="resnet18", in_channels=in_channels)
    return create_model("fcn", FCNConfig.small(), num_classes=num_classes, backbone=backbone)


def dfn(num_classes: int, seed: int = 0):
    torch.manual_seed(seed)
    config = DFNConfig(width=8, border_width=3, head_expansion=2)
    return create_model("dfn", config, num_classes=num_classes, backbone="resnet18")


def artifact(network, labels: LabelSpace) -> Artifact:
    return Artifact(network=network, labels=labels, provenance={}, preprocessing=network.preprocessing)


ANIMALS = space("cat", "dog", "cow")


def test_same_classes_copy_everything():
    source, target = fcn(3), fcn(3, seed=1)
    report = transfer(target, ANIMALS, artifact(source, ANIMALS))
    assert report.share == 1.0
    assert not report.reinitialised
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_classes_are_matched_by_name_and_new_ones_start_anew():
    source, target = fcn(3), fcn(4, seed=1)
    before = target.head.classifier.weight.detach().clone()
    report = transfer(target, space("sheep", "cow", "cat", "horse"), artifact(source, ANIMALS))
    weight, old = target.head.classifier.weight, source.head.classifier.weight
    assert torch.equal(weight[1], old[2])
    assert torch.equal(weight[2], old[0])
    assert torch.equal(weight[[0, 3]], before[[0, 3]])
    assert target.head.classifier.bias[1] == source.head.classifier.bias[2]
    keys = [f"{head}.classifier.{leaf}" for head in ("head", "auxiliary_head") for leaf in ("weight", "bias")]
    assert report.by_class == tuple((key, ("cow", "cat")) for key in keys)
    assert "matched by class name for 2 classes" in report.summary()


def test_reordered_classes_of_a_dfn_give_reordered_scores():
    source, target = dfn(3).eval(), dfn(3, seed=1).eval()
    transfer(target, space("cow", "cat", "dog"), artifact(source, ANIMALS))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(target(images).logits, source(images).logits[:, [2, 0, 1]], rtol=0, atol=0)


def test_dfn_heads_start_anew_when_the_number_of_classes_differs():
    source, target = dfn(3), dfn(2, seed=1)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    report = transfer(target, space("cat", "dog"), artifact(source, ANIMALS))
    anew = [key for key, _ in report.reinitialised]
    heads = [key for key in before if key.startswith("smooth.") and ".head." in key]
    heads = [key for key in heads if not key.endswith("num_batches_tracked")]
    assert anew == heads
    assert not report.by_class
    assert all(torch.equal(target.state_dict()[key], before[key]) for key in anew)
    assert torch.equal(target.border[0].head.classifier.weight, source.border[0].head.classifier.weight)
    assert "follows the number of classes" in report.summary()


def test_as_many_classes_under_other_names_start_anew_in_the_classifier_only():
    source, target = dfn(3), dfn(3, seed=1)
    report = transfer(target, space("road", "sky", "car"), artifact(source, ANIMALS))
    assert {key.split(".head.")[1] for key, _ in report.reinitialised} == {"classifier.weight", "classifier.bias"}
    assert "no class of the source has a name of the new ones" in report.summary()


@pytest.mark.parametrize("in_channels", [1, 5])
def test_first_convolution_is_adapted_so_that_grey_images_score_alike(in_channels):
    source, target = fcn(3).eval(), fcn(3, in_channels, seed=1).eval()
    report = transfer(target, ANIMALS, artifact(source, ANIMALS))
    assert [key for key, _ in report.adapted] == ["backbone.net.conv1.weight"]
    assert "adapted" in report.summary()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        theirs = source(grey.expand(-1, 3, -1, -1)).logits
        ours = target(grey.expand(-1, in_channels, -1, -1)).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_another_architecture_is_refused_and_leaves_the_network_alone():
    target = fcn(3, seed=1)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    torch.manual_seed(0)
    other = create_model("fcn", FCNConfig.small(), num_classes=3, backbone="mobilenetv3_small_050")
    with pytest.raises(CheckpointError, match=r"only \d+.\d% of the parameters .*at least 50%"):
        transfer(target, ANIMALS, artifact(other, ANIMALS))
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_labels_of_another_number_of_classes_are_refused():
    with pytest.raises(InvalidValue, match="has 3 classes, the network 4"):
        transfer(fcn(4), ANIMALS, artifact(fcn(3), ANIMALS))


def test_types_are_kept_and_sources_extra_tensors_are_named():
    source, target = dfn(3).double(), dfn(3, seed=1)
    torch.manual_seed(1)
    config = replace(source.config, border_network=False)
    target = create_model("dfn", config, num_classes=3, backbone="resnet18")
    report = transfer(target, ANIMALS, artifact(source, ANIMALS))
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    assert report.left_over
    assert all(key.startswith("border.") for key in report.left_over)
    assert "left over" in report.summary()

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torchseg_layout as ts

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.labels import LabelSpace
from perpixel.ops import resize
from perpixel.weights import import_checkpoint, import_weights
from perpixel.weights.importers.resnet_trunk import read_resnet

IMAGES = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("depth", "stem_width", "classes", "width", "border_width", "expansion"),
    [
        ("resnet18", None, 5, 16, 6, 9),
        ("resnet18", 64, 2, 12, 21, 9),
        pytest.param("resnet50", 32, 19, 8, 5, 3, marks=pytest.mark.slow),
    ],
)
def test_dfn_of_any_size_computes_what_torchseg_computes(depth, stem_width, classes, width, border_width, expansion):
    shapes = ts.dfn_shapes(
        depth, classes=classes, width=width, border_width=border_width, expansion=expansion, stem_width=stem_width
    )
    state = ts.filled(shapes)
    imported = import_checkpoint(state)
    assert imported.report.family == "torchseg/dfn"
    assert imported.labels == LabelSpace.numbered(classes)
    network = imported.network
    assert (network.num_classes, network.config.width, network.config.border_width) == (classes, width, border_width)
    assert not network.training
    network.supervise = True
    with torch.no_grad():
        output = network(IMAGES)
        smooth, border = ts.dfn_forward(state, depth, stem_width, IMAGES)
    for ours, theirs in zip((*output.deep, output.logits, *output.border), (*smooth, *border), strict=True):
        torch.testing.assert_close(
            resize(ours, theirs.shape[-2:], align_corners=network.align_corners), theirs, rtol=0, atol=1e-9
        )


def test_fcn32s_of_any_size_computes_what_torchseg_computes():
    state = ts.filled(ts.fcn32s_shapes("resnet18", stem_width=32))
    imported = import_checkpoint(state)
    assert imported.report.family == "torchseg/fcn32s"
    imported.network.supervise = True
    with torch.no_grad():
        output = imported.network(IMAGES)
        logits, auxiliary = ts.fcn32s_forward(state, "resnet18", 32, IMAGES)
    torch.testing.assert_close(output.logits, logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(output.deep[0], auxiliary, rtol=0, atol=1e-9)
    assert imported.network.preprocessing.std == (0.229, 0.224, 0.224)  # TorchSeg's own numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_takes_the_floating_type_of_the_checkpoint(dtype):
    network = import_weights(ts.filled(ts.fcn32s_shapes(), dtype))
    assert {p.dtype for p in network.parameters()} == {dtype}


def test_wrapped_checkpoint_file_is_the_same_network(tmp_path):
    state = ts.filled(ts.dfn_shapes(), torch.float32)
    plain = import_weights(state, "torchseg/dfn")
    wrapped = OrderedDict((f"module.{key}", value) for key, value in state.items())
    torch.save({"model": wrapped, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "epoch-3.pth")
    imported = import_checkpoint(tmp_path / "epoch-3.pth")
    for key, value in plain.state_dict().items():
        assert torch.equal(imported.network.state_dict()[key], value), key
    summary = imported.report.summary()
    assert "left aside: epoch, optimizer" in summary
    assert "prefix 'module.' taken off" in summary


def test_unused_border_block_is_reported_and_may_be_absent():
    state = ts.filled(ts.dfn_shapes())
    report = import_checkpoint(state).report
    unused = [key for key in state if key.startswith("border_aft_rrbs.0.")]
    assert [key for key, reason in report.ignored if "never used" in reason] == unused
    assert len(report.matched) == len(state) - len(unused)
    assert ("smooth_heads.2.rrb.cbr.bn.weight", "smooth.2.head.refine.residual.norm.weight") in report.renamed
    assert not report.missing
    assert not report.left_over
    without = {key: value for key, value in state.items() if key not in unused}
    assert import_checkpoint(without).report.ignored == ()


def test_old_checkpoint_without_batch_counters_is_accepted_and_says_so():
    state = {k: v for k, v in ts.filled(ts.fcn32s_shapes()).items() if not k.endswith("num_batches_tracked")}
    imported = import_checkpoint(state)
    assert "batch counters" in imported.report.summary()
    assert imported.network.head.block.norm.num_batches_tracked.item() == 0


def test_buffers_of_the_loss_are_left_aside_and_named():
    state = {**ts.filled(ts.fcn32s_shapes()), "criterion.weight": torch.ones(4)}
    summary = import_checkpoint(state).report.summary()
    assert "of the training loss, not of the network, left aside: criterion.weight" in summary


def test_missing_left_over_and_misshapen_keys_are_an_error_that_lists_them():
    state = ts.filled(ts.dfn_shapes())
    del state["cabs.2.channel_attention.fc.2.bias"]
    state["smooth_heads.0.extra"] = torch.zeros(1)
    state["border_heads.1.conv.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(state)
    message = str(caught.value)
    assert "1 left over (theirs, no place in our network): smooth_heads.0.extra" in message
    assert "1 missing (ours, not in the checkpoint): smooth.2.attention.weights.2.bias" in message
    assert "border_heads.1.conv.bias (3,), ours (1,)" in message


def test_long_lists_of_keys_are_cut_after_ten():
    state = ts.filled(ts.fcn32s_shapes())
    extra = {f"head.extra{i:02}": torch.zeros(1) for i in range(14)}
    with pytest.raises(CheckpointError, match=r"14 left over .*extra09 and 4 more"):
        import_checkpoint({**state, **extra}, "torchseg/fcn32s")


@pytest.mark.parametrize(("depth", "stem_width"), [(d, s) for d in ts.BLOCKS for s in (None, 32, 64)])
def test_trunk_is_read_off_keys_and_shapes(depth, stem_width):
    shapes = ts.trunk_shapes(depth, stem_width=stem_width, in_channels=4)
    config = read_resnet({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    assert config.name == depth
    assert config.stem == ("7x7" if stem_width is None else f"deep{stem_width}")
    assert config.in_channels == 4


def test_unknown_depth_is_an_error_with_the_counts():
    shapes = ts.trunk_shapes("resnet18", stem_width=None)
    tensors = {k: torch.empty(s, device="meta") for k, s in shapes.items() if not k.startswith("layer3.1.")}
    with pytest.raises(CheckpointError, match=r"\(2, 2, 1, 2\) basic blocks, which is none of resnet18"):
        read_resnet(tensors)


def test_unknown_stem_is_an_error_with_its_shape():
    shapes = ts.trunk_shapes("resnet18", stem_width=48)
    with pytest.raises(CheckpointError, match=r"\(48, 3, 3, 3\).*32 or 64 channels"):
        read_resnet({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})


def test_heads_that_are_no_multiple_of_the_classes_are_an_error():
    state = ts.filled(ts.dfn_shapes(classes=5, expansion=2))
    state["smooth_heads.0.conv.weight"] = torch.zeros(4, 10, 1, 1)
    with pytest.raises(CheckpointError, match="10 channels for 4 classes"):
        import_checkpoint(state)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("smooth_heads.0.conv.weight", None, "lacks 'smooth_heads.0.conv.weight'"),
        ("smooth_heads.0.conv.weight", torch.zeros(5, 45), "4 dimensions expected"),
    ],
)
def test_keys_that_sizes_are_read_from_must_be_there(key, value, message):
    state = ts.filled(ts.dfn_shapes())
    state.pop(key)
    if value is not None:
        state[key] = value
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(state)


def test_align_corners_option_changes_the_network_and_stands_in_the_report():
    imported = import_checkpoint(ts.filled(ts.fcn32s_shapes()), align_corners=False)
    assert imported.network.align_corners is False
    assert "align_corners=False" in imported.report.summary()


def test_unknown_family_option_value_and_labels_are_errors_with_the_nearest_name():
    state = ts.filled(ts.fcn32s_shapes())
    with pytest.raises(InvalidValue, match="did you mean 'torchseg/fcn32s'"):
        import_checkpoint(state, "torchseg/fcn32")
    with pytest.raises(InvalidValue, match=r"no option 'align_corner'; did you mean 'align_corners'"):
        import_checkpoint(state, align_corner=True)
    with pytest.raises(InvalidValue, match="align_corners is one of True, False, got 'yes'"):
        import_checkpoint(state, align_corners="yes")
    with pytest.raises(InvalidValue, match="got 1"):
        import_checkpoint(state, align_corners=1)
    with pytest.raises(InvalidValue, match=r"'voc' has 21 classes, the checkpoint 4"):
        import_checkpoint(state, labels="voc")


def test_given_labels_are_kept():
    space = LabelSpace.numbered(4)
    assert import_checkpoint(ts.filled(ts.fcn32s_shapes()), labels=space).labels is space


def test_checkpoint_of_no_or_another_family_is_an_error_that_says_which():
    with pytest.raises(CheckpointError, match=r"keys are of no known family .*it holds a.weight"):
        import_checkpoint({"a.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"not of family torchseg/dfn .*looks like torchseg/fcn32s"):
        import_checkpoint(ts.filled(ts.fcn32s_shapes()), "torchseg/dfn")

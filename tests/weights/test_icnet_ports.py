from __future__ import annotations

import icnet_layout as layout
import pytest
import torch

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint
from perpixel.weights.importers import IMPORTERS


def images(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def assert_equal(network: torch.nn.Module, x: torch.Tensor, wanted: tuple[torch.Tensor, ...]) -> None:
    network.supervise = True  # type: ignore[assignment]
    with torch.no_grad():
        output = network(x)
    for ours, theirs in zip((output.logits, output.deep[1], output.deep[0]), wanted, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("on_1x1", [False, True])
def test_ptsemseg_of_any_size_computes_what_that_code_computes(on_1x1: bool, merged: bool) -> None:
    state = layout.filled(layout.ptsemseg_shapes(width=3, classes=7, in_channels=4, merged=merged))
    imported = import_checkpoint(state, stride_on_1x1=on_1x1)
    assert imported.report.family == "ptsemseg/icnet"
    assert (imported.network.config.width, imported.network.num_classes) == (3, 7)
    x = images(193, 257, 4)
    assert_equal(imported.network, x, layout.ptsemseg_forward(state, x, stride_on_1x1=on_1x1, pooling="floor"))


def test_ptsemseg_at_the_published_size_pools_by_the_published_kernels() -> None:
    state = layout.filled(layout.ptsemseg_shapes(width=1, classes=2))
    x = images(1025, 2049)
    wanted = layout.ptsemseg_forward(state, x, stride_on_1x1=False, pooling="fixed")
    assert_equal(import_checkpoint(state).network, x, wanted)


def test_ptsemseg_reports_what_weights_cannot_tell_and_what_is_unused() -> None:
    state = layout.filled(layout.ptsemseg_shapes())
    imported = import_checkpoint(state)
    unused = [key for key, reason in imported.report.ignored if "never used" in reason]
    assert unused == [key for key in state if key.startswith("pyramid_pooling.")]
    assert "give stride_on_1x1=true" in imported.report.summary()
    assert "give stride_on_1x1=false" in import_checkpoint(state, stride_on_1x1=True).report.summary()
    preprocessing = imported.network.preprocessing
    assert (preprocessing.channel_order, preprocessing.mean) == ("bgr", (103.939, 116.779, 123.68))
    without = {key: value for key, value in state.items() if key not in unused}
    assert import_checkpoint(without).report.ignored == ()


def test_liminn_of_any_size_computes_what_that_code_computes() -> None:
    state = layout.filled(layout.liminn_shapes("resnet18", classes=6, stem_width=64))
    imported = import_checkpoint(state)
    assert imported.report.family == "liminn/icnet"
    assert imported.network.backbone.config.name == "resnet18"
    assert [key for key, _ in imported.report.ignored] == ["pretrained.fc.weight", "pretrained.fc.bias"]
    assert "weights cannot tell the dilation: output stride 8 was taken" in imported.report.summary()
    x = images(128, 96)
    assert_equal(imported.network, x, layout.liminn_forward(state, x, stem_width=64))


def test_liminn_in_the_other_dilation_convention_is_another_function() -> None:
    state = layout.filled(layout.liminn_shapes())
    x = images(64, 64)
    with torch.no_grad():
        half, full = (import_checkpoint(state, dilation=kind).network(x).logits for kind in ("half", "full"))
    assert (half - full).abs().max() > 1e-3


@pytest.mark.parametrize("depth", ["resnet50", "resnet101", "resnet152"])
def test_liminn_layouts_of_published_depths_are_recognised(depth: str) -> None:
    shapes = layout.liminn_shapes(depth, stem_width=64, width=32, classes=19)
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert [family for family, importer in IMPORTERS.items() if importer.recognise(tensors)] == ["liminn/icnet"]
    importer = IMPORTERS["liminn/icnet"]
    with torch.device("meta"):
        plan = importer.plan(tensors, {name: option.default for name, option in importer.options.items()})
    ours = {key: value.shape for key, value in plan.network.state_dict().items()}
    assert ours == {plan.rename(key): v.shape for key, v in tensors.items() if not key.startswith("pretrained.fc.")}


def test_ptsemseg_layout_is_of_one_family() -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in layout.ptsemseg_shapes().items()}
    assert [family for family, importer in IMPORTERS.items() if importer.recognise(tensors)] == ["ptsemseg/icnet"]


def test_icnet_checkpoint_of_other_proportions_is_refused_with_its_shapes() -> None:
    state = layout.filled(layout.ptsemseg_shapes())
    state["conv5_4_k1.cbr_unit.0.weight"] = torch.zeros(3, 64, 1, 1)
    with pytest.raises(CheckpointError, match=r"of another shape: conv5_4_k1.cbr_unit.0.weight \(3, 64, 1, 1\)"):
        import_checkpoint(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pooling": "flor"}, "pooling is one of .*did you mean 'floor'"), ({"stride_on_1x1": 1}, "got 1")],
)
def test_icnet_options_of_other_values_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        import_checkpoint(layout.filled(layout.ptsemseg_shapes(width=1)), **options)

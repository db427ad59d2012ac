from __future__ import annotations

import drsleep_layout as ds
import pytest
import torch

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.types import Preprocessing
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "sizes"),
    [
        ("resnet18", {}),
        ("resnet18", {"classes": 2, "width": 7, "coarse_width": 5, "input_units": 1, "output_units": 2, "pools": 2}),
        pytest.param("resnet50", {"classes": 7}, marks=pytest.mark.slow),
    ],
)
def test_refinenet_of_any_size_computes_what_that_code_computes(depth, sizes):
    state = ds.filled(ds.refinenet_shapes(depth, **sizes))
    imported = import_checkpoint(state)
    assert imported.report.family == "drsleep/refinenet"
    network = imported.network
    assert network.backbone.config.name == depth
    assert network.preprocessing == Preprocessing()
    assert network.num_classes == sizes.get("classes", 5)
    assert network.config.num_pools == sizes.get("pools", 4)
    assert not imported.report.missing and not imported.report.left_over
    with torch.no_grad():
        close(network(IMAGES).logits, ds.resnet_forward(state, depth, IMAGES))


@pytest.mark.parametrize(
    ("depth", "sizes"),
    [
        ("resnet18", {"classes": 3, "width": 4, "coarse_width": 9, "pools": 3}),
        pytest.param("resnet50", {}, marks=pytest.mark.slow),
    ],
)
def test_light_refinenet_on_resnets_computes_what_that_code_computes(depth, sizes):
    state = ds.filled(ds.light_shapes(depth, **sizes))
    imported = import_checkpoint(state)
    assert imported.report.family == "drsleep/refinenet-lw"
    network = imported.network
    assert (network.config.width, network.config.coarse_width) == (sizes.get("width", 6), sizes.get("coarse_width", 8))
    with torch.no_grad():
        close(network(IMAGES).logits, ds.resnet_forward(state, depth, IMAGES))


@pytest.mark.parametrize("sizes", [{}, {"classes": 3, "width": 5, "coarse_width": 7, "pools": 2, "stem": 8}])
def test_light_refinenet_on_mobilenets_computes_what_that_code_computes(sizes):
    state = ds.filled(ds.mobilenet_shapes(**sizes))
    imported = import_checkpoint(state)
    assert imported.report.family == "drsleep/refinenet-lw"
    network = imported.network
    assert network.backbone.config.name == "drsleep_mobilenet_v2"
    assert [row[:3] for row in network.config.mobilenet_stages] == list(ds.ROWS)
    assert not imported.report.missing and not imported.report.left_over
    assert "taken to be before them (pooling_order=conv_pool is the other)" in imported.report.summary()
    with torch.no_grad():
        close(network(IMAGES).logits, ds.mobilenet_forward(state, IMAGES))


def test_options_change_the_function_and_stand_in_the_report():
    state = ds.filled(ds.light_shapes(pools=2))
    imported = import_checkpoint(state, pooling_order="conv_pool", align_corners=False)
    assert "taken to be behind them (pooling_order=pool_conv is the other)" in imported.report.summary()
    assert imported.network.align_corners is False
    theirs = ds.resnet_forward(state, "resnet18", IMAGES, order="conv_pool", align_corners=False)
    with torch.no_grad():
        close(imported.network(IMAGES).logits, theirs)


def test_unknown_option_value_is_an_error_with_the_choices():
    state = ds.filled(ds.light_shapes(pools=1))
    with pytest.raises(InvalidValue, match="pooling_order is one of 'pool_conv', 'conv_pool', got 'conv'"):
        import_checkpoint(state, pooling_order="conv")


@pytest.mark.parametrize("shapes", [ds.light_shapes, ds.mobilenet_shapes])
def test_image_channels_are_read_off_the_stem(shapes):
    state = ds.filled(shapes(in_channels=5, pools=1))
    network = import_checkpoint(state).network
    assert network.backbone.config.in_channels == network.preprocessing.num_channels == 5


@pytest.mark.parametrize(
    ("shapes", "key", "message"),
    [
        (
            ds.refinenet_shapes,
            "mflow_conv_g3_pool.0.2_outvar_dimred.weight",
            "1 missing .*blocks.2.pools.convs.1.weight",
        ),
        (ds.refinenet_shapes, "clf_conv.weight", "lacks 'clf_conv.weight'"),
        (ds.mobilenet_shapes, "conv_adapt3.weight", "levels.2.coarser.weight"),
        (ds.mobilenet_shapes, "crp2.0.1_outvar_dimred.weight", "levels.2.pools.convs.0.weight"),
        (ds.mobilenet_shapes, "layer4.0.output.2.0.weight", "lacks 'layer4.0.output.2.0.weight'"),
    ],
)
def test_missing_keys_are_named(shapes, key, message):
    state = ds.filled(shapes(pools=2))
    del state[key]
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(state)


def test_chain_without_pools_is_an_error_that_names_it():
    state = ds.filled(ds.mobilenet_shapes(pools=1))
    state["crp4.0.weight"] = state.pop("crp4.0.1_outvar_dimred.weight")
    with pytest.raises(CheckpointError, match=r"lacks 'crp4.0.1_outvar_dimred.weight'"):
        import_checkpoint(state)


def test_mobilenet_that_expands_by_no_whole_factor_is_an_error():
    state = ds.filled(ds.mobilenet_shapes(pools=1))
    state["layer3.0.output.0.0.weight"] = torch.zeros(9, 4, 1, 1)
    with pytest.raises(CheckpointError, match=r"layer3.0 expands 4 channels to 9, which is no multiple"):
        import_checkpoint(state)


def test_pools_that_differ_between_blocks_are_left_over_and_named():
    state = ds.filled(ds.mobilenet_shapes(pools=2))
    state["crp1.0.3_outvar_dimred.weight"] = torch.zeros(6, 6, 1, 1)
    with pytest.raises(CheckpointError, match=r"1 left over .*crp1.0.3_outvar_dimred.weight"):
        import_checkpoint(state)


def test_light_checkpoint_is_not_taken_for_the_whole_network():
    with pytest.raises(CheckpointError, match=r"not of family drsleep/refinenet .*looks like drsleep/refinenet-lw"):
        import_checkpoint(ds.filled(ds.light_shapes(pools=1)), "drsleep/refinenet")
    with pytest.raises(CheckpointError, match=r"not of family drsleep/refinenet-lw .*looks like drsleep/refinenet"):
        import_checkpoint(ds.filled(ds.refinenet_shapes(pools=1)), "drsleep/refinenet-lw")

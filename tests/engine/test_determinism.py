"""Deterministic mode: what it sets, what it refuses, and that no operation slips into a network unnoticed."""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import perpixel
from perpixel.backbones import BackboneConfig, create_backbone
from perpixel.engine.determinism import (
    check_deterministic,
    deterministic_errors,
    deterministic_mode,
    nondeterministic_layers,
)
from perpixel.errors import RunError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"

WATCHED = {
    *("interpolate", "upsample", "Upsample", "grid_sample", "max_unpool2d", "MaxUnpool2d", "fold", "Fold"),
    *("adaptive_avg_pool2d", "AdaptiveAvgPool2d", "adaptive_max_pool2d", "AdaptiveMaxPool2d", "fractional_max_pool2d"),
    *("ReflectionPad2d", "ReplicationPad2d", "put_", "index_put", "index_put_", "scatter_reduce", "scatter_reduce_"),
    *("scatter_add", "scatter_add_", "index_add", "index_add_", "scatter", "scatter_", "histc", "bincount", "median"),
    *("nanmedian", "kthvalue", "cumsum", "cumsum_", "NLLLoss", "ctc_loss", "embedding_bag", "EmbeddingBag"),
    *(
        "atomic_add",
        "atomic_max",
        "atomic_cas",
        "cross_entropy with a reduction",
        "nll_loss with a reduction",
        "pad with a mode",
    ),
}
"""What `torch.use_deterministic_algorithms` lists as raising or as slower on CUDA, and Triton's atomics."""

KNOWN = {
    "losses/ohem.py kthvalue": "the value is the same whatever the order; not listed since PyTorch 2.14, no gradient",
    "losses/region.py cumsum": "PyTorch has a deterministic form; sums of ones are exact in any order",
    "losses/region.py scatter_add": "PyTorch has a deterministic form",
    "models/adelaide.py index_add": "PyTorch has a deterministic form",
    "models/deeplab_v2.py interpolate": "of images, which take no gradient",
    "models/dpn.py adaptive_avg_pool2d": "of images, which take no gradient",
    "models/unet_backbone.py interpolate": "mode nearest, whose gradient is gathered, not scattered",
    "ops/banded_nll.py scatter_add_": "no two places are one; on the CPU",
    "ops/class_basis.py adaptive_avg_pool2d": "of the data's masks, before training",
    "ops/class_masks.py cumsum": "of whole numbers",
    "ops/distance_weights.py scatter_add_": "of whole numbers, without gradient",
    "ops/doubled_conv.py interpolate": "mode nearest, whose gradient is gathered, not scattered",
    "ops/nll_pieces.py scatter_add_": "no two places are one; on the CPU",
    "ops/permutohedral.py cumsum": "of whole numbers",
    "ops/permutohedral.py embedding_bag": "mode sum; only mode max is listed",
    "ops/permutohedral.py scatter_": "no two places are one",
    "ops/presence.py scatter_": "writes one value, whatever the order",
    "ops/resize.py adaptive_avg_pool2d": "its gradient is a matrix product in deterministic mode",
    "ops/resize.py interpolate": "its gradient is a matrix product in deterministic mode",
    "ops/superpixels.py scatter_": "writes one value, whatever the order",
    "ops/superpixels.py scatter_add": "PyTorch has a deterministic form",
    "ops/superpixels.py scatter_reduce": "the largest or the smallest of whole numbers, without gradient",
    "ops/unpool.py max_unpool2d": "a scatter does the same in deterministic mode",
    "ops/unpool.py scatter": "no two places are one where windows do not overlap, and PyTorch has a deterministic form",
}
"""Every use of these in the rooms of networks and losses, and why it holds in deterministic mode."""


def uses(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if owner == "self":  # a layer of the network's own
            continue
        if name in ("cross_entropy", "nll_loss") and owner in ("F", "nn.functional"):
            name += " with a reduction" if keywords.get("reduction") != "'none'" else ""
        if name == "pad" and "mode" in keywords:
            name = "pad with a mode"
        if name in WATCHED:
            yield name


def test_rooms_of_networks_and_losses_use_no_nondeterministic_operation_that_is_not_known() -> None:
    root = Path(perpixel.__file__).parent
    found = Counter(
        f"{path.relative_to(root).as_posix()} {name}"
        for room in ("backbones", "models", "layers", "ops", "losses")
        for path in sorted((root / room).rglob("*.py"))
        for name in uses(path)
    )
    assert set(found) == set(KNOWN), (
        "say in KNOWN why a new use holds in deterministic mode, or give it a form that does"
    )


def test_uses_finds_calls_by_name_and_by_reduction(tmp_path: Path) -> None:
    source = tmp_path / "layers.py"
    source.write_text(
        "F.cross_entropy(x, y)\nF.nll_loss(x, y, reduction='none')\nx.cumsum(0)\nF.pad(x, (1, 1), mode='reflect')\n"
        "self.fold(x)\nF.pad(x, (1, 1))\nnn.AdaptiveAvgPool2d(2)\n"
    )
    assert sorted(uses(source)) == [
        "AdaptiveAvgPool2d",
        "cross_entropy with a reduction",
        "cumsum",
        "pad with a mode",
    ]


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what the mode changes."""
    cudnn = torch.backends.cudnn
    kept = cudnn.deterministic, cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory
    monkeypatch.setenv(WORKSPACE, "")
    monkeypatch.delenv(WORKSPACE)
    yield
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory = kept


def state() -> tuple[bool, bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.usefixtures("flags")
def test_deterministic_mode_on_cuda_sets_flags_and_the_workspace_and_says_what_it_costs() -> None:
    ((choice, reason),) = deterministic_mode(True, "cuda")
    assert state() == (True, True, False, False)
    assert os.environ[WORKSPACE] == ":4096:8"
    assert choice == "on"
    assert "slower" in reason
    assert ":4096:8" in reason
    assert deterministic_mode(False, "cuda") == []
    assert state() == (False, False, True, True)


@pytest.mark.usefixtures("flags")
def test_deterministic_mode_on_the_cpu_leaves_the_environment_alone() -> None:
    ((_, reason),) = deterministic_mode(True, "cpu")
    assert "number of threads" in reason
    assert WORKSPACE not in os.environ


@pytest.mark.usefixtures("flags")
def test_deterministic_mode_another_workspace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(RunError, match=r"CUBLAS_WORKSPACE_CONFIG is ':0:0'.*make it ':4096:8'"):
        deterministic_mode(True, "cuda")
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv(WORKSPACE, ":16:8")
    assert deterministic_mode(True, "cuda")


LAYERS = {
    "ReflectionPad2d": nn.ReflectionPad2d(1),
    "MaxUnpool2d": nn.MaxUnpool2d(2),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1),
    "AdaptiveAvgPool2d((2, 3))": nn.AdaptiveAvgPool2d((2, 3)),
    "Upsample(mode='bilinear')": nn.Upsample(scale_factor=2, mode="bilinear"),
    "Conv2d(padding_mode='reflect')": nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
    "EmbeddingBag(mode='max')": nn.EmbeddingBag(2, 2, mode="max"),
}


@pytest.mark.parametrize("reason", LAYERS)
def test_nondeterministic_layers_are_named(reason: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sequential(LAYERS[reason]))
    assert nondeterministic_layers(network) == [("1.0", reason)]


def test_nondeterministic_layers_of_harmless_ones_are_none() -> None:
    harmless = [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)), nn.Upsample(scale_factor=2), nn.MaxPool2d(2)]
    assert nondeterministic_layers(nn.Sequential(*harmless)) == []


def test_check_deterministic_names_network_layers_and_the_way_out_on_cuda_alone() -> None:
    network = nn.Sequential(*[nn.ReflectionPad2d(1) for _ in range(6)])
    check_deterministic(network, "cpu")
    with pytest.raises(RunError, match=r"Sequential has layers .*0: ReflectionPad2d.*and 2 more.*deterministic: false"):
        check_deterministic(network, "cuda")


def test_check_deterministic_published_trunk_passes() -> None:
    check_deterministic(create_backbone(BackboneConfig(name="resnet10t")), "cuda")


def test_deterministic_errors_name_the_operation_and_the_way_out() -> None:
    with (
        pytest.raises(RunError, match=r"some_backward_cuda does not have .*deterministic: false"),
        deterministic_errors(),
    ):
        raise RuntimeError("some_backward_cuda does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="another"), deterministic_errors():
        raise RuntimeError("another")


@pytest.mark.gpu
@pytest.mark.usefixtures("flags")
def test_deterministic_mode_on_cuda_repeats_a_step_bit_for_bit() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from perpixel.losses import SegmentationLoss
    from perpixel.models import MODELS, create_model

    deterministic_mode(True, "cuda")
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        network = create_model("dfn", MODELS["dfn"].config.small(), num_classes=5, backbone="resnet10t").cuda()
        loss = SegmentationLoss(network.default_terms(), num_classes=5, align_corners=network.align_corners)
        target = torch.randint(0, 5, (2, 64, 64)).cuda()
        loss(network(torch.randn(2, 3, 64, 64).cuda()), target).total.backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

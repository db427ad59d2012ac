"""What is compared computes the same: restatements against ours with their weights, and DFN's losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perpixel.bench import packages, plain_dfn, plain_networks
from perpixel.bench.peers import PAIRS, Pair, build_ours, build_peer, gmacs_of, scores_in
from perpixel.errors import MissingExtra
from perpixel.losses import SegmentationLoss
from perpixel.models import create_model
from perpixel.ops import border_targets, resize

CLASSES = 3


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def small(name: str, build: Any) -> Pair:
    return Pair(title=name, peer="restated", family=PAIRS[name].family, build=lambda: build().double())


def dfn() -> nn.Module:
    return plain_dfn.PlainDFN(18, CLASSES, width=8, border_width=3)


def test_restated_dfn_gives_all_scores_and_the_loss_of_ours() -> None:
    pair = small("dfn_resnet18", dfn)
    peer, ours = build_peer(pair), build_ours(pair)
    ours.supervise = True
    images = drawn((2, 3, 64, 96))
    target = torch.randint(0, CLASSES, (2, 64, 96), generator=torch.Generator().manual_seed(1))
    target[:, :5] = 255
    with torch.no_grad():
        theirs, output = peer(images), ours(images)
        borders = border_targets(target)
        loss = plain_dfn.plain_dfn_loss(theirs, target, borders)
        own = SegmentationLoss(ours.default_terms(), num_classes=CLASSES, align_corners=True)(output, target).total
    scores, edges = theirs
    mine = [*output.deep, output.logits, *output.border]
    for plain, found in zip([*scores, *edges], mine, strict=True):
        enlarged = resize(found, plain.shape[-2:], align_corners=True)
        torch.testing.assert_close(enlarged, plain, rtol=0, atol=1e-9)
    torch.testing.assert_close(own.float(), loss.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "name, build",
    [
        ("hrnet_w18", lambda: plain_networks.PlainHRNet(4, CLASSES)),
        pytest.param("pspnet_resnet50", lambda: plain_networks.PlainPSPNet(CLASSES), marks=pytest.mark.slow),
        pytest.param("dfn_resnet101", lambda: plain_dfn.PlainDFN(101, CLASSES, width=8), marks=pytest.mark.slow),
    ],
)
def test_restated_network_gives_the_scores_of_ours(name: str, build: Any) -> None:
    pair = small(name, build)
    images = drawn((1, 3, 64, 64))
    with torch.no_grad():
        theirs, ours = scores_in(build_peer(pair)(images)), build_ours(pair)
        mine = resize(ours(images).logits, images.shape[-2:], align_corners=ours.align_corners)
    scale = float(theirs.abs().max())
    assert float((mine - theirs).abs().max()) <= 1e-9 * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, pair in PAIRS.items() if pair.peer != "restated"])
def test_peer_of_a_package_gives_the_scores_of_ours(name: str) -> None:
    images = drawn((1, 3, 64, 64)).float()
    with torch.no_grad():
        theirs, ours = scores_in(build_peer(PAIRS[name])(images)), build_ours(PAIRS[name])
        mine = resize(ours(images).logits, images.shape[-2:], align_corners=ours.align_corners)
    assert float((mine - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


def test_peer_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    pair = small("dfn_resnet18", dfn)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = build_peer(pair).state_dict(), build_peer(pair).state_dict()
    assert torch.rand(1) == expected
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_gmacs_count_every_image_and_compute_nothing() -> None:
    ours = create_model("segnet_basic", {"width": 4}, num_classes=CLASSES)
    one = gmacs_of(ours, (1, 3, 64, 64))
    assert one > 0
    assert gmacs_of(ours, (4, 3, 64, 64)) == 4 * one


def test_missing_package_says_what_installs_it() -> None:
    with pytest.raises(MissingExtra, match=r"needs no_such_package.*pip install -e '\.\[dev\]'"):
        packages.load_package("no_such_package.inner")

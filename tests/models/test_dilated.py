from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from perpixel.backbones import BackboneConfig, VGG16Layout, create_vgg16
from perpixel.errors import InvalidValue
from perpixel.inference import Segmenter
from perpixel.labels import LabelSpace
from perpixel.losses import SegmentationLoss
from perpixel.models import create_model
from perpixel.models.dilated import ContextModule, DilatedNet, DilatedNetConfig

SMALL = {"width": 2, "fc_width": 3}


def build(classes: int = 3, **options: object) -> DilatedNet:
    torch.manual_seed(0)
    network = create_model("dilatednet", {**SMALL, **options}, num_classes=classes)
    assert isinstance(network, DilatedNet)
    return network.eval()


@pytest.mark.parametrize(
    ("context", "layers", "padding", "classes", "upsample", "parameters"),
    [
        ("large", 8, "once", 21, False, 141_149_720),  # the reference vectors' counts
        ("basic", 8, "each", 11, False, 134_313_443),
        ("basic", 7, "each", 11, False, 134_312_343),  # derived
        ("basic", 10, "each", 19, True, 134_373_043),
        ("none", 8, "each", 21, False, 134_260_544 + 4097 * 21),
    ],
)
def test_dilatednet_published_forms_have_their_parameter_counts(
    context: str, layers: int, padding: str, classes: int, upsample: bool, parameters: int
) -> None:
    options = {"context": context, "context_layers": layers, "context_padding": padding, "upsample": upsample}
    with torch.device("meta"):
        network = create_model("dilatednet", options, num_classes=classes)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(("layers", "largest", "field"), [(7, 8, 35), (8, 16, 67), (10, 64, 259)])
def test_context_module_sees_as_far_as_published(layers: int, largest: int, field: int) -> None:
    config = DilatedNetConfig(context="basic", context_layers=layers, context_padding="each", context_noise=0.0)
    assert (max(config.dilations), len(config.dilations) + 1) == (largest, layers)
    module = ContextModule(1, config)
    for layer in module.children():
        torch.nn.init.ones_(layer.weight)  # type: ignore[arg-type]
    side = field + 8
    x = torch.ones(1, 1, side, side, requires_grad=True)
    module(x)[0, 0, side // 2, side // 2].backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad[0, 0])
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [field, field]
    network = create_model("dilatednet", replace(config, width=1, fc_width=1), num_classes=1)
    assert network.receptive_field == 380 + 8 * (field - 1)


@pytest.mark.parametrize("context", ["basic", "large"])
@pytest.mark.parametrize("padding", ["once", "each"])
def test_context_module_without_noise_begins_as_the_identity(context: str, padding: str) -> None:
    config = DilatedNetConfig(context=context, context_padding=padding, context_noise=0.0)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ContextModule(3, config).double()(x), x)


def test_context_module_starts_by_hand() -> None:
    """K = 2 in the large module: the first layer halves into four maps, a later one adds the halves of its class."""
    module = ContextModule(2, DilatedNetConfig(context="large", context_noise=0.0))
    first = module.get_submodule("conv1_1").weight[:, :, 1, 1]  # type: ignore[index]
    second = module.get_submodule("conv1_2").weight[:, :, 1, 1]  # type: ignore[index]
    assert first.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.0, 0.5], [0.0, 0.5]]  # type: ignore[operator]
    assert second[0].tolist() == [0.5, 0.5, 0.0, 0.0]  # type: ignore[index, operator]
    widths = [layer.weight.shape[0] for layer in module.children()]  # type: ignore[union-attr]
    assert widths == [4, 4, 8, 16, 32, 64, 64, 2]


def test_context_module_noise_stands_everywhere_but_on_the_identity() -> None:
    torch.manual_seed(0)
    weight = ContextModule(20, DilatedNetConfig(context="basic", context_noise=0.01)).get_submodule("conv2_1").weight
    own = torch.zeros(20, 20, 3, 3, dtype=torch.bool)
    own[range(20), range(20), 1, 1] = True
    assert bool((weight[own] == 1).all())  # type: ignore[index]
    assert weight[~own].std().item() == pytest.approx(0.01, rel=0.05)  # type: ignore[index]


@pytest.mark.parametrize("cell", [(0, 0), (1, 2)])
def test_front_end_cell_sees_380_pixels_from_eight_times_its_place(
    monkeypatch: pytest.MonkeyPatch, cell: tuple[int, int]
) -> None:
    def mean_pool(x: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 2)  # a maximum would hand its gradient to one pixel of four

    monkeypatch.setattr("perpixel.backbones.vgg16.F.max_pool2d", mean_pool)
    network = build(1, context="none", width=1)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    images = torch.ones(1, 3, 388, 396, requires_grad=True)
    network(images).logits[0, 0, cell[0], cell[1]].backward()
    assert images.grad is not None
    seen = torch.nonzero(images.grad.abs().sum(dim=(0, 1)))
    assert seen.amin(0).tolist() == [8 * cell[0], 8 * cell[1]]
    assert seen.amax(0).tolist() == [8 * cell[0] + 379, 8 * cell[1] + 379]


@pytest.mark.parametrize(
    ("size", "cells"), [((373, 380), (1, 1)), ((381, 388), (2, 2)), ((428, 444), (7, 9)), ((391, 400), (3, 4))]
)
def test_dilatednet_scores_have_the_stated_size(size: tuple[int, int], cells: tuple[int, int]) -> None:
    network = build(context="basic", context_padding="each")
    with torch.no_grad():
        assert network(torch.randn(1, 3, *size)).logits.shape == (1, 3, *cells)


def test_valid_size_is_the_next_whose_last_inner_pixel_bears_a_cell() -> None:
    network = build(context="none")
    assert network.valid_size(428, 444) == (429, 445)
    assert network.valid_size(1, 430) == (373, 437)
    assert network.valid_size(*network.valid_size(700, 374)) == network.valid_size(700, 374) == (701, 381)
    with torch.no_grad():
        assert network(torch.randn(1, 3, *network.valid_size(380, 373))).logits.shape == (1, 3, 2, 1)


def test_valid_size_of_the_upsampled_form_is_the_next_that_cells_fill() -> None:
    network = build(context="none", upsample=True)
    assert network.valid_size(428, 444) == (428, 444)
    assert network.valid_size(1, 429) == (380, 436)
    assert network.valid_size(*network.valid_size(700, 373)) == network.valid_size(700, 373)


@pytest.mark.parametrize("upsample", [False, True])
def test_corners_are_aligned_unless_the_deconvolution_enlarges(upsample: bool) -> None:
    network = build(context="none", upsample=upsample)
    assert (network.align_corners, network.logit_stride) == ((False, 1) if upsample else (True, 8))


def test_upsampled_form_covers_the_image_less_its_margin() -> None:
    network = build(context="basic", context_padding="each", upsample=True)
    assert network.upsample is not None and not network.upsample.weight.requires_grad
    assert (network.logit_stride, network.margin) == (1, 186)
    network.supervise = True
    with torch.no_grad():
        output = network(torch.randn(2, 3, 383, 392))
    assert output.logits.shape == (2, 3, 11, 20)
    assert output.deep[0].shape == (2, 3, 2, 3)
    assert network.default_terms()[0].at == "target"


def test_deep_is_the_front_end_and_logits_follow_from_it() -> None:
    network = build(context="large")
    network.supervise = True
    with torch.no_grad():
        output = network(torch.randn(1, 3, 380, 388))
        assert network.context is not None
        assert torch.equal(network.context(output.deep[0]), output.logits)
    network.supervise = False
    assert network(torch.randn(1, 3, 380, 380)).deep == ()


def sampled(cells: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Values at p / 8 between cells (B, K, h, w), as the authors' test code takes them: the rule, written out."""
    rows, columns = (torch.arange(side, dtype=cells.dtype) / 8 for side in (height, width))
    for dim, at in ((2, rows), (3, columns)):
        low = at.floor().long()
        high = (low + 1).clamp(max=cells.shape[dim] - 1)  # its weight is 0 where there is none
        share = (at - low).view([-1 if d == dim else 1 for d in range(4)])
        cells = (1 - share) * cells.index_select(dim, low) + share * cells.index_select(dim, high)
    return cells


def mirrored_scores(network: DilatedNet, image: torch.Tensor, below: int) -> torch.Tensor:
    """The network's cells on an image mirrored as OpenCV's REFLECT_101 does, ``below`` pixels past the far margin."""
    mirrored = np.pad(image.numpy(), ((0, 0), (0, 0), (186, 186 + below), (186, 186 + below)), mode="reflect")
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.preprocessing.mean, network.preprocessing.std))
    with torch.no_grad():
        x = (torch.from_numpy(mirrored) / 255 - mean) / std
        return network(x.to(network.classifier.weight.dtype)).logits


def test_segmenter_mirrors_the_margin_and_samples_cells_as_the_authors_do() -> None:
    """Reflection without the edge pixel, more than once where the image is small; pixel p is cell p / 8."""
    network = build(2, context="basic", context_layers=5, context_padding="each")
    image = torch.randint(0, 256, (1, 3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    cells = mirrored_scores(network, image, below=1)
    assert cells.shape == (1, 2, 4, 6)
    logits = Segmenter(network, LabelSpace.numbered(2)).logits(image)
    torch.testing.assert_close(logits, sampled(cells, 24, 40), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits[..., ::8, ::8], cells[..., :-1, :-1], rtol=1e-4, atol=1e-6)


def test_only_the_last_cells_lack_what_lies_beyond_the_image() -> None:
    """The authors give every cell its 380 pixels: with seven more mirrored, all cells but the last are the same."""
    network = build(2, context="none").double()
    torch.nn.init.normal_(network.classifier.weight)
    image = torch.randint(0, 256, (1, 3, 17, 25), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    ours, theirs = (mirrored_scores(network, image, below=below) for below in (0, 7))
    assert ours.shape == theirs.shape == (1, 2, 3, 4)
    torch.testing.assert_close(ours[..., :-1, :-1], theirs[..., :-1, :-1], rtol=0, atol=1e-12)
    assert not torch.allclose(ours[..., -1, :], theirs[..., -1, :], rtol=0, atol=1e-12)


def test_loss_compares_cell_i_with_the_label_of_inner_pixel_8i() -> None:
    network = build(2, context="none")
    criterion = SegmentationLoss(
        network.default_terms(), num_classes=2, align_corners=network.align_corners, margin=network.margin
    )
    torch.nn.init.normal_(network.classifier.weight)
    target = torch.full((1, 389, 373), 255)
    target[0, 186, 186] = 0
    target[0, 186 + 8, 186] = 1
    target[0, 186 + 16, 186] = 1
    output = network(torch.randn(1, 3, 389, 373))
    expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([[[0], [1], [1]]]))
    assert criterion(output, target).total.item() == pytest.approx(expected.item())


def test_loss_learns_every_eighth_inner_label_of_a_window() -> None:
    network = build(3, context="none")
    criterion = SegmentationLoss(
        network.default_terms(), num_classes=3, align_corners=network.align_corners, margin=network.margin
    )
    torch.nn.init.normal_(network.classifier.weight)
    output = network(torch.randn(1, 3, 397, 389))
    target = torch.randint(0, 3, (1, 397, 389), generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.cross_entropy(output.logits, target[:, 186:-186:8, 186:-186:8])
    assert criterion(output, target).total.item() == pytest.approx(expected.item())


def test_dilatednet_exports() -> None:
    network = build(context="basic", context_padding="each", upsample=True)
    images = torch.randn(1, 3, 388, 388)
    with torch.no_grad():
        exported = torch.export.export(network, (images,)).module()
        torch.testing.assert_close(exported(images).logits, network(images).logits)


def test_dilatednet_image_within_the_margin_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"these images have 372 x 400; the smallest it takes are 373 x 373"):
        build(context="none")(torch.randn(1, 3, 372, 400))


def test_dilatednet_wrong_options_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"context of DilatedNet is one of .*got 'huge'"):
        DilatedNetConfig(context="huge")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"context_padding of DilatedNet is one of .*got 'none'"):
        DilatedNetConfig(context_padding="none")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="at least 4 layers, got 3"):
        DilatedNetConfig(context_layers=3)
    with pytest.raises(InvalidValue, match="widths must be >= 1, got 0 and 4096"):
        DilatedNetConfig(width=0)
    with pytest.raises(InvalidValue, match=r"dropout must lie in \[0, 1\), got 1"):
        DilatedNetConfig(dropout=1)
    with pytest.raises(InvalidValue, match="context_noise must be >= 0, got -1"):
        DilatedNetConfig(context_noise=-1)
    with pytest.raises(InvalidValue, match="has none: build it with the config's layout"):
        DilatedNet(create_vgg16(BackboneConfig(name="vgg16"), VGG16Layout(width=2)), 2)

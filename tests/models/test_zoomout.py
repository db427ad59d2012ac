import pytest
import torch

from perpixel.backbones import CAFFE_PREPROCESSING, BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import create_model
from perpixel.models.zoomout import RunningStandardization, ZoomOut, ZoomOutConfig, box_means
from perpixel.types import Preprocessing


def small(**options: object) -> ZoomOut:
    torch.manual_seed(0)
    chosen = {"width": 2, "fc_width": 4, "hidden": (6,), "dropout": 0.0, "num_superpixels": 12, **options}
    network = create_model("zoomout", chosen, num_classes=3)
    assert isinstance(network, ZoomOut)
    return network


def test_zoomout_feature_and_parameter_counts_are_those_derived_by_hand() -> None:
    with torch.device("meta"):
        network = create_model("zoomout", num_classes=21)
    assert isinstance(network, ZoomOut)
    assert len(network.standardize.mean) == 4224 + 4096 + 4096 == 12_416
    classifier = [*network.hidden.parameters(), *network.classifier.parameters()]
    assert sum(p.numel() for p in classifier) == 14_835_733
    assert sum(p.numel() for p in network.parameters()) == 149_096_277


@pytest.mark.parametrize(("sub_scene", "scene"), [(False, True), (True, False), (False, False)])
def test_zoomout_extents_can_be_left_out(sub_scene: bool, scene: bool) -> None:
    for regions in ("superpixels", "pixels"):
        network = small(sub_scene=sub_scene, scene=scene, regions=regions).eval()
        assert len(network.standardize.mean) == 2 * 66 + 4 * (sub_scene + scene)
        assert torch.isfinite(network(torch.randn(1, 3, 32, 40)).logits).all()


def test_zoomout_pixels_of_a_superpixel_share_its_scores() -> None:
    network = small().eval()
    image = torch.randn(2, 3, 33, 47)
    logits = network(image).logits
    regions, number = network.superpixels(image)
    assert number == 12 and logits.shape == (2, 3, 33, 47)
    for index in regions[1].unique():
        assert len(logits[1, :, regions[1] == index].unique(dim=1).T) == 1
    assert len(logits[1].flatten(1).unique(dim=1).T) > 1


@pytest.mark.parametrize("size", [(33, 47), (51, 32)])
def test_zoomout_superpixel_form_trains_with_a_batch_of_one(size: tuple[int, int]) -> None:
    network = small(width=8, fc_width=16).train()
    assert network.config.regions == "superpixels"
    images = torch.randn(1, 3, *size)
    target = (images[:, 0] > 0).long()
    target[:, :5] = 255
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=network.align_corners)
    loss = criterion(network(images), target).total
    loss.backward()
    assert torch.isfinite(loss)
    gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, grad in gradients.items() if grad is None or not torch.isfinite(grad).all()] == []
    assert gradients["classifier.weight"].abs().max() > 0  # type: ignore[union-attr]
    assert gradients["backbone.conv1_1.weight"].abs().max() > 0  # type: ignore[union-attr]
    assert 1 < network.standardize.count <= 12


def test_zoomout_superpixel_form_learns_two_halves() -> None:
    network = small(width=8, fc_width=16).train()
    images = torch.zeros(1, 3, 33, 47)
    images[..., 24:] = 1.0
    target = (images[:, 0] > 0).long()
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=network.align_corners)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    first = last = float("nan")
    for step in range(20):
        loss = criterion(network(images), target).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < 0.5 * first
    with torch.no_grad():
        assert (network.eval()(images).logits.argmax(1) == target).float().mean() > 0.9


def test_zoomout_given_regions_take_the_place_of_superpixels() -> None:
    network = small().eval()
    image = torch.randn(1, 3, 32, 32)
    halves = (torch.arange(32) // 16).expand(1, 32, 32)
    logits = network(image, halves).logits
    assert torch.equal(logits[..., :16], logits[..., :1].expand(-1, -1, -1, 16))
    assert not torch.allclose(logits[..., 0], logits[..., 16])


def test_zoomout_features_of_a_region_are_its_means_by_hand() -> None:
    """The first convolution's map has the image's size: its part is the plain mean over the region."""
    network = small().eval()
    image = torch.randn(1, 3, 32, 32)
    regions = (torch.arange(32) // 8).expand(1, 32, 32)
    maps = network._convolutions(image)
    fc7 = torch.randn(1, 4, 1, 1)
    features, filled = network._region_features(maps, fc7, regions, 5)
    assert torch.allclose(features[0, :2, 1], maps[0][0, :, :, 8:16].mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(features[0, -4:, 2], fc7.flatten())
    assert filled.tolist() == [[True, True, True, True, False]]


def test_zoomout_grid_scores_have_its_stride() -> None:
    network = small(regions="pixels", stride=4).eval()
    assert network.logit_stride == 4
    assert network(torch.randn(1, 3, 33, 47)).logits.shape == (1, 3, 9, 12)


def test_zoomout_superpixels_see_the_raw_colours_whatever_the_preprocessing() -> None:
    network = small()
    raw = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    plain = Preprocessing()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (plain.mean, plain.std))
    network.preprocessing = plain
    expected, _ = network.superpixels((raw - mean) / std)
    network.preprocessing = CAFFE_PREPROCESSING
    mean = torch.tensor(CAFFE_PREPROCESSING.mean).view(1, 3, 1, 1)
    regions, _ = network.superpixels(255 * raw.flip(1) - mean)
    assert torch.equal(regions, expected)


def test_zoomout_takes_images_of_other_channels() -> None:
    torch.manual_seed(0)
    config = {"width": 2, "fc_width": 4, "hidden": (6,), "num_superpixels": 4}
    five = BackboneConfig(name="vgg16", in_channels=5)
    network = create_model("zoomout", config, num_classes=2, backbone=five).eval()
    assert network(torch.randn(1, 5, 32, 32)).logits.shape == (1, 2, 32, 32)


def test_running_standardization_ends_at_the_statistics_of_all_it_saw() -> None:
    torch.manual_seed(0)
    layer = RunningStandardization(3, eps=0.0).train()
    batches = [3 * torch.randn(2, 3, 4, 1) + 5, torch.randn(1, 3, 7, 1)]
    for batch in batches:
        layer(batch)
    seen = torch.cat([batch.movedim(1, 0).flatten(1) for batch in batches], dim=1)
    assert torch.allclose(layer.mean, seen.mean(dim=1), atol=1e-5)
    assert torch.allclose(layer.variance, seen.var(dim=1, unbiased=False), atol=1e-4)
    assert layer.count == 15
    out = layer.eval()(batches[1])
    deviation = seen.std(dim=1, unbiased=False).view(3, 1, 1)
    assert torch.allclose(out, (batches[1] - seen.mean(dim=1).view(3, 1, 1)) / deviation, atol=1e-4)


def test_running_standardization_leaves_empty_regions_out_and_takes_one_vector() -> None:
    layer = RunningStandardization(1).train()
    x = torch.tensor([2.0, 100.0]).view(1, 1, 2, 1)
    counts = torch.tensor([True, False]).view(1, 2, 1)
    out = layer(x, counts)
    assert layer.mean == 2 and layer.count == 1 and torch.isfinite(out).all()


def test_running_standardization_untrained_changes_next_to_nothing() -> None:
    x = torch.randn(1, 2, 3, 1)
    assert torch.allclose(RunningStandardization(2).eval()(x), x, atol=1e-4)


def test_box_means_weigh_cells_by_their_part_of_the_box() -> None:
    """A map of 1 x 2 cells over 4 x 8 pixels; columns 2 to 6 hold half of each, 3 to 8 a quarter of the first."""
    x = torch.tensor([[[[1.0, 5.0]]]])
    boxes = torch.tensor([[[0, 2, 4, 6], [1, 3, 2, 8], [0, 0, 4, 8]]])
    assert torch.allclose(box_means(x, boxes, (4, 8)), torch.tensor([[[3.0, (1 + 4 * 5) / 5, 3.0]]]))


def test_zoomout_grid_form_exports() -> None:
    network = small(regions="pixels").eval()
    image = torch.randn(1, 3, 40, 36)
    exported = torch.export.export(network, (image,)).module()
    assert torch.allclose(exported(image).logits, network(image).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regions": "boxes"}, "'superpixels' or 'pixels', got 'boxes'"),
        ({"stride": 0}, "numbers must be >= 1, got stride 0"),
        ({"hidden": (8, 0)}, r"hidden \(8, 0\)"),
        ({"compactness": 0.0}, "compactness must be > 0 and sub_scene_hops >= 0, got 0.0 and 3"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
    ],
)
def test_zoomout_wrong_options_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        ZoomOutConfig(**change)  # type: ignore[arg-type]

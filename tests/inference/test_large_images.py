"""Images tile by tile: equal to the whole where the plan says so, bounded, and written whole or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from perpixel.errors import DataError, InvalidValue
from perpixel.inference import Segmenter, predict_files
from perpixel.inference import large_images as large
from perpixel.inference.geo import has_rasterio
from perpixel.inference.large_images import LargeImages, plan_raster, segment_raster, tile_cost
from perpixel.inference.procedures import WholeImage
from perpixel.inference.raster_files import open_raster
from perpixel.inference.tile_cost import TileCost
from perpixel.inference.tile_plan import plan_tiles
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.models.deeplab_v1 import DeepLabV1Config
from perpixel.models.unet import UNetConfig
from perpixel.types import Preprocessing, SegOutput

PLAIN = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2), pad_value=(0.1, 0.2, 0.3))


class Convolutions(nn.Module):
    """Two strided convolutions, their zero padding, and one at stride 4: a cell sees 3 + 2 * 2 + 2 * 4 pixels.

    With ``pooled`` the mean of the whole input is added, so that no tile sees enough.
    """

    def __init__(self, *, pooled=False, align_corners=False, multiple=1, rest=0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 1, 1)
        )
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.num_classes = 4
        self.logit_stride = 4
        self.align_corners = align_corners
        self.preprocessing = PLAIN
        self.margin = 0
        self.minimum_size = 4
        self.receptive_field = None if pooled else 15
        self.pooled = pooled
        self.multiple = multiple
        self.rest = rest

    def valid_size(self, height, width):
        return tuple(side + (self.rest - side) % self.multiple for side in (height, width))

    def forward(self, images):
        scores = self.layers(images)
        if self.pooled:
            scores = scores - 2 * scores.mean((2, 3), keepdim=True)
        return SegOutput(scores)


def segmenter_of(network):
    return Segmenter(network.double(), LabelSpace.numbered(4))


def random_weights(network):
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5, generator=generator)
    return network


def image_file(folder, height, width, *, channels=3, suffix=".npy"):
    """Wide waves with noise, so that classes have areas."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    waves = 128 + 60 * np.sin(y / 17 + c) + 60 * np.cos(x / 60 - 2 * c)
    pixels = (waves + np.random.default_rng(0).normal(0, 9, waves.shape)).clip(0, 255).astype(np.uint8)
    path = folder / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path, torch.from_numpy(pixels).permute(2, 0, 1)[None]


needs_rasterio = pytest.mark.skipif(not has_rasterio(), reason="rasterio (extra 'geo') is not installed")

COST = TileCost(fixed_bytes=0, bytes_per_pixel=1000, period=4)
COST_8 = TileCost(fixed_bytes=0, bytes_per_pixel=1000, period=8)


def in_tiles(segmenter, path, tile, *, margin=None, cost=COST):
    """Returns the classes written tile by tile, and the plan."""
    with open_raster(path) as raster:
        size = min(tile[0], raster.size[0]), min(tile[1], raster.size[1])
        plan = plan_raster(segmenter, raster, memory_bytes=10**13, cost=cost, tile=size, margin=margin)
        result = segment_raster(segmenter, raster, path.with_name("out"), plan)
    return np.load(result.mask), plan, result


@pytest.mark.parametrize(
    "shape", [{"align_corners": False}, {"align_corners": True, "multiple": 4, "rest": 1}, {"multiple": 8}]
)
@pytest.mark.parametrize("size", [(161, 190), (93, 250)])
def test_segment_raster_finite_field_equals_the_whole_image(tmp_path, shape, size):
    segmenter = segmenter_of(Convolutions(**shape))
    path, images = image_file(tmp_path, *size)
    cost = COST_8 if shape.get("multiple") == 8 else COST
    classes, plan, _ = in_tiles(segmenter, path, (64, 80), margin=None if cost is COST else 24, cost=cost)
    assert plan.exact
    assert plan.tiles >= 6
    assert plan.disagreement == 0
    assert np.array_equal(classes, segmenter.classes(images)[0].numpy())
    assert len(np.unique(classes)) > 1


@pytest.mark.parametrize(
    ("network", "tile", "margin", "height"),
    [
        (lambda: create_model("unet", UNetConfig.small(), num_classes=4), 80, 32, 45),
        (lambda: create_model("deeplab_v1", DeepLabV1Config.small(), num_classes=4), 337, 160, 33),
    ],
)
def test_segment_raster_networks_with_finite_field_equal_the_whole_image(tmp_path, network, tile, margin, height):
    segmenter = segmenter_of(random_weights(network()))
    width = tile + tile // 4
    path, images = image_file(tmp_path, height, width)
    classes, plan, _ = in_tiles(segmenter, path, (height, tile), margin=margin, cost=COST_8)
    assert plan.exact
    assert plan.tiles >= 2
    assert np.array_equal(classes, segmenter.classes(images)[0].numpy())


def test_segment_raster_margin_too_small_is_not_exact(tmp_path):
    segmenter = segmenter_of(Convolutions())
    path, images = image_file(tmp_path, 120, 130)
    classes, plan, _ = in_tiles(segmenter, path, (40, 40), margin=8)
    assert not plan.exact
    assert plan.disagreement > 0
    assert (classes != segmenter.classes(images)[0].numpy()).any()


def test_plan_raster_global_pooling_reports_the_measured_disagreement(tmp_path):
    segmenter = segmenter_of(Convolutions(pooled=True))
    path, images = image_file(tmp_path, 150, 160)
    classes, plan, _ = in_tiles(segmenter, path, (64, 64))
    assert not plan.exact
    assert 0 < plan.disagreement < 1
    assert "measured on this image" in plan.text()
    middle = plan.rows[len(plan.rows) // 2], plan.columns[len(plan.columns) // 2]
    kept = tuple(slice(span.keep_start, span.keep_stop) for span in middle)
    wrong = classes[kept] != segmenter.classes(images)[0].numpy()[kept]
    assert plan.disagreement == wrong.mean()


def test_plan_raster_whole_too_large_compares_two_tilings(tmp_path):
    segmenter = segmenter_of(Convolutions(pooled=True))
    cost = TileCost(fixed_bytes=0, bytes_per_pixel=1000, period=4)
    path, _ = image_file(tmp_path, 200, 200)
    with open_raster(path) as raster:
        plan = plan_raster(segmenter, raster, memory_bytes=12_000_000, cost=cost)
    assert plan.tiles > 1
    assert plan.disagreement > 0


def test_plan_raster_stated_field_that_is_too_small_is_found_out(tmp_path):
    network = Convolutions(pooled=True)
    network.receptive_field = 15
    path, _ = image_file(tmp_path, 150, 160)
    _, plan, _ = in_tiles(segmenter_of(network), path, (64, 64))
    assert not plan.exact
    assert "depend on the tile's size" in plan.reason


def test_segment_raster_memory_does_not_grow_with_the_image(tmp_path):
    """The plan's estimate of tiles of one size is the same for a larger image."""
    segmenter = segmenter_of(Convolutions())
    cost = TileCost(fixed_bytes=0, bytes_per_pixel=1000, period=4)
    plans = [plan_tiles(segmenter.network, (side, side), memory_bytes=20_000_000, cost=cost) for side in (1000, 10_000)]
    assert plans[0].estimated_bytes == plans[1].estimated_bytes <= 20_000_000
    assert plans[1].tiles > 90 * plans[0].tiles / 1.5


def test_segment_raster_counts_and_overlay_describe_the_map(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "_PREVIEW_SIDE", 50)
    segmenter = segmenter_of(Convolutions())
    path, _ = image_file(tmp_path, 90, 120)
    classes, _, result = in_tiles(segmenter, path, (64, 64))
    assert result.counts == tuple(np.bincount(classes.reshape(-1), minlength=4))
    assert result.overlay.size == (40, 30)  # every third pixel
    assert result.missing == 0


def test_tile_cost_finds_period_and_grid():
    cost = tile_cost(segmenter_of(Convolutions()), memory_bytes=1)
    assert cost.period == 4
    assert cost.on_grid
    assert cost.bytes_of(10**6) > 10**6 * 8
    other = Convolutions(multiple=24)
    other.logit_stride = 8
    cost = tile_cost(segmenter_of(other), memory_bytes=1)
    assert cost.period == 24
    assert not cost.on_grid


def test_tile_cost_counts_the_copies_of_a_tiles_pixels(monkeypatch):
    measured = TileCost(fixed_bytes=7, bytes_per_pixel=5, period=4)
    monkeypatch.setattr(large, "measure_tile_cost", lambda *_args, **_options: measured)
    cost = tile_cost(segmenter_of(Convolutions()), memory_bytes=1)
    assert cost == TileCost(fixed_bytes=7, bytes_per_pixel=5 + 4 * 3, period=4)


@pytest.mark.parametrize(("stride", "period"), [(3, 3), (5, 5), (6, 6), (4, 4)])
def test_tile_cost_finds_periods_of_any_stride(stride, period):
    network = Convolutions()
    network.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride, 1), nn.Conv2d(8, 4, 3, 1, 1))
    network.logit_stride = stride
    cost = tile_cost(segmenter_of(network), memory_bytes=1)
    assert cost.period == period
    assert cost.on_grid


def test_segment_raster_stride_of_three_equals_the_whole_image(tmp_path):
    network = Convolutions()
    network.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 3, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 1, 1))
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    network.logit_stride, network.receptive_field = 3, 9
    segmenter = segmenter_of(network)
    path, images = image_file(tmp_path, 161, 190)
    cost = tile_cost(segmenter, memory_bytes=1)
    classes, plan, _ = in_tiles(segmenter, path, (80, 90), cost=cost)
    assert plan.exact
    assert plan.tiles > 4
    assert np.array_equal(classes, segmenter.classes(images)[0].numpy())


def test_segment_raster_without_margin_runs_and_is_not_exact(tmp_path):
    segmenter = segmenter_of(Convolutions())
    path, images = image_file(tmp_path, 93, 120)
    classes, plan, _ = in_tiles(segmenter, path, (32, 36), margin=0)
    assert plan.tiles > 4
    assert not plan.exact
    assert (classes == segmenter.classes(images)[0].numpy()).mean() > 0.5


def test_plan_raster_tiles_that_are_padded_to_the_least_size_are_not_exact(tmp_path):
    network = Convolutions()
    network.minimum_size = 70
    network.valid_size = lambda height, width: (max(height, 70), max(width, 70))
    segmenter = segmenter_of(network)
    path, images = image_file(tmp_path, 139, 60)
    _, plan, _ = in_tiles(segmenter, path, (70, 60))  # the last tile begins at 72 and has 67 rows
    assert not plan.exact
    assert "tiles of 67 pixels are padded to the 70 that Convolutions takes at least" in plan.text()
    classes, plan, _ = in_tiles(segmenter, path, (74, 60))
    assert plan.exact
    assert np.array_equal(classes, segmenter.classes(images)[0].numpy())


def test_predict_files_memory_cuts_large_images_and_records_the_plan(tmp_path):
    segmenter = segmenter_of(Convolutions())
    path, images = image_file(tmp_path, 300, 320, suffix=".png")
    plans, tiles = [], []
    taken = LargeImages(
        segmenter,
        memory_bytes=8_000_000,
        on_plan=lambda file, plan: plans.append((file, plan)),
        on_tile=lambda file, done, total: tiles.append((done, total)),
    )
    taken._cost = TileCost(fixed_bytes=0, bytes_per_pixel=300, period=4)
    report = predict_files(segmenter, [path], tmp_path / "out", large=taken)
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())
    assert report.pixels == 300 * 320
    assert line["mask"] == "x.png"
    assert line["plan"] == plans[0][1].text()
    assert "exact" in line["plan"]
    assert tiles[-1] == (plans[0][1].tiles, plans[0][1].tiles)
    assert len(tiles) > 3
    mask = np.asarray(Image.open(tmp_path / "out" / "x.png"))
    assert np.array_equal(mask, segmenter.classes(images)[0].numpy())
    assert (tmp_path / "out" / "overlays" / "x.jpg").exists()


def test_predict_files_small_array_is_one_piece_and_stays_an_array(tmp_path):
    segmenter = segmenter_of(Convolutions())
    path, images = image_file(tmp_path, 40, 50)
    predict_files(segmenter, [path], tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out" / "x.npy"), segmenter.classes(images)[0].numpy())
    with pytest.raises(DataError, match="would be replaced by its class map"):
        predict_files(segmenter, [path], tmp_path)


def test_large_images_ordinary_pictures_are_left_alone(tmp_path):
    path, _ = image_file(tmp_path, 40, 50, suffix=".png")
    segmenter = segmenter_of(Convolutions())
    assert LargeImages(segmenter).segment(path, tmp_path / "out") is None
    with pytest.raises(DataError, match="more than the limit of 100"):
        LargeImages(segmenter, max_pixels=100).segment(path, tmp_path / "out")


def test_large_images_too_little_memory_says_the_least_that_works(tmp_path):
    path, _ = image_file(tmp_path, 300, 320)
    taken = LargeImages(segmenter_of(Convolutions()), memory_bytes=50_000)
    taken._cost = TileCost(fixed_bytes=0, bytes_per_pixel=300, period=4)
    with pytest.raises(InvalidValue, match="too little for one window"):
        taken.segment(path, tmp_path / "out")
    png, _ = image_file(tmp_path, 300, 320, suffix=".png")
    taken._memory_bytes = 250_000
    with pytest.raises(InvalidValue, match="its decoded pixels and their class map take"):
        taken.segment(png, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".npy", ".png", pytest.param(".tif", marks=needs_rasterio)])
@pytest.mark.parametrize("fixed", [5e6, 1e8, 3e8])
def test_large_images_least_memory_counts_what_the_file_takes(tmp_path, suffix, fixed):
    path, _ = image_file(tmp_path, 300, 320, suffix=suffix)
    taken = LargeImages(segmenter_of(Convolutions()), memory_bytes=1000)
    taken._cost = TileCost(fixed_bytes=fixed, bytes_per_pixel=3000, period=4)
    with pytest.raises(InvalidValue, match="--memory") as raised:
        taken.segment(path, tmp_path / "out")
    least = int(str(raised.value).split("--memory ")[1].split("MB")[0])
    taken._memory_bytes = (least - 1) * 10**6
    with pytest.raises(InvalidValue, match=f"--memory {least}MB or more"):
        taken.segment(path, tmp_path / "out")
    taken._memory_bytes = least * 10**6
    assert taken.segment(path, tmp_path / "out").plan.tiles > 1


@needs_rasterio
def test_large_images_tiff_of_other_bands_is_read_by_windows(tmp_path):
    network = Convolutions()
    network.layers[0] = nn.Conv2d(4, 8, 3, 2, 1)
    network.preprocessing = Preprocessing(mean=(0.5,) * 4, std=(0.2,) * 4)
    path, images = image_file(tmp_path, 60, 70, channels=4, suffix=".tif")
    segmenter = segmenter_of(network)
    result = LargeImages(segmenter).segment(path, tmp_path / "out")
    assert result.missing == 0
    assert result.counts == tuple(torch.bincount(segmenter.classes(images).flatten().int(), minlength=4).tolist())


def test_large_images_choices_that_need_the_whole_image_are_refused(tmp_path):
    segmenter = Segmenter(Convolutions(), LabelSpace.numbered(4), procedure=WholeImage())
    with pytest.raises(InvalidValue, match="the procedure WholeImage runs on whole images"):
        LargeImages(segmenter, memory_bytes=10**9)
    with pytest.raises(InvalidValue, match="max_pixels is a number"):
        LargeImages(segmenter, max_pixels=0)
    path, _ = image_file(tmp_path, 40, 50)
    with pytest.raises(DataError, match="is read by windows alone"):
        LargeImages(segmenter).segment(path, tmp_path / "out")


def test_plan_raster_channels_that_do_not_fit_are_refused(tmp_path):
    path, _ = image_file(tmp_path, 40, 50, channels=5)
    cost = TileCost(fixed_bytes=0, bytes_per_pixel=1, period=4)
    with open_raster(path) as raster, pytest.raises(DataError, match=r"5 channels, and the network takes 3.*come last"):
        plan_raster(segmenter_of(Convolutions()), raster, memory_bytes=10**9, cost=cost)


def test_segment_raster_grey_arrays_serve_colour_networks(tmp_path):
    segmenter = segmenter_of(Convolutions())
    path, images = image_file(tmp_path, 90, 100, channels=1)
    classes, _, _ = in_tiles(segmenter, path, (64, 64))
    assert np.array_equal(classes, segmenter.classes(images.expand(1, 3, -1, -1))[0].numpy())


@needs_rasterio
def test_predict_files_georeferenced_tiff_keeps_its_place_in_tiles(tmp_path):
    from rasterio import open as open_tiff
    from rasterio.transform import Affine

    segmenter = segmenter_of(Convolutions())
    _, images = image_file(tmp_path, 150, 160)
    place = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500, 0, -2, 700)}
    profile = {"driver": "GTiff", "count": 3, "height": 150, "width": 160, "dtype": "uint8", "nodata": 7}
    with open_tiff(tmp_path / "x.tif", "w", **profile, **place) as dataset:
        dataset.write(images[0].numpy())
        dataset.write(np.full((3, 9, 9), 7, dtype=np.uint8), window=((0, 9), (0, 9)))
        pixels = images.clone()
        pixels[:, :, :9, :9] = 7
    taken = LargeImages(segmenter, memory_bytes=6_000_000)
    taken._cost = COST
    predict_files(segmenter, [tmp_path / "x.tif"], tmp_path / "out", large=taken)
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())
    wanted = segmenter.classes(pixels)[0].numpy()
    wanted[:9, :9] = 255
    with open_tiff(tmp_path / "out" / "x.tif") as written:
        assert np.array_equal(written.read(1), wanted)
        assert written.crs.to_epsg() == 32633
        assert written.transform == place["transform"]
        assert written.nodata == 255
    assert line["missing_pixels"] >= 81
    assert "tiles of" in line["plan"]

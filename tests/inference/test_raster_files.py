"""Images read by windows, class maps written by windows."""

from __future__ import annotations

import pickle
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from perpixel.errors import DataError, InvalidValue, MissingExtra, RunError
from perpixel.inference import raster_files
from perpixel.inference.geo import GDAL_BYTES, has_rasterio, holds_more_than_a_picture, rasterio_module
from perpixel.inference.raster_files import class_map_suffix, open_raster, writing_class_map
from perpixel.labels import LabelSpace

needs_rasterio = pytest.mark.skipif(not has_rasterio(), reason="rasterio (extra 'geo') is not installed")
LABELS = LabelSpace.numbered(4)


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def check_windows(path, image, **options):
    """The windows of a file are those of (H, W, C)."""
    with open_raster(path, **options) as raster:
        assert raster.size == image.shape[:2]
        assert raster.channels == image.shape[2]
        assert raster.dtype == image.dtype
        for top, left, bottom, right in ((0, 0, *image.shape[:2]), (3, 5, 9, 6)):
            window = raster.read((top, left, bottom, right))
            assert np.array_equal(window, image[top:bottom, left:right].transpose(2, 0, 1))
            assert window.flags.c_contiguous
            assert raster.missing((top, left, bottom, right)) is None
        with pytest.raises(InvalidValue, match="does not lie within the image"):
            raster.read((0, 0, image.shape[0] + 1, 2))
        with pytest.raises(InvalidValue, match="rows 4 to 4"):
            raster.read((4, 0, 4, 2))
        return raster.held_bytes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_open_raster_npy_gives_windows_from_disk(tmp_path, dtype):
    image = pixels(20, 30, 3, dtype=dtype)
    np.save(tmp_path / "x.npy", image)
    assert check_windows(tmp_path / "x.npy", image) == 0


def test_open_raster_npy_of_two_sides_is_grey(tmp_path):
    image = pixels(20, 30)
    np.save(tmp_path / "x.npy", np.asfortranarray(image))
    assert check_windows(tmp_path / "x.npy", image[..., None]) == 0


def test_open_raster_png_is_decoded_once(tmp_path):
    image = pixels(20, 30, 3)
    Image.fromarray(image).save(tmp_path / "x.png")
    assert check_windows(tmp_path / "x.png", image) == 4 * 20 * 30


def test_open_raster_tiff_without_rasterio_is_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(raster_files, "has_rasterio", lambda: False)
    image = pixels(20, 30, 3)
    Image.fromarray(image).save(tmp_path / "x.tif")
    assert check_windows(tmp_path / "x.tif", image) == 4 * 20 * 30
    with (
        pytest.raises(DataError, match=r"600 pixels, more than the limit of 10.*perpixel\[geo\]"),
        open_raster(tmp_path / "x.tif", max_pixels=10),
    ):
        pass


def test_open_raster_larger_than_max_pixels_is_refused(tmp_path):
    Image.fromarray(pixels(20, 30, 3)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="more than the limit of 599"), open_raster(tmp_path / "x.png", max_pixels=599):
        pass


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3), dtype=np.float32), "this file holds float32"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "without empty sides"),
        (np.zeros(7, dtype=np.uint8), r"got shape \(7,\)"),
    ],
)
def test_open_raster_unusable_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message), open_raster(tmp_path / "x.npy"):
        pass


def test_open_raster_broken_files_are_refused(tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((97, 5), dtype=np.uint8))
    np.savez(tmp_path / "several.npz", np.zeros(3))
    good = (tmp_path / "good.npy").read_bytes()
    broken = {
        "text": b"no array",
        "nothing": b"",
        "zip": (tmp_path / "several.npz").read_bytes(),
        "damaged zip": b"PK\x03\x04 and more",
        "pickle": pickle.dumps(np.zeros(3)),
        "cut short": good[:-1],
        "header cut short": good[:30],
        "header of brackets": good[:10] + b"[" * 118 + good[128:],
        "negative side": good.replace(b"(97, 5), } ", b"(-97, 5), }"),
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.npy"
        path.write_bytes(content)
        said = f"{name}.npy: cannot be read as a NumPy array: .*; write it with numpy.save"
        with pytest.raises(DataError, match=said), open_raster(path):
            pass
    with pytest.raises(DataError, match="there is no such file"), open_raster(tmp_path / "y.tif"):
        pass


def test_open_raster_npy_of_another_byte_order_gives_native_pixels(tmp_path):
    image = pixels(5, 6, 3, dtype=np.uint16)
    np.save(tmp_path / "x.npy", image.astype(">u2"))
    with open_raster(tmp_path / "x.npy") as raster:
        found = raster.read((0, 0, 5, 6))
    assert found.dtype == np.uint16
    assert found.dtype.isnative
    assert np.array_equal(found.transpose(1, 2, 0), image)


def write_in_windows(path, raster, classes, labels=LABELS):
    height, width = classes.shape
    with writing_class_map(path, raster, labels) as file:
        for top in range(0, height, 7):
            for left in range(0, width, 11):
                window = (top, left, min(top + 7, height), min(left + 11, width))
                file.write(window, classes[window[0] : window[2], window[1] : window[3]])


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_writing_class_map_keeps_stored_ids(tmp_path, suffix):
    np.save(tmp_path / "x.npy", pixels(20, 30))
    classes = pixels(20, 30, seed=1) % 4
    labels = LabelSpace.load("cityscapes")
    with open_raster(tmp_path / "x.npy") as raster:
        write_in_windows(tmp_path / f"out{suffix}", raster, classes, labels)
    read = np.load(tmp_path / "out.npy") if suffix == ".npy" else np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(read, labels.decode(classes))


def test_writing_class_map_that_breaks_off_leaves_nothing(tmp_path):
    np.save(tmp_path / "x.npy", pixels(20, 30))
    with open_raster(tmp_path / "x.npy") as raster:
        with pytest.raises(KeyError), writing_class_map(tmp_path / "out.npy", raster, LABELS):
            raise KeyError
        with (
            pytest.raises(InvalidValue, match=r"\.npy, \.tif or \.png"),
            writing_class_map(tmp_path / "out.jpg", raster, LABELS),
        ):
            pass
        (tmp_path / "file").touch()
        with (
            pytest.raises(RunError, match="cannot be written"),
            writing_class_map(tmp_path / "file" / "out.npy", raster, LABELS),
        ):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.npy"]


def test_rasterio_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingExtra, match=r"pip install 'perpixel\[geo\]'"):
        rasterio_module()


def write_tiff(path, bands, **options):
    """Writes (C, H, W) as GeoTIFF."""
    import rasterio

    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, dtype=bands.dtype.name, **options) as dataset:
            dataset.write(bands)


@needs_rasterio
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (5, np.uint16)])
def test_open_raster_tiff_gives_windows_from_disk(tmp_path, channels, dtype):
    image = pixels(20, 30, channels, dtype=dtype)
    write_tiff(tmp_path / "x.tif", image.transpose(2, 0, 1))
    assert not holds_more_than_a_picture(tmp_path / "x.tif", 3)
    assert check_windows(tmp_path / "x.tif", image) == GDAL_BYTES


@needs_rasterio
def test_writing_class_map_tiff_keeps_place_and_missing_pixels(tmp_path):
    from rasterio import open as open_tiff
    from rasterio.transform import from_origin

    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 0.5, 0.5)}
    bands = pixels(3, 20, 30) | 1
    bands[:, :4, :6] = 0
    write_tiff(tmp_path / "x.tif", bands, nodata=0, **place)
    assert holds_more_than_a_picture(tmp_path / "x.tif", 3)
    classes = pixels(20, 30, seed=1) % 4
    with open_raster(tmp_path / "x.tif") as raster:
        assert class_map_suffix(raster) == ".tif"
        missing = raster.missing((0, 0, 20, 30))
        assert missing.sum() == 24
        assert missing[:4, :6].all()
        assert raster.missing((10, 10, 20, 30)) is None
        write_in_windows(tmp_path / "out.tif", raster, classes)
    with open_tiff(tmp_path / "out.tif") as written:
        assert np.array_equal(written.read(1), classes)
        assert written.crs.to_epsg() == 32633
        assert written.transform == place["transform"]
        assert written.nodata == 255
        assert written.profile["compress"] == "deflate"
        assert written.profile["tiled"]
        assert written.colormap(1)[2][:3] == LABELS.colors[2]


@needs_rasterio
def test_open_raster_tiff_alpha_is_no_channel_but_missing_pixels(tmp_path):
    bands = pixels(4, 20, 30)
    bands[3] = 255
    bands[3, 5, 6] = 0
    write_tiff(tmp_path / "x.tif", bands, photometric="RGB", alpha="yes")
    with open_raster(tmp_path / "x.tif") as raster:
        assert raster.channels == 3
        assert np.argwhere(raster.missing((0, 0, 20, 30))).tolist() == [[5, 6]]


@needs_rasterio
def test_open_raster_tiff_of_fractions_is_refused(tmp_path):
    write_tiff(tmp_path / "x.tif", np.zeros((1, 20, 30), dtype=np.float32))
    with pytest.raises(DataError, match="this file holds float32"), open_raster(tmp_path / "x.tif"):
        pass
    (tmp_path / "y.tif").write_bytes(b"II*\x00nothing")
    assert not holds_more_than_a_picture(tmp_path / "y.tif", 3)
    with pytest.raises(DataError, match="cannot be read as TIFF"), open_raster(tmp_path / "y.tif"):
        pass


@needs_rasterio
def test_open_raster_tiff_alpha_is_a_channel_where_that_many_are_wanted(tmp_path):
    bands = pixels(4, 20, 30)
    write_tiff(tmp_path / "x.tif", bands)  # GDAL takes the fourth band for alpha unless told
    with open_raster(tmp_path / "x.tif", channels=3) as raster:
        assert raster.channels == 3
    with open_raster(tmp_path / "x.tif", channels=4) as raster:
        assert np.array_equal(raster.read((0, 0, 20, 30)), bands)
        assert raster.missing((0, 0, 20, 30)) is None
        assert not raster.place["has_missing"]
    assert holds_more_than_a_picture(tmp_path / "x.tif", 4)
    assert not holds_more_than_a_picture(tmp_path / "x.tif", 3)


@needs_rasterio
def test_open_raster_tiff_of_several_pages_is_refused(tmp_path):
    page = Image.fromarray(pixels(20, 30, 3))
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match="holds 3 pages; write each into its own"), open_raster(tmp_path / "x.tif"):
        pass


@needs_rasterio
def test_writing_class_map_tiff_keeps_ground_control_points(tmp_path):
    from rasterio import open as open_tiff
    from rasterio.control import GroundControlPoint

    write_tiff(tmp_path / "x.tif", pixels(3, 20, 30))
    assert not holds_more_than_a_picture(tmp_path / "x.tif", 3)
    points = [GroundControlPoint(row, column, 10 + column, 50 - row) for row, column in ((0, 0), (0, 29), (19, 0))]
    with open_tiff(tmp_path / "x.tif", "r+") as dataset:
        dataset.gcps = (points, "EPSG:4326")
    assert holds_more_than_a_picture(tmp_path / "x.tif", 3)
    with open_raster(tmp_path / "x.tif") as raster:
        write_in_windows(tmp_path / "out.tif", raster, pixels(20, 30, seed=1) % 4)
    with open_tiff(tmp_path / "out.tif") as written:
        kept, system = written.gcps
    assert system.to_epsg() == 4326
    assert [(point.row, point.col, point.x, point.y) for point in kept] == [
        (point.row, point.col, point.x, point.y) for point in points
    ]


@needs_rasterio
@pytest.mark.parametrize("options", [{"transform": (2.0, 0.0, 10.0, 0.0, -2.0, 20.0)}, {"nodata": 0}])
def test_tiff_with_a_place_or_missing_pixels_is_more_than_a_picture(tmp_path, options):
    from rasterio import Affine

    if "transform" in options:
        options = {"transform": Affine(*options["transform"])}
    write_tiff(tmp_path / "x.tif", pixels(3, 20, 30), **options)
    assert holds_more_than_a_picture(tmp_path / "x.tif", 3)

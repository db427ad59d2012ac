"""Reading of image and mask files: every mode and format that is taken, and every file that is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from perpixel.data.image_files import (
    ImageHead,
    image_head,
    image_size,
    mask_is_turned,
    read_color_mask,
    read_image,
    read_mask,
    to_channels,
)
from perpixel.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (4, 6, 3)).astype(np.uint16)


def png(height: int, width: int, depth: int, color_type: int, rows: bytes) -> bytes:
    """Writes a PNG by the specification, for what Pillow cannot write; ``rows`` holds a filter byte per row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(pixels: np.ndarray, color_type: int) -> bytes:
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    return png(pixels.shape[0], pixels.shape[1], 16, color_type, rows)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def oriented(path: Path, pixels: np.ndarray, orientation: int, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, pixels, exif=exif, **options)


def as_hwc(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp"])
def test_read_image_lossless_formats_give_the_pixels(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    image = read_image(save(tmp_path / name, RGB, **options))
    assert image.dtype == torch.uint8
    assert image.permute(1, 2, 0).is_contiguous()
    np.testing.assert_array_equal(as_hwc(image), RGB)


def test_read_image_jpeg_under_a_png_name_is_read_by_content(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((8, 8, 3), 77, np.uint8), format="JPEG")
    assert image_head(path).format == "JPEG"
    assert read_image(path).float().mean() == pytest.approx(77, abs=1)


def test_read_image_grey_has_one_channel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", GREY))[0].numpy(), GREY)


def test_read_image_one_bit_spans_the_full_range(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", np.array([[True, False]])))
    assert image.tolist() == [[[255, 0]]]


def test_read_image_alpha_is_dropped(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, GREY])
    np.testing.assert_array_equal(as_hwc(read_image(save(tmp_path / "a.png", rgba))), RGB)
    path = tmp_path / "la.png"
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(RGB[..., 0].copy())]).save(path)
    np.testing.assert_array_equal(read_image(path)[0].numpy(), GREY)


def test_read_image_palette_becomes_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png")
    assert as_hwc(read_image(tmp_path / "a.png")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_read_image_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    assert as_hwc(read_image(tmp_path / "a.tif"))[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_read_image_sixteen_bit_grey_is_int32(tmp_path: Path, name: str) -> None:
    image = read_image(save(tmp_path / name, DEEP[..., 0].copy()))
    assert image.dtype == torch.int32
    np.testing.assert_array_equal(image[0].numpy(), DEEP[..., 0])


def test_read_image_sixteen_bit_rgb_png_keeps_both_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(deep_png(DEEP, 2))
    image = read_image(path)
    assert image.dtype == torch.int32
    np.testing.assert_array_equal(as_hwc(image), DEEP)
    path.write_bytes(deep_png(np.dstack([DEEP, DEEP[..., 0]]), 6))
    np.testing.assert_array_equal(as_hwc(read_image(path)), DEEP)


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_read_image_sixteen_bit_rgb_tiff_keeps_both_bytes(tmp_path: Path, compression: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="writes 16-bit colour TIFF")
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), DEEP[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    np.testing.assert_array_equal(as_hwc(read_image(path)), DEEP)


def test_read_image_sixteen_bit_grey_with_alpha_raises(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(deep_png(DEEP[..., :2], 4))
    with pytest.raises(DataError, match=r"a\.png: 16-bit pixels packed as LA;16B cannot be read"):
        read_image(tmp_path / "a.png")


def test_read_image_float_raises(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"a\.tif: pixels are fractions"):
        read_image(tmp_path / "a.tif")


def test_read_image_one_pixel_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8))
    assert read_image(path).flatten().tolist() == [1, 2, 3]
    assert image_size(path) == (1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_read_image_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    path = oriented(tmp_path / name, RGB, orientation, **options)
    expected = np.asarray(ImageOps.exif_transpose(_with_orientation(RGB, orientation)))
    np.testing.assert_array_equal(as_hwc(read_image(path)), expected)
    assert image_size(path) == expected.shape[:2]
    assert image_head(path).stored_size == (4, 6)
    mask = read_mask(oriented(tmp_path / f"mask-{name}", GREY, orientation, **options))
    np.testing.assert_array_equal(mask, np.asarray(ImageOps.exif_transpose(_with_orientation(GREY, orientation))))


def _with_orientation(pixels: np.ndarray, orientation: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return image


def test_image_head_damaged_exif_is_upright(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", RGB, exif=b"Exif\x00\x00garbage")
    assert image_head(path).orientation == 1
    assert image_head(oriented(tmp_path / "b.jpg", RGB, 9)).orientation == 1


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_read_mask_without_exif_is_turned_like_its_image(tmp_path: Path, orientation: int) -> None:
    image = oriented(tmp_path / "a.jpg", RGB, orientation)
    mask = save(tmp_path / "a.png", GREY)
    expected = np.asarray(ImageOps.exif_transpose(_with_orientation(GREY, orientation)))
    np.testing.assert_array_equal(read_mask(mask, like=image_head(image)), expected)
    colors = save(tmp_path / "c.png", RGB)
    expected = np.asarray(ImageOps.exif_transpose(_with_orientation(RGB, orientation)))
    np.testing.assert_array_equal(read_color_mask(colors, like=image_head(image)), expected)


def test_read_mask_that_fits_the_upright_image_stays(tmp_path: Path) -> None:
    image = image_head(oriented(tmp_path / "a.jpg", RGB, 6))
    mask = save(tmp_path / "a.png", np.ascontiguousarray(GREY.T))
    np.testing.assert_array_equal(read_mask(mask, like=image), GREY.T)
    assert not mask_is_turned(image_head(mask), image)


def test_mask_is_turned_own_tag_wins() -> None:
    image = ImageHead(size=(6, 4), orientation=6, format="JPEG")
    assert mask_is_turned(ImageHead(size=(4, 6), orientation=1, format="PNG"), image)
    assert not mask_is_turned(ImageHead(size=(6, 4), orientation=6, format="PNG"), image)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"])
def test_read_image_cut_short_raises_naming_the_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name}: cannot be read as an image, damaged or cut short"):
        read_image(path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"]))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_read_image_damaged_bytes_give_pixels_or_data_error(tmp_path: Path, data: st.DataObject, name: str) -> None:
    path = save(tmp_path / name, RGB)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (read_image, read_mask, read_color_mask):
        try:
            assert read(path, max_pixels=10_000).shape[-1] >= 1
        except DataError as error:
            assert name in str(error)


def test_read_image_huge_header_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(30000, 30000, 8, 2, b""))
    with pytest.raises(DataError, match=r"30000 x 30000 = 900000000 pixels, more than the limit.*raise max_pixels"):
        read_image(path)
    with pytest.raises(DataError, match="more than the limit"):
        image_size(path)


def test_read_image_limit_can_be_set(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    with pytest.raises(DataError, match="limit of 23"):
        read_image(path, max_pixels=23)
    assert read_image(path, max_pixels=24).shape == (3, 4, 6)


def test_read_image_webp_beyond_pillows_limit_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.webp", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match=r"a\.webp: .*Save the picture as PNG or TIFF and raise max_pixels"):
        read_image(path)
    assert read_image(save(tmp_path / "a.png", RGB)).shape == (3, 4, 6)


def test_read_image_missing_empty_or_foreign_file_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"text\.png: not a JPEG, PNG, WEBP, TIFF or BMP file"):
        read_image(tmp_path / "text.png")
    Image.fromarray(GREY).save(tmp_path / "a.gif")
    with pytest.raises(DataError, match=r"a\.gif: not a JPEG"):
        read_image(tmp_path / "a.gif")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_read_image_several_pages_raises(tmp_path: Path) -> None:
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match=r"a\.tif: the TIFF file holds 3 pages"):
        read_image(tmp_path / "a.tif")


def test_read_mask_palette_keeps_the_indices(tmp_path: Path) -> None:
    ids = np.array([[0, 7, 255]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, ids)


def test_read_mask_one_bit_gives_zero_and_one(tmp_path: Path) -> None:
    assert read_mask(save(tmp_path / "a.png", np.array([[True, False]]))).tolist() == [[1, 0]]


@pytest.mark.parametrize(("depth", "row", "ids"), [(2, 0b00_01_10_11, [0, 1, 2, 3]), (4, 0x3B, [3, 11])])
def test_read_mask_short_grey_gives_the_stored_ids(tmp_path: Path, depth: int, row: int, ids: list[int]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, len(ids), depth, 0, bytes([0, row])))
    assert read_mask(path).tolist() == [ids]
    assert read_image(path).flatten().tolist() == [i * 255 // (2**depth - 1) for i in ids]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_read_mask_sixteen_bit_keeps_large_ids(tmp_path: Path, name: str) -> None:
    ids = np.array([[0, 300, 65535]], np.uint16)
    mask = read_mask(save(tmp_path / name, ids))
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, ids)


def test_read_mask_thirty_two_bit_ids_must_fit(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.tif", np.array([[1, 40000]], np.int32))), [[1, 40000]])
    with pytest.raises(DataError, match=r"b\.tif: ids from -1 to 70000 are outside"):
        read_mask(save(tmp_path / "b.tif", np.array([[-1, 70000]], np.int32)))


def test_read_mask_equal_channels_are_grey(tmp_path: Path) -> None:
    grey = np.repeat(GREY[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", grey)), GREY)
    rgba = np.dstack([grey, RGB[..., 0]])
    np.testing.assert_array_equal(read_mask(save(tmp_path / "b.png", rgba)), GREY)
    path = tmp_path / "la.png"
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(RGB[..., 0].copy())]).save(path)
    np.testing.assert_array_equal(read_mask(path), GREY)


def test_read_mask_colours_raise_listing_them(tmp_path: Path) -> None:
    colors = np.array([[[128, 0, 0], [128, 0, 0], [0, 64, 5]]], np.uint8)
    message = r"a\.png.*\(128, 0, 0\) on 2 pixels, \(0, 64, 5\) on 1 pixels\. .*data\.mask_encoding=colors"
    with pytest.raises(DataError, match=message):
        read_mask(save(tmp_path / "a.png", colors))
    with pytest.raises(DataError, match=r"and 16 more"):
        read_mask(save(tmp_path / "b.png", RGB))


def test_read_mask_jpeg_fraction_or_deep_colour_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: a JPEG file cannot be a mask"):
        read_mask(save(tmp_path / "a.jpg", GREY))
    with pytest.raises(DataError, match=r"a\.jpg: a JPEG file cannot be a mask"):
        read_color_mask(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="one whole number per pixel, this file has mode F"):
        read_mask(save(tmp_path / "a.tif", np.zeros((2, 2), np.float32)))
    (tmp_path / "a.png").write_bytes(deep_png(DEEP, 2))
    with pytest.raises(DataError, match="one whole number per pixel"):
        read_mask(tmp_path / "a.png")
    with pytest.raises(DataError, match="colours of masks have 8 bits"):
        read_color_mask(tmp_path / "a.png")


def test_read_color_mask_gives_rgb_of_any_mode(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_color_mask(save(tmp_path / "a.png", RGB)), RGB)
    np.testing.assert_array_equal(read_color_mask(save(tmp_path / "b.png", np.dstack([RGB, GREY]))), RGB)
    np.testing.assert_array_equal(read_color_mask(save(tmp_path / "c.png", GREY)), np.dstack([GREY] * 3))


def test_to_channels_grey_is_repeated() -> None:
    grey = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
    assert torch.equal(to_channels(grey, 3, source="a"), torch.cat([grey] * 3))
    assert to_channels(grey, 1, source="a") is grey


def test_to_channels_rgb_becomes_luminance_like_pillow() -> None:
    image = torch.from_numpy(RGB).permute(2, 0, 1)
    expected = np.asarray(Image.fromarray(RGB).convert("L"))
    np.testing.assert_array_equal(to_channels(image, 1, source="a")[0].numpy(), expected)


def test_to_channels_white_of_sixteen_bit_stays_white() -> None:
    white = torch.full((3, 1, 1), 65535, dtype=torch.int32)
    assert to_channels(white, 1, source="a").item() == 65535


def test_to_channels_other_counts_raise() -> None:
    with pytest.raises(DataError, match=r"a\.tif: the image has 3 channels and the network takes 4"):
        to_channels(torch.zeros(3, 1, 1), 4, source="a.tif")

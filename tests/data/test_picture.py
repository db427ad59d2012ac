"""Pixels inside other files pass wherever a path does: heads, images, masks, data sets and splits."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from perpixel.data import Item, SegmentationDataset, fingerprint, infer_labels, read_image, read_mask
from perpixel.data.image_files import image_head, read_color_mask
from perpixel.data.picture import FileInside, Picture, file_of
from perpixel.errors import DataError
from perpixel.labels import LabelSpace


@dataclass(frozen=True)
class Stored(Picture):
    """An array in a .npy file."""

    file: Path

    @property
    def path(self) -> Path:
        return self.file

    def size(self) -> tuple[int, int]:
        height, width = np.load(self.file, mmap_mode="r").shape[:2]
        return height, width

    def read(self) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.file)
        return array

    def __str__(self) -> str:
        return f"{self.file}: the array"


@dataclass(frozen=True)
class Bytes(FileInside):
    """A PNG from the tenth byte on."""

    file: Path

    @property
    def path(self) -> Path:
        return self.file

    @property
    def name(self) -> str:
        return "inside.png"

    def open(self, mode: str = "rb") -> IO[bytes]:
        return io.BytesIO(self.file.read_bytes()[10:])

    def __str__(self) -> str:
        return f"{self.file}: inside.png"


def stored(path: Path, pixels: NDArray[Any]) -> Stored:
    np.save(path, pixels)
    return Stored(path)


def inside(path: Path, pixels: NDArray[Any]) -> Bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    path.write_bytes(bytes(10) + buffer.getvalue())
    return Bytes(path)


IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
MASK = (np.arange(20, dtype=np.uint8) % 3).reshape(4, 5)


@pytest.mark.parametrize("kind", [stored, inside])
def test_read_pixels_inside_other_file_equal_those_of_a_file(tmp_path: Path, kind: Any) -> None:
    image, mask = kind(tmp_path / "image.npy", IMAGE), kind(tmp_path / "mask.npy", MASK)
    assert image_head(image).size == (4, 5)
    np.testing.assert_array_equal(read_image(image).permute(1, 2, 0).numpy(), IMAGE)
    np.testing.assert_array_equal(read_mask(mask), MASK)


@pytest.mark.parametrize("kind", [stored, inside])
def test_dataset_of_pictures_gives_samples_in_this_and_other_processes(tmp_path: Path, kind: Any) -> None:
    items = (Item(name="a", image=kind(tmp_path / "i.npy", IMAGE), mask=kind(tmp_path / "m.npy", MASK)),)
    dataset = pickle.loads(pickle.dumps(SegmentationDataset(items, LabelSpace.numbered(3))))
    target = dataset[0].target
    assert target is not None
    np.testing.assert_array_equal(target.numpy(), MASK)
    assert infer_labels(items).labels.num_classes == 3
    assert len(fingerprint(items)) == 64
    assert file_of(items[0].image) == tmp_path / "i.npy"


def test_dataset_of_pictures_whose_sizes_differ_names_both_places(tmp_path: Path) -> None:
    items = (Item(name="a", image=stored(tmp_path / "i.npy", IMAGE), mask=stored(tmp_path / "m.npy", MASK[:3])),)
    with pytest.raises(DataError, match=r"m\.npy: the array: the mask is 3 x 5 .* image .*i\.npy: the array is 4 x 5"):
        SegmentationDataset(items, LabelSpace.numbered(3))[0]


def test_read_mask_of_picture_with_three_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the array: a mask holds one whole number per pixel.*\(4, 5, 3\)"):
        read_mask(stored(tmp_path / "a.npy", IMAGE))


def test_read_image_of_picture_with_fractions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the array: pixels of type float64"):
        read_image(stored(tmp_path / "a.npy", MASK.astype(float)))


def test_read_color_mask_of_picture_says_that_it_holds_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the array: this format holds class ids.*mask_encoding=ids"):
        read_color_mask(stored(tmp_path / "a.npy", MASK))


def test_read_image_of_picture_above_max_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 x 5 = 20 pixels are more than the limit of 19"):
        read_image(stored(tmp_path / "a.npy", IMAGE), max_pixels=19)


def test_read_image_of_damaged_file_inside_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"0123456789not an image")
    with pytest.raises(DataError, match=r"a\.bin: inside\.png: not a JPEG, PNG"):
        read_image(Bytes(tmp_path / "a.bin"))
